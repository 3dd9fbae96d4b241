import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { layoutFiles } from '../image-writer.ts'
import { parseImageReference } from '../reference.ts'
import { openImageStore } from '../store.ts'
import { pullImage } from './pull.ts'
import { noRegistries } from './registries.ts'

const fetchScript = resolve(import.meta.dirname, '../../../../infra/trixie/fetch.ts')
const program = findProgram()
if (program === undefined) console.log('skipped: docker-registry cannot be fetched from Debian')

/** The reference implementation of the distribution specification, from Debian's package. */
function findProgram(): string | undefined {
  try {
    const folder = execFileSync(process.execPath, [fetchScript, 'docker-registry'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
      timeout: 120_000,
    })
    return join(folder.trim(), 'usr/bin/docker-registry')
  } catch {
    return undefined
  }
}

const [username, password] = ['me', 'secret']
/** bcrypt of the password. */
const htpasswd = 'me:$2b$05$kmjDd4./Wuv2sndWmC2APeplgd7jLjBkYUIlTXnW.hW6YMQpYJ76C\n'
const authorization = `Basic ${btoa(`${username}:${password}`)}`

describe.skipIf(program === undefined)("Debian's registry", () => {
  const folder = mkdtempSync(join(tmpdir(), 'kiln-registry-'))
  let server: ChildProcess
  let host = ''

  beforeAll(async () => {
    host = `127.0.0.1:${await freePort()}`
    writeFileSync(join(folder, 'htpasswd'), htpasswd)
    writeFileSync(
      join(folder, 'config.yml'),
      [
        'version: 0.1',
        `storage: {filesystem: {rootdirectory: ${join(folder, 'data')}}}`,
        `http: {addr: ${host}}`,
        `auth: {htpasswd: {realm: test, path: ${join(folder, 'htpasswd')}}}`,
      ].join('\n'),
    )
    server = spawn(program!, ['serve', join(folder, 'config.yml')], { stdio: 'ignore' })
    const status = (): Promise<number> =>
      fetch(`http://${host}/v2/`).then(
        (answer) => answer.status,
        () => 0,
      )
    await vi.waitUntil(async () => (await status()) === 401, { timeout: 20_000, interval: 100 })
  })
  afterAll(() => void server?.kill())

  const upload = async (path: string, bytes: Uint8Array, type: string): Promise<void> => {
    const headers = { authorization, 'content-type': type }
    const { status } = await fetch(path, { method: 'PUT', headers, body: Buffer.from(bytes) })
    expect(status).toBe(201)
  }

  test('what was pushed to it is pulled, with the password and not without', async () => {
    const { files, manifestDigest } = await layoutFiles({
      layers: [
        [{ path: 'bin/app', content: 'x'.repeat(300_000), mode: 0o755 }],
        [{ path: 'etc/a', content: 'y' }],
      ],
      compression: 'gzip',
      config: { Cmd: ['/bin/app'] },
    })
    const base = `http://${host}/v2/team/app`
    for (const [name, bytes] of files) {
      const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`
      if (!name.startsWith('blobs/') || digest === manifestDigest) continue
      const begun = await fetch(`${base}/blobs/uploads/`, { method: 'POST', headers: { authorization } })
      const target = new URL(begun.headers.get('location')!, base)
      target.searchParams.set('digest', digest)
      await upload(target.href, bytes, 'application/octet-stream')
    }
    const manifest = files.get(`blobs/sha256/${manifestDigest.slice(7)}`)!
    await upload(`${base}/manifests/v1`, manifest, 'application/vnd.oci.image.manifest.v1+json')

    const reference = parseImageReference(`${host}/team/app:v1`, undefined)
    if (reference.kind !== 'registry') throw new Error('no image of a registry')
    const options = {
      reference,
      folder: join(folder, 'blobs'),
      architecture: 'amd64',
      registries: noRegistries,
      authFile: { auths: {}, credHelpers: {} },
      bytesMax: 1e9,
      signal: new AbortController().signal,
    }
    await expect(pullImage(options)).rejects.toMatchObject({ code: 'REGISTRY_DENIED' })
    const auths = { [host]: { username, password } }
    const source = await pullImage({ ...options, authFile: { auths, credHelpers: {} } })
    expect(source.digest).toBe(manifestDigest)
    const store = await openImageStore({ folder: join(folder, 'store'), syncTree: async () => undefined })
    const image = await store.import('x', source)
    expect(readFileSync(join(store.treeOf(image), 'bin/app')).length).toBe(300_000)
  })
})

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const { port } = server.address() as { port: number }
  await new Promise((done) => server.close(done))
  return port
}

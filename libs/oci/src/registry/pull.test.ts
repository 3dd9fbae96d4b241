import { mkdtempSync, readdirSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { ImageContent } from '../image-writer.ts'
import { parseImageReference } from '../reference.ts'
import { openImageStore } from '../store.ts'
import { parseChallenges } from './authorization.ts'
import { type AuthFile, credentialsFor } from './credentials.ts'
import { type PullOptions, type PullProgress, pullImage } from './pull.ts'
import { noRegistries } from './registries.ts'
import { type StubRegistry, startStubRegistry } from './stub-registry.ts'

let registry: StubRegistry
const closing: (() => void)[] = []
beforeEach(async () => {
  registry = await startStubRegistry()
  closing.push(() => registry.close())
})
afterEach(() => {
  for (const close of closing.splice(0)) close()
})

const noCredentials: AuthFile = { auths: {}, credHelpers: {} }
const newFolder = (): string => mkdtempSync(join(tmpdir(), 'kiln-pull-'))
const image: ImageContent = {
  layers: [
    [{ path: 'a', content: 'one' }],
    [{ path: 'b', content: 'two'.repeat(50_000) }],
    [{ path: 'a', content: 'three' }],
  ],
  compression: 'none',
  config: { Cmd: ['/a'] },
}

function optionsFor(text: string, more: Partial<PullOptions> = {}): PullOptions {
  const reference = parseImageReference(text, undefined)
  if (reference.kind !== 'registry') throw new Error('no image of a registry')
  return {
    reference,
    folder: newFolder(),
    architecture: 'amd64',
    registries: noRegistries,
    authFile: noCredentials,
    bytesMax: 1e9,
    signal: new AbortController().signal,
    backoffMs: 1,
    ...more,
  }
}
const pull = (more: Partial<PullOptions> = {}, tag = 'v1') =>
  pullImage(optionsFor(`${registry.host}/library/x:${tag}`, more))
const blobRequests = (): string[] =>
  registry.seen.map(({ path }) => path).filter((path) => path.includes('/blobs/'))

test('an image is pulled, unpacked, and what is here already is not fetched again', async () => {
  const { manifestDigest } = await registry.add(image, 'v1')
  const store = await openImageStore({ folder: newFolder(), syncTree: async () => undefined })
  const progress: PullProgress[] = []
  const source = await pull({ onProgress: (each) => progress.push(each) })
  expect(source.digest).toBe(manifestDigest)
  const stored = await store.import('x', source)
  expect(readFileSync(join(store.treeOf(stored), 'a'), 'utf8')).toBe('three')
  expect(stored.config.config?.Cmd).toEqual(['/a'])
  expect(progress.at(-1)).toMatchObject({ layers: 3, layersDone: 3 })
  expect(progress.at(-1)!.bytesDone).toBe(progress.at(-1)!.bytes)

  const folder = newFolder()
  await pull({ folder })
  const before = blobRequests().length
  await pull({ folder })
  expect(blobRequests().length).toBe(before)
  await registry.add({ ...image, layers: [...image.layers, [{ path: 'c', content: 'four' }]] }, 'v2')
  const grown = await store.import('grown', await pull({ folder }, 'v2'))
  // Its config and its own layer.
  expect(blobRequests().length).toBe(before + 2)
  expect(readFileSync(join(store.treeOf(grown), 'c'), 'utf8')).toBe('four')
})

test('two pulls at once that share a folder fetch each blob once', async () => {
  await registry.add(image, 'v1')
  const folder = newFolder()
  await Promise.all([pull({ folder }), pull({ folder })])
  expect(blobRequests()).toHaveLength(4)
})

test('an index leads to the image of this architecture, and a digest pins it', async () => {
  const { manifestDigest } = await registry.add(image, 'amd')
  const entry = { mediaType: 'application/vnd.oci.image.manifest.v1+json', digest: manifestDigest, size: 1 }
  const other = {
    ...entry,
    digest: `sha256:${'0'.repeat(64)}`,
    platform: { os: 'linux', architecture: 'arm64' },
  }
  const index = {
    schemaVersion: 2,
    manifests: [other, { ...entry, platform: { os: 'linux', architecture: 'amd64' } }],
  }
  registry.manifests.set('v1', { bytes: Buffer.from(JSON.stringify(index)), mediaType: 'application/json' })
  expect((await pull()).digest).toBe(manifestDigest)
  await expect(pull({ architecture: 's390x' })).rejects.toMatchObject({ code: 'IMAGE_NOT_FOUND' })
  const pinned = `${registry.host}/library/x@${manifestDigest}`
  expect((await pullImage(optionsFor(pinned))).digest).toBe(manifestDigest)
  registry.manifests.set(manifestDigest, registry.manifests.get('v1')!)
  await expect(pullImage(optionsFor(pinned))).rejects.toMatchObject({ code: 'IMAGE_DIGEST_MISMATCH' })
})

describe('bytes that are not as promised leave nothing', () => {
  test.each([
    ['flipped', (bytes: Uint8Array) => bytes.with(1000, bytes[1000]! ^ 1)],
    ['too many', (bytes: Uint8Array) => Buffer.concat([bytes, Buffer.from('x')])],
  ])('%s', async (_what, spoil) => {
    const { layers } = await registry.add(image, 'v1')
    registry.blobs.set(layers[1]!, spoil(registry.blobs.get(layers[1]!)!))
    const folder = newFolder()
    await expect(pull({ folder })).rejects.toMatchObject({ code: 'IMAGE_DIGEST_MISMATCH' })
    expect(readdirSync(folder).filter((name) => name.startsWith(layers[1]!.slice(7)))).toEqual([])
  })

  test('an index that would also be a manifest', async () => {
    const { manifestDigest } = await registry.add(image, 'v1')
    const both = { ...JSON.parse(Buffer.from(registry.blobs.get(manifestDigest)!).toString()), manifests: [] }
    registry.manifests.set('v1', { bytes: Buffer.from(JSON.stringify(both)), mediaType: 'application/json' })
    await expect(pull()).rejects.toMatchObject({ code: 'IMAGE_ARCHIVE_INVALID' })
  })
})

test('a transfer that breaks off goes on where it was, in this pull and in the next', async () => {
  const { layers } = await registry.add(image, 'v1')
  const [, large = ''] = layers
  const bytes = registry.blobs.get(large)!
  let breaks = 3
  registry.intercept = (request, response) => {
    if (!request.url!.endsWith(large) || breaks-- <= 0) return false
    const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0)
    response.writeHead(from > 0 ? 206 : 200, {
      'content-length': bytes.length - from,
      'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}`,
    })
    response.write(bytes.subarray(from, from + 40_000), () => setTimeout(() => response.destroy(), 20))
    return true
  }
  const folder = newFolder()
  const source = await pull({ folder })
  expect(source.layers).toHaveLength(3)
  const ranges = registry.seen.filter(({ path }) => path.endsWith(large)).map(({ range }) => range)
  expect(ranges[0]).toBeUndefined()
  expect(ranges.slice(1).every((range) => range?.startsWith('bytes='))).toBe(true)
})

test('a registry that is busy is asked again, one that says no is not', async () => {
  await registry.add(image, 'v1')
  let busy = 2
  registry.intercept = (_request, response) => {
    if (busy-- <= 0) return false
    response.writeHead(503).end()
    return true
  }
  expect((await pull()).layers).toHaveLength(3)
  const before = registry.seen.length
  await expect(pull({}, 'none')).rejects.toThrow(/manifest unknown/)
  expect(registry.seen.length).toBe(before + 1)
})

describe('authorization', () => {
  const withPassword = (host: string): AuthFile => ({
    ...noCredentials,
    auths: { [host]: { auth: Buffer.from('me:se:cret').toString('base64') } },
  })
  const basic = `Basic ${Buffer.from('me:se:cret').toString('base64')}`

  test('a token is bought once with the password and shown from then on', async () => {
    await registry.add(image, 'v1')
    registry.intercept = (request, response) => {
      const { authorization } = request.headers
      if (request.url!.startsWith('/token?')) {
        const { searchParams } = new URL(request.url!, 'http://x')
        expect(searchParams.get('scope')).toBe('repository:library/x:pull')
        expect(searchParams.get('service')).toBe('the registry')
        expect(authorization).toBe(basic)
        response.end('{"token":"t0"}')
        return true
      }
      if (authorization === 'Bearer t0') return false
      const realm = `Bearer realm="http://${registry.host}/token",service="the registry",scope="repository:library/x:pull"`
      response.writeHead(401, { 'www-authenticate': realm }).end()
      return true
    }
    await pull({ authFile: withPassword(registry.host) })
    expect(registry.seen.filter(({ path }) => path.startsWith('/token'))).toHaveLength(1)
  })

  test('an identity token is exchanged by POST', async () => {
    await registry.add(image, 'v1')
    registry.intercept = (request, response, body) => {
      if (request.url === '/token') {
        expect(new URLSearchParams(body).get('refresh_token')).toBe('identity')
        response.end('{"access_token":"t1"}')
        return true
      }
      if (request.headers.authorization === 'Bearer t1') return false
      response.writeHead(401, { 'www-authenticate': `Bearer realm="http://${registry.host}/token"` }).end()
      return true
    }
    const authFile = { ...noCredentials, auths: { [registry.host]: { identitytoken: 'identity' } } }
    expect((await pull({ authFile })).layers).toHaveLength(3)
  })

  test('a password is sent where it is asked for, and never to where a blob is redirected', async () => {
    await registry.add(image, 'v1')
    const storage = await startStubRegistry()
    closing.push(() => storage.close())
    storage.intercept = (request, response) => {
      response.end(registry.blobs.get(request.url!.slice(1))!)
      return true
    }
    registry.intercept = (request, response) => {
      if (request.headers.authorization !== basic) {
        response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end()
        return true
      }
      const blob = /\/blobs\/(.*)$/.exec(request.url!)?.[1]
      if (blob === undefined) return false
      response.writeHead(307, { location: `http://${storage.host}/${blob}` }).end()
      return true
    }
    expect((await pull({ authFile: withPassword(registry.host) })).layers).toHaveLength(3)
    expect(storage.seen.length).toBe(4)
    expect(storage.seen.every(({ authorization }) => authorization === undefined)).toBe(true)
  })

  test('without credentials, or with a realm that is not safe, it ends with the reason', async () => {
    await registry.add(image, 'v1')
    let challenge = 'Basic realm="x"'
    registry.intercept = (_request, response) => {
      response.writeHead(401, { 'www-authenticate': challenge }).end()
      return true
    }
    await expect(pull()).rejects.toMatchObject({ code: 'REGISTRY_DENIED' })
    challenge = 'Bearer realm="http://evil.example/token"'
    await expect(pull({ authFile: withPassword(registry.host) })).rejects.toThrow(/evil.example/)
  })

  test('challenges and the entries of auth files are found by their rules', () => {
    expect(parseChallenges('Basic realm="a, \\"b\\"", Bearer realm=x,scope="s:t"')).toEqual([
      { scheme: 'basic', parameters: { realm: 'a, "b"' } },
      { scheme: 'bearer', parameters: { realm: 'x', scope: 's:t' } },
    ])
    const auths = {
      'h.example': { username: 'host', password: '1' },
      'h.example/team': { username: 'team', password: '2' },
      'https://index.docker.io/v1/': { username: 'hub', password: '3' },
    }
    const file: AuthFile = { auths, credHelpers: { 'gcr.io': 'gcloud' } }
    const nameFor = (host: string, repository: string): unknown =>
      credentialsFor(file, { registry: host, repository })
    expect(nameFor('h.example', 'team/app')).toMatchObject({ username: 'team' })
    expect(nameFor('h.example', 'other')).toMatchObject({ username: 'host' })
    expect(nameFor('docker.io', 'library/x')).toMatchObject({ username: 'hub' })
    expect(nameFor('quay.io', 'x')).toBeUndefined()
    expect(() => nameFor('gcr.io', 'x')).toThrow(/helper gcloud/)
  })
})

test('mirrors come first, without the credentials of the registry; one that is away does not matter', async () => {
  await registry.add(image, 'v1')
  const mirror = await startStubRegistry()
  closing.push(() => mirror.close())
  mirror.intercept = (_request, response) => {
    response.writeHead(401, { 'www-authenticate': 'Basic realm="m"' }).end()
    return true
  }
  const registries = {
    ...noRegistries,
    mirrors: { [registry.host]: ['http://127.0.0.1:1', `http://${mirror.host}`] },
  }
  const authFile = { ...noCredentials, auths: { [registry.host]: { auth: btoa('me:secret') } } }
  expect((await pull({ registries, authFile })).layers).toHaveLength(3)
  expect(mirror.seen.map(({ authorization }) => authorization)).toEqual([undefined])
  mirror.intercept = () => false
  for (const [tag, entry] of registry.manifests) mirror.manifests.set(tag, entry)
  for (const [digest, bytes] of registry.blobs) mirror.blobs.set(digest, bytes)
  const before = registry.seen.length
  await pull({ registries })
  expect(registry.seen.length).toBe(before)
})

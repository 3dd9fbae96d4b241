import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { request as httpsRequest } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createCsr, createMachineKey, createReleaseKey, signManifest } from '@kiln/pki'
import { createLog } from '@kiln/service'
import { type BootServer, startBootServer } from './boot-server.ts'
import { BootSettings } from './settings.ts'

export const log = createLog('test', 'silent')
export const key = createReleaseKey()
export const macOf = (n: number): string => `52-54-00-4b-00-0${n}`
export const running: BootServer[] = []

/** Stops every server that a test started. */
export async function stopAll(): Promise<void> {
  await Promise.all(running.splice(0).map((server) => server.stop()))
}

export type Place = { data: string; assets: string }

/** A data directory with a store group of so many machines, and a signed release. */
export function place(machines: number): Place {
  const data = mkdtempSync(join(tmpdir(), 'kiln-boot-'))
  const assets = join(data, 'assets')
  const write = (path: string, content: string | Buffer): void => {
    mkdirSync(join(data, path, '..'), { recursive: true })
    writeFileSync(join(data, path), content)
  }
  const numbers = Array.from({ length: machines }, (_, i) => i + 1)
  const kiln = {
    role: 'store',
    addresses: Object.fromEntries(numbers.map((n) => [macOf(n), `10.77.0.${10 + n}`])),
    names: Object.fromEntries(numbers.map((n) => [macOf(n), `node${n}`])),
    clusterMacs: { [macOf(1)]: '52:54:00:4b:01:01' },
  }
  write('groups/default.json', JSON.stringify({ id: 'default', profile: 'kiln', metadata: { kiln } }))
  write(
    'profiles/kiln.json',
    JSON.stringify({ id: 'kiln', ignition_id: 'kiln.ign', kiln: { release: '0.1.0' } }),
  )
  write('ignition/kiln.ign', '{\n  "ignition": { "version": "3.4.0" }\n}\n')
  write('release-keys/test.pub', key.publicKey)
  writeRelease(assets, '0.1.0')
  return { data, assets }
}

export function writeRelease(assets: string, version: string): void {
  const folder = join(assets, 'releases', version)
  mkdirSync(folder, { recursive: true })
  const parts = ['vmlinuz', 'initrd', 'usr.img'].map((name) => {
    writeFileSync(join(folder, name), `${name} of ${version}`)
    return { name, sizeBytes: `${name} of ${version}`.length, sha256: '0'.repeat(64) }
  })
  const manifest = Buffer.from(
    JSON.stringify({
      formatVersion: 1,
      version,
      arch: 'x86_64',
      createdAt: '2026-01-01T00:00:00Z',
      expiresAt: '2999-01-01T00:00:00Z',
      usrRootHash: 'a'.repeat(64),
      usrHashOffset: 4096,
      kernelArguments: ['console=ttyS0'],
      parts,
    }),
  )
  writeFileSync(join(folder, 'manifest.json'), manifest)
  writeFileSync(join(folder, 'manifest.json.sig'), signManifest(manifest, key.privateKey))
}

export async function start(at: Place, more: object = {}): Promise<BootServer> {
  const settings = BootSettings.parse({
    address: '127.0.0.1:0',
    tlsAddress: '127.0.0.1:0',
    dataPath: at.data,
    assetsPath: at.assets,
    rescanSeconds: 1,
    ...more,
  })
  const server = await startBootServer(settings, log)
  running.push(server)
  return server
}

export const text = async (url: string): Promise<string> => (await fetch(url)).text()
// biome-ignore lint/suspicious/noExplicitAny: answers are checked by what the tests expect of them
export type Answer = any
export const json = async (url: string): Promise<Answer> => (await fetch(url)).json()
export const report = (server: BootServer, id: string, body: object): Promise<Response> =>
  fetch(`${server.url}/v1/machines/${id}/report`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ uptimeSeconds: 1, bootId: 'b1', ...body }),
  })

export type TlsReply = { status: number; body: Answer }
export function tls(
  server: BootServer,
  at: Place,
  call: { method: string; path: string; body?: object; cert?: string; key?: string },
): Promise<TlsReply> {
  const read = (name: string): string => readFileSync(join(at.data, 'pki', name), 'utf8')
  const { cert, key: privateKey } = call
  return new Promise((resolve, reject) => {
    const outgoing = httpsRequest(
      `${server.tlsUrl}${call.path}`,
      {
        method: call.method,
        ca: read('ca.pem'),
        cert: cert === 'admin' ? read('admin.pem') : cert,
        key: cert === 'admin' ? read('admin.key') : privateKey,
        headers: { 'content-type': 'application/json' },
        agent: false,
      },
      (incoming) => {
        let received = ''
        incoming.on('data', (chunk) => {
          received += chunk
        })
        incoming.on('end', () =>
          resolve({ status: incoming.statusCode ?? 0, body: received ? JSON.parse(received) : undefined }),
        )
      },
    )
    outgoing.on('error', reject)
    outgoing.end(call.body ? JSON.stringify(call.body) : undefined)
  })
}

/** A machine's certificate and key, got as its first boot gets them. */
export async function enrol(
  server: BootServer,
  at: Place,
  n: number,
): Promise<{ cert: string; key: string; id: string }> {
  const id = `node${n}`
  await text(`${server.url}/ipxe?mac=${macOf(n)}`)
  const config = await json(`${server.url}/ignition?mac=${macOf(n)}`)
  const { token } = JSON.parse(fileOf(config, '/etc/kiln/enrol.json') ?? '')
  const machineKey = createMachineKey()
  const body = { machine: id, token, csr: createCsr(machineKey, id) }
  const reply = await tls(server, at, { method: 'POST', path: '/v1/enrol', body })
  return { cert: reply.body.certificate, key: machineKey, id }
}

export const decode = (source: string): string =>
  Buffer.from(source.slice(source.indexOf(',') + 1), 'base64').toString()
export const fileOf = (config: Answer, path: string): string | undefined => {
  const found = config.storage.files.find((file: Answer) => file.path === path)
  return found && decode(found.contents.source)
}

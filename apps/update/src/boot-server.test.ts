import { mkdtempSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { TLSSocket } from 'node:tls'
import { createCa, createReleaseKey, issueCertificate, signManifest } from '@kiln/pki'
import { MachineFacts } from '@kiln/schemas'
import { afterEach, expect, test } from 'vitest'
import { fetchChannel, fetchRelease, haltChannel, renewCertificate, sendReport } from './boot-server.ts'

const servers: Server[] = []
afterEach(() => {
  for (const server of servers.splice(0)) server.close().closeAllConnections()
})

const now = new Date()
const ca = await createCa({ name: 'Kiln cluster CA', days: 10, now })
const other = await createCa({ name: 'Somebody', days: 10, now })
const machine = await issueCertificate(ca, { commonName: 'node1', names: [], use: ['client'], days: 5, now })

type Asked = { line: string; by: string; body: string }

/** A boot server of the given authority that answers by path; what was asked, and by whom, is kept. */
async function bootServer(answers: Record<string, { status?: number; body: string }>, authority = ca) {
  const subject = { commonName: 'boot', names: ['127.0.0.1'], use: ['server'], days: 5, now } as const
  const { certificate, key } = await issueCertificate(authority, subject)
  const asked: Asked[] = []
  const server = createServer(
    { key, cert: certificate, ca: ca.certificate, requestCert: true, rejectUnauthorized: false },
    (request, response) => {
      let body = ''
      request.on('data', (chunk) => {
        body += chunk
      })
      request.on('end', () => {
        const peer = (request.socket as TLSSocket).getPeerCertificate()
        asked.push({ line: `${request.method} ${request.url}`, by: String(peer.subject?.CN), body })
        const answer = answers[request.url ?? '']
        response.writeHead(answer?.status ?? (answer ? 200 : 404)).end(answer?.body)
      })
    },
  ).listen(0, '127.0.0.1')
  servers.push(server)
  await new Promise((resolve) => server.once('listening', resolve))
  const bootTlsUrl = `https://127.0.0.1:${(server.address() as AddressInfo).port}`
  const facts = MachineFacts.parse({
    formatVersion: 1,
    id: 'node1',
    name: 'node1',
    group: 'default',
    role: 'store',
    address: '10.77.0.11',
    // Nobody answers there: what needs it fails.
    bootUrl: 'http://127.0.0.1:1',
    bootTlsUrl,
    storeEndpoints: [],
  })
  const identity = { ca: ca.certificate, cert: machine.certificate, key: machine.key }
  return { link: { facts, tls: () => identity }, asked, identity, bootTlsUrl, server }
}

const channel = {
  version: '0.2.0',
  manifestUrl: 'http://10.9.9.9/assets/releases/0.2.0/manifest.json',
  state: 'rolling',
}

test('looks share one connection, and a renewed certificate gets one of its own', {
  timeout: 30_000,
}, async () => {
  const { link, server, identity } = await bootServer({
    '/v1/channels/default': { body: JSON.stringify(channel) },
  })
  // As kiln-boot keeps them; Node's own agent lets go of a connection after 5 s, which is the time between two looks.
  server.keepAliveTimeout = 72_000
  let connections = 0
  server.on('secureConnection', () => connections++)
  await fetchChannel(link)
  await sleep(6_000)
  await fetchChannel(link)
  expect(connections).toBe(1)
  const subject = { commonName: 'node1', names: [], use: ['client'], days: 5, now } as const
  const renewed = await issueCertificate(ca, subject)
  await fetchChannel({
    ...link,
    tls: () => ({ ...identity, cert: renewed.certificate, key: renewed.key }),
  })
  expect(connections).toBe(2)
})

test('channel, manifest, reports and halts go over TLS, as this machine, whatever host the channel names', async () => {
  const manifest = JSON.stringify({
    formatVersion: 1,
    version: '0.2.0',
    arch: 'x86_64',
    createdAt: '2026-01-01T00:00:00Z',
    expiresAt: '2999-01-01T00:00:00Z',
    usrRootHash: 'a'.repeat(64),
    usrHashOffset: 4096,
    kernelArguments: [],
    parts: [{ name: 'usr.img', sizeBytes: 1, sha256: '0'.repeat(64) }],
  })
  const releaseKey = createReleaseKey()
  const releaseKeysDir = mkdtempSync(join(tmpdir(), 'kiln-keys-'))
  writeFileSync(join(releaseKeysDir, 'test.pub'), releaseKey.publicKey)
  const folder = '/assets/releases/0.2.0'
  const { link, asked } = await bootServer({
    '/v1/channels/default': { body: JSON.stringify(channel) },
    [`${folder}/manifest.json`]: { body: manifest },
    [`${folder}/manifest.json.sig`]: { body: signManifest(Buffer.from(manifest), releaseKey.privateKey) },
    '/v1/machines/node1/report': { status: 204, body: '' },
    '/v1/channels/default/halt': { body: '{}' },
  })
  const found = await fetchChannel(link)
  const release = await fetchRelease(link, found!, { releaseKeysDir, nowMs: now.getTime() })
  expect(release.baseUrl).toBe(`http://127.0.0.1:1${folder}/`)
  await sendReport(link, { stage: 'ready', status: 'done', uptimeSeconds: 1, bootId: 'b' })
  expect(await haltChannel(link, { version: '0.2.0', reason: 'gate red' })).toBe('halted')
  expect(asked.map(({ line, by }) => `${by}: ${line}`)).toEqual([
    'node1: GET /v1/channels/default',
    `node1: GET ${folder}/manifest.json`,
    `node1: GET ${folder}/manifest.json.sig`,
    'node1: POST /v1/machines/node1/report',
    'node1: POST /v1/channels/default/halt',
  ])
  expect(JSON.parse(asked.at(-1)!.body)).toEqual({ version: '0.2.0', reason: 'gate red' })
})

test('a boot server of another authority is not believed', async () => {
  const { link, asked } = await bootServer(
    { '/v1/channels/default': { body: JSON.stringify(channel) } },
    other,
  )
  await expect(fetchChannel(link)).rejects.toMatchObject({ code: 'BOOT_SERVER_UNREACHABLE' })
  expect(asked).toEqual([])
})

test('a halt that comes too late is told apart from one that was not heard', async () => {
  const answer = (status: number) => ({ '/v1/channels/default/halt': { status, body: '{}' } })
  const halt = { version: '0.1.0', reason: 'x' }
  expect(await haltChannel((await bootServer(answer(409))).link, halt)).toBe('outdated')
  await expect(haltChannel((await bootServer(answer(503))).link, halt)).rejects.toMatchObject({
    code: 'BOOT_SERVER_ANSWER',
  })
})

test('what the boot server says about a refusal is told with its remedy', async () => {
  const error = { code: 'CERTIFICATE_EXPIRED', message: 'it ended', remedy: 'do that' }
  const { link } = await bootServer({ '/v1/renew': { status: 403, body: JSON.stringify({ error }) } })
  await expect(renewCertificate(link, 'csr')).rejects.toMatchObject({
    message: expect.stringContaining('403: CERTIFICATE_EXPIRED, it ended'),
    remedy: 'do that',
  })
})

test('a renewed certificate is shown at the next request', async () => {
  const { link, asked, identity } = await bootServer({
    '/v1/channels/default': { body: JSON.stringify(channel) },
  })
  await fetchChannel(link)
  const subject = { commonName: 'node1-renewed', names: [], use: ['client'], days: 5, now } as const
  const { certificate, key } = await issueCertificate(ca, subject)
  Object.assign(identity, { cert: certificate, key })
  await fetchChannel(link)
  expect(asked.map(({ by }) => by)).toEqual(['node1', 'node1-renewed'])
})

import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createCsr, createMachineKey, type KeyPair, signCsr } from '@kiln/pki'
import { afterEach, expect, test } from 'vitest'
import {
  enrol,
  json,
  macOf,
  type Place,
  place,
  report,
  start,
  stopAll,
  text,
  tls,
  writeRelease,
} from './server-fixture.ts'

afterEach(stopAll)

const audit = (at: Place): string => readFileSync(join(at.data, 'audit.log'), 'utf8')
const readyReport = { stage: 'ready', status: 'done', uptimeSeconds: 9, bootId: 'b2' }

test('a certificate is renewed for the key that enrolled, and the audit log has it', async () => {
  const at = place(1)
  const server = await start(at)
  const { id, ...identity } = await enrol(server, at, 1)
  const renew = (csr: string) =>
    tls(server, at, { method: 'POST', path: '/v1/renew', ...identity, body: { csr } })
  const renewed = await renew(createCsr(identity.key, id))
  expect(renewed.status).toBe(200)
  const [before, after] = [identity.cert, renewed.body.certificate].map((pem) => new X509Certificate(pem))
  expect(after!.subject).toBe(before!.subject)
  expect(after!.subjectAltName).toBe(before!.subjectAltName)
  expect(after!.publicKey.equals(before!.publicKey)).toBe(true)
  expect(audit(at)).toMatch(
    /"action":"machine.renew".*"machine":"node1".*"outcome":"allowed","detail":"until 20/,
  )

  const other = await renew(createCsr(createMachineKey(), id))
  expect(other).toMatchObject({ status: 403, body: { error: { code: 'RENEW_KEY_WRONG' } } })
  const nobody = await tls(server, at, {
    method: 'POST',
    path: '/v1/renew',
    body: { csr: createCsr(identity.key, id) },
  })
  expect(nobody).toMatchObject({ status: 403, body: { error: { code: 'MACHINE_REQUIRED' } } })
  expect(audit(at)).toMatch(/"machine.renew".*"outcome":"refused","detail":"RENEW_KEY_WRONG"/)
})

test('the certificate of an earlier install is not renewed once the machine enrolled again', async () => {
  const at = place(1)
  const server = await start(at)
  const former = await enrol(server, at, 1)
  await enrol(server, at, 1)
  const { id, ...identity } = former
  const refused = await tls(server, at, {
    ...{ method: 'POST', path: '/v1/renew', ...identity },
    body: { csr: createCsr(identity.key, id) },
  })
  expect(refused).toMatchObject({ status: 403, body: { error: { code: 'RENEW_KEY_WRONG' } } })
})

test('an expired certificate is named as such and renewed only as long after its end as the operator allows', async () => {
  const at = place(1)
  const strict = await start(at)
  const { id, key } = await enrol(strict, at, 1)
  const read = (name: string): string => readFileSync(join(at.data, 'pki', name), 'utf8')
  const ca: KeyPair = { certificate: read('ca.pem'), key: read('ca.key') }
  const csr = createCsr(key, id)
  const now = new Date(Date.now() - 5 * 86_400_000)
  const subject = { commonName: id, names: [id], use: ['client'], days: 2, now } as const
  const cert = await signCsr(ca, csr, subject)
  const renew = (server: typeof strict) =>
    tls(server, at, { method: 'POST', path: '/v1/renew', cert, key, body: { csr } })
  expect(await renew(strict)).toMatchObject({
    status: 403,
    body: { error: { code: 'CERTIFICATE_EXPIRED', remedy: expect.stringContaining('--renew-expired-days') } },
  })
  await strict.stop()
  expect(await renew(await start(at, { renewExpiredDays: 2 }))).toMatchObject({ status: 403 })
  await stopAll()
  expect((await renew(await start(at, { renewExpiredDays: 4 }))).status).toBe(200)
})

test('over TLS a machine reports only for itself, and once it is enrolled nobody else says that it is ready', async () => {
  const at = place(2)
  const server = await start(at)
  for (const n of [1, 2]) await text(`${server.url}/ipxe?mac=${macOf(n)}`)
  const [one, two] = [await enrol(server, at, 1), await enrol(server, at, 2)]
  const send = (as: typeof one | undefined) =>
    tls(server, at, {
      ...{ method: 'POST', path: '/v1/machines/node1/report', body: readyReport },
      ...(as ? { cert: as.cert, key: as.key } : {}),
    })
  expect(await send(two)).toMatchObject({ status: 403, body: { error: { code: 'MACHINE_REQUIRED' } } })
  expect(await send(undefined)).toMatchObject({ status: 403 })
  expect((await report(server, 'node1', { stage: 'files', status: 'done' })).status).toBe(204)
  const plain = await report(server, 'node1', readyReport)
  expect(await plain.json()).toMatchObject({ error: { code: 'TLS_REQUIRED' } })
  expect(await json(`${server.url}/v1/machines/node1`)).toMatchObject({ stage: 'files' })
  await Promise.all(
    Array.from({ length: 100 }, () => report(server, 'node1', { stage: 'files', status: 'done' })),
  )
  expect((await send(one)).status).toBe(204)
  expect(await json(`${server.url}/v1/machines/node1`)).toMatchObject({ stage: 'ready', state: 'installed' })
})

test('over TLS a machine reads the channel of its own group, with a manifest over TLS', async () => {
  const at = place(1)
  const server = await start(at)
  const { id: _id, ...identity } = await enrol(server, at, 1)
  writeRelease(at.assets, '0.2.0')
  await tls(server, at, {
    method: 'PUT',
    path: '/v1/channels/default',
    cert: 'admin',
    body: { version: '0.2.0' },
  })
  const channel = (group: string) =>
    tls(server, at, { method: 'GET', path: `/v1/channels/${group}`, ...identity })
  const { body } = await channel('default')
  expect(body.manifestUrl).toBe(`${server.tlsUrl}/assets/releases/0.2.0/manifest.json`)
  expect(await channel('other')).toMatchObject({ status: 403, body: { error: { code: 'MACHINE_REQUIRED' } } })
  const manifest = await tls(server, at, {
    method: 'GET',
    path: new URL(body.manifestUrl).pathname,
    ...identity,
  })
  expect(manifest.body.version).toBe('0.2.0')
})

test('a halt about a release that is no longer the published one stops nothing', async () => {
  const at = place(1)
  const server = await start(at)
  const { id: _id, ...identity } = await enrol(server, at, 1)
  const publish = (version: string) => {
    writeRelease(at.assets, version)
    return tls(server, at, { method: 'PUT', path: '/v1/channels/default', cert: 'admin', body: { version } })
  }
  const halt = (body: object) =>
    tls(server, at, { method: 'POST', path: '/v1/channels/default/halt', ...identity, body })
  await publish('0.2.0')
  await publish('0.3.0')
  expect(await halt({ version: '0.2.0', reason: 'gate red' })).toMatchObject({
    status: 409,
    body: { error: { code: 'HALT_OUTDATED' } },
  })
  expect(await halt({ reason: 'gate red' })).toMatchObject({ status: 400 })
  expect(await json(`${server.url}/v1/channels/default`)).toMatchObject({
    version: '0.3.0',
    state: 'rolling',
  })
  expect(await halt({ version: '0.3.0', reason: 'gate red' })).toMatchObject({ status: 200 })
  expect(await json(`${server.url}/v1/channels/default`)).toMatchObject({ state: 'halted', machine: 'node1' })
})

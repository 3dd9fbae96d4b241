import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createCsr, createMachineKey } from '@kiln/pki'
import { afterEach, expect, test } from 'vitest'
import {
  fileOf,
  json,
  macOf,
  place,
  report,
  start,
  stopAll,
  text,
  tls,
  writeRelease,
} from './server-fixture.ts'

afterEach(stopAll)

test('a machine enrols over TLS, once; its certificate carries its names and opens the machine calls', async () => {
  const at = place(1)
  const server = await start(at)
  await text(`${server.url}/ipxe?mac=${macOf(1)}`)
  const config = await json(`${server.url}/ignition?mac=${macOf(1)}`)
  const ticket = JSON.parse(fileOf(config, '/etc/kiln/enrol.json') ?? '')
  expect(ticket.url).toBe(`${server.tlsUrl}/v1/enrol`)
  const again = await json(`${server.url}/ignition?mac=${macOf(1)}`)
  expect(JSON.parse(fileOf(again, '/etc/kiln/enrol.json') ?? '')).toEqual(ticket)

  const machineKey = createMachineKey()
  const body = { machine: 'node1', token: ticket.token, csr: createCsr(machineKey, 'root') }
  const reply = await tls(server, at, { method: 'POST', path: '/v1/enrol', body })
  expect(reply.status).toBe(200)
  const repeated = await tls(server, at, { method: 'POST', path: '/v1/enrol', body })
  expect(repeated.body).toEqual(reply.body)

  const thief = { ...body, csr: createCsr(createMachineKey(), 'node1') }
  const refused = await tls(server, at, { method: 'POST', path: '/v1/enrol', body: thief })
  expect(refused).toMatchObject({ status: 403, body: { error: { code: 'ENROL_TOKEN_USED' } } })
  const record = await json(`${server.url}/v1/machines/node1`)
  expect(record.alarmAt).toBeDefined()
  const audit = readFileSync(join(at.data, 'audit.log'), 'utf8')
  expect(audit).toMatch(/"action":"machine.enrol","machine":"node1".*"outcome":"refused".*ENROL_TOKEN_USED/)
  expect(audit).not.toContain(ticket.token)

  const identity = { cert: reply.body.certificate, key: machineKey }
  const renewed = await tls(server, at, {
    ...{ method: 'POST', path: '/v1/renew', ...identity },
    body: { csr: createCsr(machineKey, 'node1') },
  })
  expect(renewed.status).toBe(200)
  const notOperator = await tls(server, at, {
    method: 'POST',
    path: '/v1/machines/node1/reinstall',
    ...identity,
  })
  expect(notOperator).toMatchObject({ status: 403, body: { error: { code: 'OPERATOR_REQUIRED' } } })
})

test('enrolment over plain HTTP, for an unknown machine or with nonsense is refused with a code', async () => {
  const at = place(1)
  const server = await start(at)
  const body = { machine: 'node9', token: 'x'.repeat(40), csr: createCsr(createMachineKey(), 'x') }
  const plain = await fetch(`${server.url}/v1/enrol`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })
  expect(await plain.json()).toMatchObject({ error: { code: 'TLS_REQUIRED' } })
  const unknown = await tls(server, at, { method: 'POST', path: '/v1/enrol', body })
  expect(unknown).toMatchObject({ status: 403, body: { error: { code: 'ENROL_TOKEN_WRONG' } } })
  const nonsense = await tls(server, at, { method: 'POST', path: '/v1/enrol', body: { machine: 1 } })
  expect(nonsense).toMatchObject({ status: 400, body: { error: { code: 'BODY_INVALID' } } })
})

test('an unknown machine is listed, waits with its reason on the screen, and is assigned by an operator', async () => {
  const at = place(1)
  const server = await start(at)
  const script = await text(`${server.url}/ipxe?mac=${macOf(7)}&uuid=ABC&serial=S1`)
  expect(script).toContain('has no address for this machine')
  expect(script).toContain('chain --replace --autofree')
  expect(await json(`${server.url}/v1/machines/${macOf(7)}`)).toMatchObject({
    state: 'discovered',
    uuid: 'abc',
    serial: 'S1',
  })
  expect((await fetch(`${server.url}/ignition?mac=${macOf(7)}`)).status).toBe(503)
  const assign = (body: object) =>
    tls(server, at, { method: 'PUT', path: `/v1/machines/${macOf(7)}`, cert: 'admin', body })
  const wanted = { group: 'default', name: 'extra', address: '10.77.0.50', role: 'worker' }
  await text(`${server.url}/ipxe?mac=${macOf(1)}`)
  expect(await assign({ ...wanted, name: 'node1' })).toMatchObject({ status: 409 })
  expect(await assign({ ...wanted, address: '10.77.0.11' })).toMatchObject({ status: 409 })
  expect(await assign({ ...wanted, name: 'admin' })).toMatchObject({
    body: { error: { code: 'NAME_RESERVED' } },
  })
  expect(await assign({ ...wanted, group: 'gone' })).toMatchObject({
    body: { error: { code: 'GROUP_UNKNOWN' } },
  })
  expect(await assign(wanted)).toMatchObject({ status: 200, body: { id: 'extra', state: 'assigned' } })
  expect(await text(`${server.url}/ipxe?mac=${macOf(7)}`)).toContain('kiln.machine=extra')
  const config = await json(`${server.url}/ignition?mac=${macOf(7)}`)
  expect(fileOf(config, '/etc/kiln/kv.env')).toBeUndefined()
  expect(JSON.parse(fileOf(config, '/etc/kiln/machine.json') ?? '').storeEndpoints).toEqual([
    'https://10.77.0.11:2379',
  ])
})

test('a release goes to a group only when it is whole and signed; a machine of the group halts it', async () => {
  const at = place(1)
  const server = await start(at)
  const put = (version: string) =>
    tls(server, at, { method: 'PUT', path: '/v1/channels/default', cert: 'admin', body: { version } })
  expect((await fetch(`${server.url}/v1/channels/default`)).status).toBe(404)
  expect(await put('0.2.0')).toMatchObject({ status: 404, body: { error: { code: 'RELEASE_UNKNOWN' } } })
  writeRelease(at.assets, '0.2.0')
  rmSync(join(at.assets, 'releases/0.2.0/initrd'))
  expect(await put('0.2.0')).toMatchObject({ status: 404 })
  writeRelease(at.assets, '0.2.0')
  writeFileSync(join(at.assets, 'releases/0.2.0/manifest.json.sig'), 'x')
  expect(await put('0.2.0')).toMatchObject({
    status: 409,
    body: { error: { code: 'RELEASE_SIGNATURE_INVALID' } },
  })
  writeRelease(at.assets, '0.2.0')
  expect(await put('0.2.0')).toMatchObject({ status: 200, body: { state: 'rolling' } })
  const channel = await json(`${server.url}/v1/channels/default`)
  expect(channel.manifestUrl).toBe(`${server.url}/assets/releases/0.2.0/manifest.json`)
  const halt = (cert?: string) =>
    tls(server, at, { method: 'POST', path: '/v1/channels/default/halt', cert, body: { reason: 'gate red' } })
  expect(await halt()).toMatchObject({ status: 403, body: { error: { code: 'MACHINE_REQUIRED' } } })
  expect(await halt('admin')).toMatchObject({ status: 200, body: { state: 'halted', reason: 'gate red' } })
  expect((await tls(server, at, { method: 'GET', path: '/v1/channels/default' })).status).toBe(403)
  expect(await json(`${server.url}/v1/channels/default`)).toMatchObject({ state: 'halted' })
})

test('reports are bounded in size and rate and a bad one names what is wrong', async () => {
  const server = await start(place(1))
  await text(`${server.url}/ipxe?mac=${macOf(1)}`)
  expect(await (await report(server, 'node1', { stage: 'lunch', status: 'done' })).json()).toMatchObject({
    error: { code: 'BODY_INVALID' },
  })
  const huge = await report(server, 'node1', { stage: 'fetch', status: 'running', message: 'x'.repeat(5000) })
  expect(huge.status).toBe(413)
  expect((await report(server, 'node8', { stage: 'fetch', status: 'running' })).status).toBe(404)
  const many = await Promise.all(
    Array.from({ length: 150 }, () => report(server, 'node1', { stage: 'fetch', status: 'running' })),
  )
  expect(many.map((one) => one.status)).toContain(429)
})

test('a body that is not JSON is refused, one without its type is read', async () => {
  const server = await start(place(1))
  await text(`${server.url}/ipxe?mac=${macOf(1)}`)
  const send = (body: string) => fetch(`${server.url}/v1/machines/node1/report`, { method: 'POST', body })
  expect((await send('{')).status).toBe(400)
  expect((await send('')).status).toBe(400)
  expect((await send('{"stage":"fetch","status":"done","uptimeSeconds":1,"bootId":"b"}')).status).toBe(204)
})

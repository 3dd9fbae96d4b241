import { mkdtempSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createCa, createCsr, createMachineKey } from '@kiln/pki'
import type { MachineRecord } from '@kiln/schemas'
import { expect, test } from 'vitest'
import { EnrolmentDesk, type EnrolmentOutcome, renewTicket, tokenLifeMs } from './enrolment.ts'

const now = new Date('2026-06-01T00:00:00Z')
const later = (ms: number): Date => new Date(now.getTime() + ms)
const ca = await createCa({ name: 'test', days: 10, now })
const record = {
  id: 'node1',
  name: 'node1',
  address: '10.77.0.11',
  state: 'installing',
  installs: 1,
} as MachineRecord

function openDesk(folder = join(mkdtempSync(join(tmpdir(), 'kiln-enrol-')), 'enrolments')) {
  return { folder, desk: new EnrolmentDesk(folder, ca) }
}
const request = (token: string, key: string) => ({ machine: 'node1', token, csr: createCsr(key, 'node1') })
const codeOf = (outcome: EnrolmentOutcome): string =>
  outcome.kind === 'refused' ? outcome.code : outcome.kind

test('a token is the same for repeated fetches of one install and certifies one key', async () => {
  const { desk, folder } = openDesk()
  const { token } = await desk.ticket(record, now)
  expect((await desk.ticket(record, later(60_000))).token).toBe(token)
  const outcome = await desk.enrol(record, request(token, createMachineKey()), now)
  expect(outcome).toMatchObject({ kind: 'enrolled', repeated: false, reply: { ca: ca.certificate } })
  expect(statSync(join(folder, 'node1.json')).mode & 0o777).toBe(0o600)
})

test('a lost reply is repeated for the same key with the same certificate, also by a restarted server', async () => {
  const { desk, folder } = openDesk()
  const key = createMachineKey()
  const { token } = await desk.ticket(record, now)
  const first = await desk.enrol(record, request(token, key), now)
  const second = await openDesk(folder).desk.enrol(record, request(token, key), later(60_000))
  expect(second).toMatchObject({ kind: 'enrolled', repeated: true })
  expect(second).toHaveProperty('reply', first.kind === 'enrolled' ? first.reply : undefined)
})

test('a second key with a used token is refused with an alarm', async () => {
  const { desk } = openDesk()
  const { token } = await desk.ticket(record, now)
  await desk.enrol(record, request(token, createMachineKey()), now)
  const thief = await desk.enrol(record, request(token, createMachineKey()), now)
  expect(thief).toMatchObject({ kind: 'refused', code: 'ENROL_TOKEN_USED', alarm: true })
})

test('two keys racing for one token: exactly one is certified', async () => {
  const { desk } = openDesk()
  const { token } = await desk.ticket(record, now)
  const outcomes = await Promise.all(
    Array.from({ length: 8 }, () => desk.enrol(record, request(token, createMachineKey()), now)),
  )
  expect(outcomes.map(codeOf).sort()).toEqual([...Array(7).fill('ENROL_TOKEN_USED'), 'enrolled'])
})

test('a wrong token is refused with an alarm, an expired one without, before and after use', async () => {
  const { desk } = openDesk()
  const key = createMachineKey()
  expect(codeOf(await desk.enrol(record, request('x'.repeat(43), key), now))).toBe('ENROL_TOKEN_WRONG')
  const { token } = await desk.ticket(record, now)
  expect(codeOf(await desk.enrol(record, request(`${token.slice(0, -1)}_`, key), now))).toBe(
    'ENROL_TOKEN_WRONG',
  )
  const late = await desk.enrol(record, request(token, key), later(tokenLifeMs))
  expect(late).toMatchObject({ code: 'ENROL_TOKEN_EXPIRED', alarm: false })
})

test('a request that is none is refused and uses nothing up', async () => {
  const { desk } = openDesk()
  const { token } = await desk.ticket(record, now)
  await expect(desk.enrol(record, { machine: 'node1', token, csr: 'x' }, now)).rejects.toMatchObject({
    code: 'CSR_INVALID',
  })
  expect(codeOf(await desk.enrol(record, request(token, createMachineKey()), now))).toBe('enrolled')
})

test('the next install gets a new token, and so does one whose token expired unused', async () => {
  const first = renewTicket(undefined, { install: 1, now })
  expect(renewTicket(first, { install: 2, now }).token).not.toBe(first.token)
  expect(renewTicket(first, { install: 1, now: later(tokenLifeMs) }).token).not.toBe(first.token)
  const used = { ...first, usedByKey: 'k', certificate: 'c' }
  expect(renewTicket(used, { install: 1, now: later(tokenLifeMs) })).toBe(used)
})

test('a damaged enrolment is a fault that says what to do', async () => {
  const { desk, folder } = openDesk()
  await desk.ticket(record, now)
  writeFileSync(join(folder, 'node1.json'), '{')
  await expect(desk.ticket(record, now)).rejects.toMatchObject({ code: 'STATE_UNREADABLE' })
  expect(readFileSync(join(folder, 'node1.json'), 'utf8')).toBe('{')
})

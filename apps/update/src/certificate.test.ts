import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createCa, createMachineKey, signCsr } from '@kiln/pki'
import { createCsr } from '@kiln/pki/csr'
import { certificateLife } from '@kiln/pki/machine'
import { createLog } from '@kiln/service'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import {
  CertificateKeeper,
  describeLife,
  planRenewal,
  renewalProblemFile,
  retryPauseMs,
} from './certificate.ts'

const dayMs = 86_400_000
const hourMs = 3_600_000
const start = Date.parse('2026-06-01T00:00:00Z')
const ca = await createCa({ name: 'Kiln cluster CA', days: 3650, now: new Date(start) })
const life = { fromMs: start, untilMs: start + 90 * dayMs, renewFromMs: start + 60 * dayMs }

/** An enrolled machine whose boot server signs, or is away. */
async function machine() {
  const folder = mkdtempSync(join(tmpdir(), 'kiln-certificate-'))
  const [pkiDir, runDir] = ['pki', 'run'].map((name) => join(folder, name))
  for (const one of [pkiDir!, runDir!]) mkdirSync(one)
  const key = createMachineKey()
  const at = { nowMs: start, asked: 0, away: undefined as Error | undefined }
  const certify = (csr: string): Promise<string> =>
    signCsr(ca, csr, {
      commonName: 'node1',
      names: ['node1'],
      use: ['client'],
      days: 90,
      now: new Date(at.nowMs),
    })
  writeFileSync(join(pkiDir!, 'ca.pem'), ca.certificate)
  writeFileSync(join(pkiDir!, 'machine.key'), key)
  writeFileSync(join(pkiDir!, 'machine.pem'), await certify(createCsr(key, 'node1')))
  const keeper = new CertificateKeeper({
    pkiDir: pkiDir!,
    runDir: runDir!,
    machine: 'node1',
    nowMs: () => at.nowMs,
    random: () => 0.5,
    sleep: async () => undefined,
    renew: async (csr) => {
      at.asked += 1
      if (at.away) throw at.away
      return await certify(csr)
    },
    log: createLog('test', 'silent'),
  })
  const certificate = () => certificateLife(readFileSync(join(pkiDir!, 'machine.pem'), 'utf8'))
  // What an earlier daemon left.
  writeFileSync(renewalProblemFile(runDir!), 'an old problem')
  const problem = () => readFileSync(renewalProblemFile(runDir!), 'utf8')
  return { at, keeper, certificate, problem }
}

test('a certificate is renewed when two thirds of its life are over, and not before', async () => {
  const { at, keeper, certificate, problem } = await machine()
  const first = certificate()
  at.nowMs = first.renewFromMs - 1
  expect(await keeper.step()).toBe(hourMs)
  expect(problem()).toBe('')
  expect([at.asked, certificate().untilMs]).toEqual([0, first.untilMs])
  at.nowMs = first.renewFromMs + 10 * dayMs
  await keeper.step()
  expect(certificate().untilMs).toBeGreaterThan(first.untilMs)
  await keeper.step()
  expect(at.asked).toBe(1)
})

test('machines that were installed together spread their renewals, all well before the end', () => {
  fc.assert(
    fc.property(fc.double({ min: 0, max: 1, noNaN: true }), (place) => {
      expect(planRenewal(life, { nowMs: life.renewFromMs - 1, place }).kind).toBe('wait')
      expect(planRenewal(life, { nowMs: start + 65 * dayMs, place }).kind).toBe('renew')
    }),
  )
  const due = (place: number) => planRenewal(life, { nowMs: start + 62 * dayMs, place }).kind
  expect([due(0), due(1)]).toEqual(['renew', 'wait'])
})

test('a boot server that is away is asked again, ever more seldom, and the reason is there to read until it worked', async () => {
  const { at, keeper, certificate, problem } = await machine()
  const before = certificate()
  at.nowMs = before.renewFromMs + 10 * dayMs
  at.away = new Error('connection refused')
  const pauses: number[] = []
  for (let tries = 0; tries < 12; tries++) pauses.push(await keeper.step())
  expect(pauses.slice(0, 3)).toEqual([22_500, 45_000, 90_000])
  expect(Math.max(...pauses)).toBeLessThanOrEqual(hourMs)
  expect(problem()).toContain('connection refused')
  at.away = undefined
  await keeper.step()
  expect(certificate().untilMs).toBeGreaterThan(before.untilMs)
  expect(problem()).toBe('')
})

test('no pause is without bound or without end', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 1e6 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      (failures, chance) => {
        expect(retryPauseMs(failures, chance)).toBeGreaterThanOrEqual(15_000)
        expect(retryPauseMs(failures, chance)).toBeLessThanOrEqual(hourMs)
      },
    ),
  )
})

test('an expired certificate is still asked for, and what can be done is said', async () => {
  const { at, keeper, certificate, problem } = await machine()
  at.nowMs = certificate().untilMs + dayMs
  at.away = new Error('answered with 403')
  await keeper.step()
  expect(problem()).toMatch(/^CERTIFICATE_EXPIRED: .* ended at 2026.*403.*--renew-expired-days/)
  at.away = undefined
  await keeper.step()
  expect(certificate().untilMs).toBeGreaterThan(at.nowMs)
})

test('the life of a certificate is told in words', () => {
  expect(describeLife(life, start + 10 * dayMs)).toBe(
    'valid until 2026-08-30 00:00 UTC, 80 days left, renewed from 2026-07-31 00:00',
  )
  expect(describeLife(life, life.untilMs - 5 * hourMs)).toContain('5 hours left')
  expect(describeLife(life, life.untilMs)).toMatch(
    /^EXPIRED at 2026-08-30 00:00 UTC: check this machine's clock/,
  )
  expect(describeLife(life, start - dayMs)).toContain('not valid before')
})

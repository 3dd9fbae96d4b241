import { expect, test } from 'vitest'
import { runStorm } from './storm.ts'

test('everything large at once moves no leader, and no turn of its loop is long', {
  timeout: 180_000,
}, async () => {
  const result = await runStorm({
    keys: 20_000,
    leases: 1000,
    handshakesPerSecond: 20,
    // Four members and all their clients share this machine with other tests.
    heartbeatMs: 500,
    electionMs: 5000,
  })
  expect(result).toMatchObject({
    leaderChanges: 0,
    areLeasesGone: true,
    areKeysGone: true,
    learnerCaughtUp: true,
  })
  const { answers, counts, gap } = result
  expect(answers['range']).toBeGreaterThan(20_000 * 64)
  expect(answers['sorted']).toBe(answers['range'])
  expect(answers['snapshot']).toBeGreaterThan(20_000 * 64)
  expect(counts.handshakes).toBeGreaterThan(0)
  expect(counts.refusedPasswords).toBeGreaterThan(0)
  expect(gap.cpuMs).toBeLessThan(100)
})

import { afterEach, expect, test } from 'vitest'
import { createPasswordPool, type PasswordPool } from './password-pool.ts'

let pool: PasswordPool | undefined
afterEach(async () => {
  await pool?.stop()
  pool = undefined
})

test('a hash is compared with its password and with no other', async () => {
  pool = createPasswordPool({ cost: 4 })
  const hash = await pool.hash('sécret')
  expect(hash).toMatch(/^\$2[aby]\$04\$.{53}$/)
  expect(await pool.hash('sécret')).not.toBe(hash)
  expect(await pool.compare('sécret', hash)).toBe(true)
  expect(await pool.compare('secret', hash)).toBe(false)
})

test('a hash that Go made is understood', async () => {
  pool = createPasswordPool({ cost: 4 })
  // From the tests of golang.org/x/crypto/bcrypt.
  const hash = '$2a$10$XajjQvNhvvRt5GSeFk1xFeyqRrsxkhBkUiQeg0dt.wU1qD4aFDcga'
  expect(await pool.compare('allmine', hash)).toBe(true)
  expect(await pool.compare('allyours', hash)).toBe(false)
})

test('a storm of passwords leaves the loop free, and what is too much is refused at once', async () => {
  pool = createPasswordPool({ cost: 4, waitingMax: 20 })
  const hash = '$2a$10$XajjQvNhvvRt5GSeFk1xFeyqRrsxkhBkUiQeg0dt.wU1qD4aFDcga'
  // The first ones start the threads.
  await Promise.all([pool.compare('x', hash), pool.compare('x', hash)])
  const startedAt = performance.now()
  let lastAt = startedAt
  let longestMs = 0
  const ticks = setInterval(() => {
    longestMs = Math.max(longestMs, performance.now() - lastAt)
    lastAt = performance.now()
  }, 1)
  const outcomes = await Promise.allSettled(Array.from({ length: 200 }, () => pool!.compare('wrong', hash)))
  clearInterval(ticks)
  const totalMs = performance.now() - startedAt
  const refused = outcomes.filter((outcome) => outcome.status === 'rejected')
  expect(refused.length).toBeGreaterThanOrEqual(178)
  for (const { reason } of refused) expect(reason).toMatchObject({ code: 'STORE_TOO_MANY_REQUESTS' })
  for (const outcome of outcomes) if (outcome.status === 'fulfilled') expect(outcome.value).toBe(false)
  // On the loop the twenty would be one gap. However slow the machine is, it slows both.
  expect(longestMs).toBeLessThan(totalMs / 3)
})

test('whoever waits when the member stops is told so', async () => {
  const stopped = createPasswordPool({ cost: 12 })
  const waiting = Promise.allSettled(Array.from({ length: 5 }, () => stopped.hash('x')))
  await stopped.stop()
  for (const outcome of await waiting) expect(outcome).toMatchObject({ reason: { code: 'STORE_STOPPED' } })
  await expect(stopped.hash('x')).rejects.toMatchObject({ code: 'STORE_STOPPED' })
})

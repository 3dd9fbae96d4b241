import { createLog } from '@kiln/service'
import { expect, test } from 'vitest'
import { startAutoDisarm } from './auto-disarm.ts'
import { manualClock } from './testing/manual-clock.ts'

test('the alarm ends by itself when a tenth of the quota is free, and only then', async () => {
  const clock = manualClock()
  let isArmed = true
  let used = 1000
  const target = {
    isArmed: () => isArmed,
    usedBytes: () => used,
    quotaBytes: 1000,
    disarm: async () => {
      isArmed = false
    },
  }
  const stop = startAutoDisarm(target, clock, createLog('test', 'silent'))
  await clock.advance(20_000)
  expect(isArmed).toBe(true)
  used = 901
  await clock.advance(20_000)
  expect(isArmed).toBe(true)
  used = 900
  await clock.advance(5_000)
  expect(isArmed).toBe(false)
  stop()
})

test('a disarm that fails is tried again', async () => {
  const clock = manualClock()
  let tries = 0
  const target = {
    isArmed: () => tries < 2,
    usedBytes: () => 0,
    quotaBytes: 1000,
    disarm: async () => {
      if (++tries === 1) throw new Error('no leader')
    },
  }
  const stop = startAutoDisarm(target, clock, createLog('test', 'silent'))
  await clock.advance(30_000)
  expect(tries).toBe(2)
  stop()
})

import { expect, test } from 'vitest'
import { rateLimit } from './rate-limit.ts'

test('a burst passes, then so many a second, each key for itself', () => {
  let now = 0
  const may = rateLimit(2, () => now)
  expect([may('a'), may('a'), may('a'), may('b')]).toEqual([true, true, false, true])
  now = 500
  expect([may('a'), may('a')]).toEqual([true, false])
  now = 60_000
  expect([may('a'), may('a'), may('a')]).toEqual([true, true, false])
})

import { expect, test } from 'vitest'
import { LeaseBook } from './lease-book.ts'
import { LeaseClock } from './lease-clock.ts'

test('a lease ends when its TTL has passed and not before', () => {
  const book = new LeaseBook()
  const clock = new LeaseClock()
  clock.start(book, 0, 0)
  book.grant(1n, 5)
  clock.renew(1n, 5, 1000)
  expect(clock.expired(5999, 10)).toEqual([])
  expect(clock.remaining(1n, 3000)).toBe(3)
  expect(clock.expired(6000, 10)).toEqual([1n])
  clock.renew(1n, 5, 5999)
  expect(clock.expired(10_998, 10)).toEqual([])
})

test('a new leader starts every lease anew with what a checkpoint left, plus the election', () => {
  const book = new LeaseBook()
  book.grant(1n, 10)
  book.grant(2n, 1000)
  book.checkpoint(2n, 20)
  const clock = new LeaseClock()
  clock.start(book, 50_000, 1000)
  expect(clock.expired(60_999, 10)).toEqual([])
  expect(clock.expired(61_000, 10)).toEqual([1n])
  expect(clock.expired(71_000, 10)).toEqual([1n, 2n])
  expect(clock.expired(71_000, 1)).toEqual([1n])
  clock.stop()
  expect(clock.expired(99_000, 10)).toEqual([])
})

test('checkpoints are made of long leases only and never say zero', () => {
  const book = new LeaseBook()
  book.grant(1n, 10)
  book.grant(2n, 1000)
  const clock = new LeaseClock()
  clock.start(book, 0, 0)
  expect(clock.checkpoints(book, 400_500, 300)).toEqual([{ id: 2n, remainingTtl: 600 }])
  expect(clock.checkpoints(book, 2_000_000, 300)).toEqual([{ id: 2n, remainingTtl: 1 }])
})

import fc from 'fast-check'
import { expect, test } from 'vitest'
import { LeaseQueue } from './lease-queue.ts'

test('what is due is what a list of deadlines says, whatever was renewed, shortened and forgotten', () => {
  const id = fc.nat(20).map(BigInt)
  const step = fc.oneof(
    fc.record({ set: id, deadline: fc.nat(50) }),
    fc.record({ forget: id }),
    fc.record({ now: fc.nat(50), max: fc.integer({ min: 1, max: 30 }) }),
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200, size: 'max' }), (steps) => {
      const queue = new LeaseQueue()
      const deadlines = new Map<bigint, number>()
      for (const each of steps) {
        if ('set' in each) {
          queue.set(each.set, each.deadline)
          deadlines.set(each.set, each.deadline)
        } else if ('forget' in each) {
          queue.delete(each.forget)
          deadlines.delete(each.forget)
        } else {
          const wanted = [...deadlines.values()].filter((at) => at <= each.now).sort((a, b) => a - b)
          const found = queue.due(each.now, each.max)
          expect(found.map((one) => deadlines.get(one))).toEqual(wanted.slice(0, each.max))
          expect(new Set(found).size).toBe(found.length)
        }
        expect(queue.size).toBe(deadlines.size)
      }
    }),
    { numRuns: 300 },
  )
})

test('a hundred thousand that are over together are found in small parts at a small price', () => {
  const queue = new LeaseQueue()
  const count = 100_000
  for (let at = 0; at < count; at++) queue.set(BigInt(at), 1000 + (at % 7))
  const cpu = process.threadCpuUsage()
  let found = 0
  for (let ids = queue.due(2000, 500); ids.length > 0; ids = queue.due(2000, 500)) {
    found += ids.length
    for (const id of ids) queue.delete(id)
  }
  const { user, system } = process.threadCpuUsage(cpu)
  expect(found).toBe(count)
  // Looking at all for each part took 200 times as long.
  expect((user + system) / 1000).toBeLessThan(3000)
})

test('leases that come and go leave nothing behind', () => {
  const queue = new LeaseQueue()
  for (let at = 0; at < 50_000; at++) {
    queue.set(BigInt(at), 1_000_000)
    queue.delete(BigInt(at))
  }
  expect(queue.size).toBe(0)
  expect(queue.due(2_000_000, 10)).toEqual([])
})

test('a deadline is put off only until it has passed', () => {
  const queue = new LeaseQueue()
  queue.set(1n, 100)
  expect([queue.extend(1n, 199, 99), queue.deadline(1n), queue.due(198, 9)]).toEqual([true, 199, []])
  expect([queue.extend(1n, 300, 199), queue.deadline(1n), queue.due(199, 9)]).toEqual([false, 199, [1n]])
  expect([queue.extend(2n, 50, 0), queue.due(50, 9)]).toEqual([true, [2n]])
})

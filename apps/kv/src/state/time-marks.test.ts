import { expect, test } from 'vitest'
import { encodeCommand } from './command.ts'
import { StoreState } from './state-machine.ts'
import { TimeMarks } from './time-marks.ts'

const marked = (marks: [timeMs: number, revision: number][], max?: number): TimeMarks => {
  const times = new TimeMarks(max)
  for (const [timeMs, revision] of marks) times.add({ timeMs, revision })
  return times
}

test('a time between two marks is that of the earlier one', () => {
  const times = marked([
    [100, 3],
    [200, 7],
    [300, 9],
  ])
  expect([100, 199, 200, 299, 300, 1_000].map((time) => times.at(time)?.revision)).toEqual([3, 3, 7, 7, 9, 9])
  expect(times.at(99)).toBeUndefined()
  expect(new TimeMarks().at(5)).toBeUndefined()
})

test('of a new store the beginning is known, of one that has marks nothing new', () => {
  const times = new TimeMarks()
  times.begin()
  times.add({ timeMs: 100, revision: 5 })
  times.begin()
  expect(times.list()).toEqual([
    { timeMs: 0, revision: 1 },
    { timeMs: 100, revision: 5 },
  ])
  expect(times.at(50)).toEqual({ timeMs: 0, revision: 1 })
})

test('a clock that goes back holds the time', () => {
  const times = marked([
    [200, 3],
    [100, 5],
    [201, 6],
  ])
  expect(times.list().map(({ timeMs }) => timeMs)).toEqual([200, 200, 201])
  expect(times.at(200)?.revision).toBe(5)
})

test('compaction keeps the mark from which the oldest revision stands', () => {
  const times = marked([
    [100, 3],
    [200, 7],
    [300, 9],
  ])
  times.compact(8)
  expect(times.list().map(({ revision }) => revision)).toEqual([7, 9])
  times.compact(50)
  expect(times.list().map(({ revision }) => revision)).toEqual([9])
})

test('very many marks are thinned out in the past, and stay in order', () => {
  const times = marked(
    Array.from({ length: 1_000 }, (_, at): [number, number] => [at * 1_000, at + 1]),
    100,
  )
  const all = times.list()
  expect(all.length).toBeLessThanOrEqual(100)
  expect(all[0]).toEqual({ timeMs: 0, revision: 1 })
  expect(all.slice(-20).map(({ revision }) => revision)).toEqual(
    Array.from({ length: 20 }, (_, at) => 981 + at),
  )
  expect(all).toEqual([...all].sort((a, b) => a.revision - b.revision))
})

test('marks are in snapshots', async () => {
  const state = new StoreState()
  const entries = [
    { kind: 'raise-version' as const, version: 4, isNew: true },
    { kind: 'mark-time' as const, timeMs: 1_790_000_000_123 },
    { kind: 'mark-time' as const, timeMs: 1_790_000_001_456 },
  ].map((command, at) => ({ index: at + 1, term: 1, data: encodeCommand(command) }))
  await state.apply(entries)
  const copy = new StoreState()
  await copy.restore(await state.snapshot())
  expect(copy.times.list()).toEqual([
    { timeMs: 0, revision: 1 },
    { timeMs: 1_790_000_000_123, revision: 1 },
    { timeMs: 1_790_000_001_456, revision: 1 },
  ])
})

import { expect, test } from 'vitest'
import { SlowCalls } from './slow-calls.ts'

test('the time of a slow write is told by stage, and the longest is named', () => {
  const slow = new SlowCalls()
  const call = {}
  slow.noteProposal(call, { addedAt: 101, sentAt: 103, syncedAt: 403, committedAt: 410, appliedAt: 411 })
  expect(slow.describe(call, 100, 415)).toEqual({
    slowest: 'synced',
    stages: { admitted: 1, sent: 2, synced: 300, committed: 7, applied: 1, answered: 4 },
  })
})

test('a stage whose time is not known is part of the next one', () => {
  const slow = new SlowCalls()
  const call = {}
  slow.noteProposal(call, { addedAt: 0, sentAt: 0, syncedAt: undefined, committedAt: 50, appliedAt: 60 })
  expect(slow.describe(call, 0, 60)?.stages).toEqual({
    admitted: 0,
    sent: 0,
    committed: 50,
    applied: 10,
    answered: 0,
  })
})

test('of a call none of whose stages was long nothing is known', () => {
  expect(new SlowCalls().describe({}, 0, 1000)).toBeUndefined()
})

test('lines are bounded, and what was left out is counted in the next', () => {
  const slow = new SlowCalls()
  const written = Array.from({ length: 50 }, () => slow.mayLog(0)).filter((line) => line !== undefined)
  expect(written).toHaveLength(20)
  expect(slow.mayLog(1000)).toEqual({ leftOut: 30 })
  expect(slow.mayLog(1001)).toEqual({ leftOut: 0 })
})

import { expect, test } from 'vitest'
import type { Call, Operation, Outcome } from './history.ts'
import { findViolation } from './linearizability.ts'

let clients = 0
const call = (at: [number, number | undefined], operation: Operation, outcome?: Outcome): Call => ({
  client: clients++,
  key: 'k',
  operation,
  calledAt: at[0],
  returnedAt: at[1],
  outcome,
})
const put = (at: [number, number | undefined], value: string): Call =>
  call(at, { kind: 'put', value }, at[1] === undefined ? undefined : { found: undefined, written: true })
const get = (at: [number, number], found: string | undefined): Call => call(at, { kind: 'get' }, { found })

test('a read during a write may see either value', () => {
  expect(findViolation([put([1, 10], 'a'), get([2, 3], undefined), get([4, 5], 'a')])).toBeUndefined()
})

test('a read after a write must see it', () => {
  expect(findViolation([put([1, 2], 'a'), get([3, 4], undefined)])?.key).toBe('k')
})

test('once seen, a value does not go away by itself', () => {
  expect(findViolation([put([1, 10], 'a'), get([2, 3], 'a'), get([4, 5], undefined)])).toBeDefined()
})

test('a write without an answer may happen late, or never, but not twice', () => {
  const lost = put([1, undefined], 'a')
  expect(findViolation([lost, get([2, 3], undefined), get([4, 5], 'a')])).toBeUndefined()
  expect(findViolation([lost, get([2, 3], undefined)])).toBeUndefined()
  const between = put([6, 7], 'b')
  expect(findViolation([lost, get([4, 5], 'a'), between, get([8, 9], 'a')])).toBeDefined()
})

test('of two swaps that expect the same value only one may write', () => {
  const swap = (at: [number, number], value: string, written: boolean, found: string | undefined): Call =>
    call(at, { kind: 'cas', expected: undefined, value }, { written, found })
  expect(findViolation([swap([1, 4], 'a', true, undefined), swap([2, 5], 'b', false, 'a')])).toBeUndefined()
  expect(
    findViolation([swap([1, 4], 'a', true, undefined), swap([2, 5], 'b', true, undefined)]),
  ).toBeDefined()
})

test('a deletion tells what it found', () => {
  const remove = call([3, 4], { kind: 'delete' }, { found: 'a', written: true })
  expect(findViolation([put([1, 2], 'a'), remove, get([5, 6], undefined)])).toBeUndefined()
  expect(findViolation([put([1, 2], 'a'), remove, get([5, 6], 'a')])).toBeDefined()
})

test('keys do not disturb each other', () => {
  const other = { ...get([3, 4], undefined), key: 'other' }
  expect(findViolation([put([1, 2], 'a'), other])).toBeUndefined()
})

test('many overlapping operations are decided quickly', () => {
  const calls: Call[] = []
  for (let n = 0; n < 200; n++) calls.push(put([n * 3 + 1, n * 3 + 8], `v${n}`))
  calls.push(get([700, 701], 'v199'))
  expect(findViolation(calls)).toBeUndefined()
  calls.push(get([702, 703], 'v3'))
  expect(findViolation(calls)).toBeDefined()
})

import { expect, test } from 'vitest'
import { findLost } from './write-verdict.ts'

const acknowledged = [
  { key: 'a', value: '1', revision: 5n },
  { key: 'b', value: '2', revision: 6n },
]

test('nothing is lost when every acknowledged write is there as it was acknowledged', () => {
  const found = [
    { key: 'a', text: '1', modRevision: 5n },
    { key: 'b', text: '2', modRevision: 6n },
    { key: 'c', text: 'never acknowledged', modRevision: 7n },
  ]
  expect(findLost(acknowledged, found)).toEqual([])
})

test('a missing key, another value and another revision are losses', () => {
  expect(findLost(acknowledged, [])).toEqual(['a', 'b'])
  expect(findLost(acknowledged.slice(0, 1), [{ key: 'a', text: 'x', modRevision: 5n }])).toEqual(['a'])
  expect(findLost(acknowledged.slice(0, 1), [{ key: 'a', text: '1', modRevision: 9n }])).toEqual(['a'])
})

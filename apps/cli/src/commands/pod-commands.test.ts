import { expect, test } from 'vitest'
import { findPod } from './pod-commands.ts'

const pods = [
  { machine: 'node1', pod: 'hello', uid: 'u-1' },
  { machine: 'node2', pod: 'hello', uid: 'u-2' },
  { machine: 'node2', pod: 'db', uid: 'u-3' },
]

test('a pod is found by machine and name, by uuid, or by a name that one machine has', () => {
  expect(findPod(pods, 'node1/hello')).toEqual({ machine: 'node1', pod: 'hello' })
  expect(findPod(pods, 'u-2')).toEqual({ machine: 'node2', pod: 'hello' })
  expect(findPod(pods, 'db')).toEqual({ machine: 'node2', pod: 'db' })
  // It may be over: its machine knows.
  expect(findPod(pods, 'node1/old')).toEqual({ machine: 'node1', pod: 'old' })
})

test('a name of several pods or of none is refused with what may be meant', () => {
  expect(() => findPod(pods, 'hello')).toThrow(/node1\/hello, node2\/hello/)
  expect(() => findPod(pods, 'nope')).toThrow(/no machine tells of a pod nope/)
  expect(() => findPod(pods, 'node1/')).toThrow(/no machine tells/)
})

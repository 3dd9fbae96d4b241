import { expect, test } from 'vitest'
import type { ConsensusStatus } from '../consensus/types.ts'
import { Observer } from './observer.ts'

const status = (appliedTerm: number): ConsensusStatus => ({
  id: 1n,
  clusterId: 1n,
  role: 'follower',
  term: 3,
  leader: 2n,
  lastIndex: 7,
  committedIndex: 7,
  appliedIndex: 7,
  appliedTerm,
  snapshotIndex: 0,
  walBytes: 0,
  progress: [],
  joint: false,
  diskFull: false,
})

test('the observer notices an entry without data that differs between members', () => {
  const observer = new Observer()
  observer.status('n1', status(3))
  observer.status('n2', status(3))
  expect(observer.breaches).toEqual([])
  observer.status('n3', status(2))
  expect(observer.breaches.map((breach) => breach.node)).toEqual(['n3'])
})

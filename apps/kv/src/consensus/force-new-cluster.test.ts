import type { Entry, Recovered } from '@kiln/raft'
import { expect, test } from 'vitest'
import { cutDownTo } from './force-new-cluster.ts'
import {
  applyRosterEntry,
  createRoster,
  decodeRosterEntry,
  encodeRosterChanges,
  membershipOf,
  type Roster,
  type RosterChange,
} from './members.ts'

const roster = (voters: bigint[], learners: bigint[] = []): Roster =>
  createRoster(
    [...voters, ...learners].map((id) => ({
      id,
      name: `n${id}`,
      peerUrls: [`http://n${id}:2380`],
      clientUrls: [],
      learner: learners.includes(id),
    })),
  )

const config = (index: number, changes: RosterChange[]): Entry => ({
  index,
  term: 3,
  kind: 'config',
  data: encodeRosterChanges(changes, 1n, 1),
})
const data = (index: number): Entry => ({ index, term: 3, kind: 'data', data: new Uint8Array(1) })

const recoveredOf = (before: Roster, entries: Entry[], commit = 10): Recovered => ({
  hardState: { term: 4, vote: 2n, commit },
  snapshot: { index: 10, term: 2, membership: membershipOf(before) },
  entries,
})

function after(before: Roster, entries: readonly Entry[]): Roster {
  return entries
    .filter((entry) => entry.kind === 'config')
    .reduce((now, entry) => applyRosterEntry(now, decodeRosterEntry(entry.data)), before)
}

test('all others are removed by entries of a new term, and everything in the log is kept', () => {
  const before = roster([1n, 2n, 3n])
  const recovered = recoveredOf(before, [data(11), data(12)])
  const cut = cutDownTo(1n, recovered, before)!
  expect(cut.entries.map(({ index, term }) => [index, term])).toEqual([
    [13, 5],
    [14, 5],
  ])
  expect(cut.hardState).toEqual({ term: 5, vote: 1n, commit: 14 })
  const now = after(before, cut.entries)
  expect(membershipOf(now)).toEqual({ voters: [1n], learners: [] })
  expect(now.removed).toEqual([2n, 3n])
})

test('members that the log added go too, a learner becomes a voter, and a change under way is ended first', () => {
  const before = roster([1n, 2n], [3n])
  const exchange = config(11, [
    { op: 'promote', id: 3n },
    { op: 'remove', id: 2n },
  ])
  const joint = cutDownTo(1n, recoveredOf(before, [exchange]), before)!
  expect(membershipOf(after(before, [exchange, ...joint.entries])).voters).toEqual([1n])
  const added = config(11, [{ op: 'add', id: 9n, peerUrls: ['http://n9:2380'] }])
  const learner = cutDownTo(3n, recoveredOf(before, [added]), before)!
  expect(membershipOf(after(before, [added, ...learner.entries]))).toEqual({ voters: [3n], learners: [] })
})

test('the second time there is nothing to do, and one that is no member is refused', () => {
  const alone = roster([1n])
  expect(cutDownTo(1n, recoveredOf(alone, [data(11)]), alone)).toBeUndefined()
  expect(() => cutDownTo(7n, recoveredOf(alone, []), alone)).toThrow('does not list')
})

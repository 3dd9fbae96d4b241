import { applyMembershipEntry, decodeMembershipEntry } from '@kiln/raft'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import {
  applyRosterEntry,
  createRoster,
  decodeRoster,
  decodeRosterEntry,
  encodeRoster,
  encodeRosterChanges,
  membershipOf,
  type Roster,
  type RosterChange,
  refusalOf,
} from './members.ts'

const rosterOf = (voters: bigint[], learners: bigint[] = []): Roster =>
  createRoster(
    [...voters, ...learners].map((id) => ({
      id,
      name: `n${id}`,
      peerUrls: [`http://n${id}:2380`],
      clientUrls: [],
      learner: learners.includes(id),
    })),
  )
const everybody = { isActive: () => true, isCaughtUp: () => true }
const leave = Uint8Array.of(65)

test('whatever changes, the members listed and those that consensus goes by stay the same, and a snapshot keeps them', () => {
  const change = fc.record({
    op: fc.constantFrom('add', 'add-learner', 'promote', 'remove', 'demote'),
    id: fc.bigInt({ min: 1n, max: 6n }),
  })
  fc.assert(
    fc.property(fc.array(fc.array(change, { minLength: 1, maxLength: 3 }), { maxLength: 8 }), (steps) => {
      let roster = rosterOf([1n, 2n, 3n], [4n])
      let membership = membershipOf(roster)
      const apply = (bytes: Uint8Array): void => {
        roster = applyRosterEntry(roster, decodeRosterEntry(bytes))
        membership = applyMembershipEntry(membership, decodeMembershipEntry(bytes))
        expect(membershipOf(roster)).toEqual(membership)
        expect(membershipOf(decodeRoster(encodeRoster(roster)))).toEqual(membership)
      }
      for (const changes of steps) {
        if (refusalOf(roster, changes, everybody) !== undefined) continue
        apply(encodeRosterChanges(changes, 1n, 1))
        if (roster.joint !== undefined) apply(leave)
      }
      expect(membership.voters.length).toBeGreaterThan(0)
    }),
  )
})

test('a member that leaves is listed until the change is complete, and then never comes back', () => {
  const changes: RosterChange[] = [
    { op: 'promote', id: 4n },
    { op: 'remove', id: 1n },
  ]
  const entry = decodeRosterEntry(encodeRosterChanges(changes, 1n, 1))
  const between = applyRosterEntry(rosterOf([1n, 2n, 3n], [4n]), entry)
  expect(between.members.map(({ id }) => id)).toEqual([1n, 2n, 3n, 4n])
  expect(between.removed).toEqual([])
  const after = applyRosterEntry(between, decodeRosterEntry(leave))
  expect(after.members.map(({ id }) => id)).toEqual([2n, 3n, 4n])
  expect(after.removed).toEqual([1n])
  expect(refusalOf(after, [{ op: 'add', id: 1n, peerUrls: ['http://n9:2380'] }], everybody)).toBe(
    'STORE_MEMBER_EXISTS',
  )
})

test('changes are refused that would leave no majority at work, one alone or several together', () => {
  const roster = rosterOf([1n, 2n, 3n], [4n])
  const without3 = { isActive: (id: bigint) => id !== 3n, isCaughtUp: () => true }
  expect(refusalOf(roster, [{ op: 'remove', id: 2n }], without3)).toBe('STORE_UNHEALTHY')
  expect(refusalOf(roster, [{ op: 'add', id: 5n, peerUrls: ['http://n5:2380'] }], without3)).toBe(
    'STORE_UNHEALTHY',
  )
  const exchange: RosterChange[] = [
    { op: 'promote', id: 4n },
    { op: 'remove', id: 2n },
  ]
  expect(refusalOf(roster, exchange, without3)).toBeUndefined()
  expect(refusalOf(roster, exchange, { ...without3, isCaughtUp: () => false })).toBe('STORE_MEMBER_UNREADY')
  const removeAll = [1n, 2n, 3n].map((id): RosterChange => ({ op: 'remove', id }))
  expect(refusalOf(roster, removeAll, everybody)).toBe('STORE_UNHEALTHY')
})

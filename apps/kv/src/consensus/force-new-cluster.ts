import type { Entry, HardState, Recovered } from '@kiln/raft'
import { Fault } from '@kiln/service'
import {
  applyRosterEntry,
  decodeRosterEntry,
  encodeRosterChanges,
  type Roster,
  type RosterChange,
} from './members.ts'
import type { MemberId } from './types.ts'

const leaveJoint = Uint8Array.of(65)

/**
 * Makes one member of a cluster that lost its majority for good the only one, as etcd's `--force-new-cluster` does: entries that remove
 * all others are added to its log and the whole log counts as committed. Unlike etcd's it keeps what the log does not know to
 * be committed, for some of that may have been acknowledged. The others are told that they were removed if they come back. Undefined if
 * there is nobody else; so it may be asked for twice.
 */
export function cutDownTo(
  self: MemberId,
  recovered: Recovered,
  snapshotRoster: Roster,
): { entries: Entry[]; hardState: HardState; removed: MemberId[] } | undefined {
  let roster = snapshotRoster
  for (const entry of recovered.entries) {
    if (entry.kind === 'config') roster = applyRosterEntry(roster, decodeRosterEntry(entry.data))
  }
  const payloads: Uint8Array[] = []
  if (roster.joint !== undefined) {
    payloads.push(leaveJoint)
    roster = applyRosterEntry(roster, { kind: 'leave' })
  }
  const own = roster.members.find((member) => member.id === self)
  if (own === undefined) {
    throw new Fault('STORE_MEMBER_UNKNOWN', 'a member that its own log does not list cannot stand alone', {
      remedy: 'use the data directory of a member that was in the cluster',
    })
  }
  const removed = roster.members.map((member) => member.id).filter((id) => id !== self)
  const changes: RosterChange[] = [
    ...(own.learner ? [{ op: 'promote' as const, id: self }] : []),
    ...removed.map((id) => ({ op: 'remove' as const, id })),
  ]
  if (changes.length === 0 && payloads.length === 0) return undefined
  payloads.push(...changes.map((change) => encodeRosterChanges([change], 0n, 0)))
  // A term of its own, so that nobody takes these entries for others at the same place.
  const term = recovered.hardState.term + 1
  const first = recovered.snapshot.index + recovered.entries.length + 1
  const entries = payloads.map((data, at): Entry => ({ index: first + at, term, kind: 'config', data }))
  return { entries, hardState: { term, vote: self, commit: first + entries.length - 1 }, removed }
}

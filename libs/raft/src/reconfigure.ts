import { appendEntries, lastIndex } from './log.ts'
import { applyMembershipEntry, isMember } from './membership.ts'
import { decodeMembershipEntry, encodeMembershipEntry } from './membership-codec.ts'
import { committedInTerm, confirmRounds } from './reads.ts'
import { broadcastAppend, maybeCommit, sendAppend, sendAppends } from './replication.ts'
import { becomeFollower, forgetConfirmation, isVoter, syncProgress } from './roles.ts'
import type { Raft } from './state.ts'
import type { Entry } from './types.ts'

/** A change takes effect where it is applied, not where it is appended. */
export function applyMembership(raft: Raft, entry: Entry): void {
  const next = applyMembershipEntry(raft.membership, decodeMembershipEntry(entry.data))
  if (raft.role === 'leader') {
    // The last thing a removed member hears is that it was removed.
    for (const [id, progress] of raft.progress) {
      if (!isMember(next, id) && progress.state !== 'snapshot') sendAppend(raft, id, progress)
    }
  }
  // A majority of the voters before says nothing about those after it.
  if (next !== raft.membership) forgetConfirmation(raft)
  raft.membership = next
  if (raft.role !== 'leader') return
  if (!isVoter(raft)) {
    becomeFollower(raft, raft.term, 0n)
    return
  }
  syncProgress(raft)
  if (raft.transferee !== 0n && !raft.membership.voters.includes(raft.transferee)) raft.transferee = 0n
  if (maybeCommit(raft)) broadcastAppend(raft)
  else for (const [id, progress] of raft.progress) if (progress.match === 0) sendAppends(raft, id, progress)
  confirmRounds(raft)
}

/**
 * Whoever leads leaves a joint configuration as soon as it is in force, without being asked: the entry that does so is committed by
 * both majorities. A leader that is no voter afterwards steps down when it applies it.
 */
export function maybeLeaveJoint(raft: Raft): void {
  if (raft.role !== 'leader' || raft.membership.joint === undefined) return
  if (raft.pendingChange > raft.applied || raft.transferee !== 0n || !committedInTerm(raft)) return
  const index = lastIndex(raft.log) + 1
  const data = encodeMembershipEntry({ kind: 'leave' })
  raft.pendingChange = index
  appendEntries(raft.log, [{ index, term: raft.term, kind: 'config', data }])
  broadcastAppend(raft)
}

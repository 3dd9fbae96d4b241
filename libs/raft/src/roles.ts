import { appendEntries, lastIndex } from './log.ts'
import { allMembers, allVoters, isMember } from './membership.ts'
import { createProgress } from './progress.ts'
import type { Raft } from './state.ts'
import type { NodeId } from './types.ts'

/** Follower of `leader`, or of nobody yet. A newer term forgets the vote. */
export function becomeFollower(raft: Raft, term: number, leader: NodeId): void {
  if (term !== raft.term) {
    raft.term = term
    raft.vote = 0n
    raft.agreed = 0
  }
  raft.role = 'follower'
  raft.leader = leader
  restartTimers(raft)
  forgetLeadership(raft)
}

export function becomePreCandidate(raft: Raft): void {
  raft.role = 'pre-candidate'
  raft.leader = 0n
  restartTimers(raft)
  forgetLeadership(raft)
}

export function becomeCandidate(raft: Raft): void {
  raft.role = 'candidate'
  raft.term++
  raft.vote = raft.id
  raft.leader = 0n
  restartTimers(raft)
  forgetLeadership(raft)
}

/** The first entry of a term is empty: committing it commits everything before it. */
export function becomeLeader(raft: Raft): void {
  raft.role = 'leader'
  raft.leader = raft.id
  restartTimers(raft)
  forgetLeadership(raft)
  const last = lastIndex(raft.log)
  syncProgress(raft)
  raft.pendingChange = last
  appendEntries(raft.log, [{ index: last + 1, term: raft.term, kind: 'empty', data: new Uint8Array(0) }])
}

/** Makes `progress` follow the membership: whoever is new starts to be probed at the end of our log. */
export function syncProgress(raft: Raft): void {
  for (const id of allMembers(raft.membership)) {
    if (id === raft.id || raft.progress.has(id)) continue
    const progress = createProgress(lastIndex(raft.log) + 1)
    // Counts as heard until the next check, or a member just added could cost the leader its quorum.
    progress.active = true
    raft.progress.set(id, progress)
  }
  for (const id of raft.progress.keys()) if (!isMember(raft.membership, id)) raft.progress.delete(id)
}

export function isVoter(raft: Raft): boolean {
  return allVoters(raft.membership).includes(raft.id)
}

/** What a majority has confirmed counts no longer: only rounds that are sent from now on do. */
export function forgetConfirmation(raft: Raft): void {
  raft.sentRounds = []
  raft.confirmedAt = undefined
}

function restartTimers(raft: Raft): void {
  raft.elapsed = 0
  raft.redraw = true
}

function forgetLeadership(raft: Raft): void {
  raft.votes.clear()
  raft.progress.clear()
  raft.uncommittedBytes = 0
  raft.transferee = 0n
  raft.transferTicks = 0
  raft.waitingReads = []
  raft.deferredReads = []
  // A round is confirmed only by answers to heartbeats of this leadership.
  raft.confirmedRound = 0
  forgetConfirmation(raft)
  raft.leaseEnded = false
}

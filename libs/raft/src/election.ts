import { isUpToDate, lastIndex, lastTerm, termAt } from './log.ts'
import { allVoters, isMember } from './membership.ts'
import { decodeMembershipEntry } from './membership-codec.ts'
import { voteOutcome } from './quorum.ts'
import { broadcastAppend, maybeCommit } from './replication.ts'
import { becomeCandidate, becomeFollower, becomeLeader, becomePreCandidate, isVoter } from './roles.ts'
import type { Raft } from './state.ts'
import type { Entry, MessageOf } from './types.ts'

/**
 * Asks for an election. A pre-vote (dissertation, section 9.6) asks first whether a majority would vote for us, so that a
 * member that was cut off does not raise the term; a leader that hands over skips it.
 */
export function campaign(raft: Raft, how: 'pre-vote' | 'transfer'): void {
  if (!mayCampaign(raft)) return
  if (how === 'pre-vote' && leaseForbids(raft) && allVoters(raft.membership).length > 1) return
  if (how === 'pre-vote') {
    becomePreCandidate(raft)
    raft.votes.set(raft.id, true)
    requestVotes(raft, { pre: true, transfer: false })
    if (voteOutcome(raft.membership, raft.votes) === 'won') startElection(raft, false)
  } else {
    startElection(raft, true)
  }
}

/**
 * With leases a leader counts on those who answered it: none of them helps to elect another before an election timeout has passed.
 * It may have restarted since, or been told of a newer term, so having forgotten the leader is no excuse. A leader that asks
 * somebody to take over has given up its lease.
 */
export function leaseForbids(raft: Raft): boolean {
  return raft.options.leaseMs > 0 && raft.sinceHeard < raft.options.electionTicks
}

function startElection(raft: Raft, transfer: boolean): void {
  becomeCandidate(raft)
  // Our own vote counts when it is durable, like any other's; the requests leave no earlier than it.
  raft.ownVoteSeq = raft.nextSeq
  requestVotes(raft, { pre: false, transfer })
}

/** Called once the write that holds our own vote is durable. */
export function ownVoteDurable(raft: Raft): void {
  raft.votes.set(raft.id, true)
  decideElection(raft)
}

/**
 * A member with a committed change that it has not applied does not know who may vote; one that is no voter or whose
 * log is damaged must not lead.
 */
function mayCampaign(raft: Raft): boolean {
  if (raft.role === 'leader' || !isVoter(raft) || !raft.mayVote) return false
  if (raft.out.install !== undefined) return false
  for (let index = raft.applied + 1; index <= raft.committed; index++) {
    const entry = raft.log.entries[index - raft.log.baseIndex - 1]
    if (entry?.kind === 'config' && changesVoters(entry)) return false
  }
  return true
}

function changesVoters(entry: Entry): boolean {
  const decoded = decodeMembershipEntry(entry.data)
  return decoded.kind !== 'change' || decoded.change.op !== 'update'
}

function requestVotes(raft: Raft, { pre, transfer }: { pre: boolean; transfer: boolean }): void {
  const out = pre ? raft.out.messages : raft.out.afterPersist
  for (const to of allVoters(raft.membership)) {
    if (to === raft.id) continue
    out.push({
      type: 'vote',
      from: raft.id,
      to,
      term: pre ? raft.term + 1 : raft.term,
      pre,
      transfer,
      lastIndex: lastIndex(raft.log),
      lastTerm: lastTerm(raft.log),
    })
  }
}

/** The term of the message is not older than ours, and no living leader forbids it: see `step`. */
export function onVote(raft: Raft, message: MessageOf<'vote'>): void {
  const free = raft.vote === message.from || (raft.vote === 0n && raft.leader === 0n)
  const granted =
    raft.mayVote &&
    (message.transfer || !leaseForbids(raft)) &&
    (free || (message.pre && message.term > raft.term)) &&
    isUpToDate(raft.log, message)
  const reply = {
    type: 'vote-response' as const,
    from: raft.id,
    to: message.from,
    // A granted pre-vote answers for the term that was asked about, which is not ours yet.
    term: granted ? message.term : raft.term,
    pre: message.pre,
    granted,
  }
  if (message.pre) {
    raft.out.messages.push(reply)
    return
  }
  if (granted) {
    raft.vote = message.from
    raft.elapsed = 0
  }
  raft.out.afterPersist.push(reply)
}

export function onVoteResponse(raft: Raft, message: MessageOf<'vote-response'>): void {
  if (raft.role !== (message.pre ? 'pre-candidate' : 'candidate')) return
  if (message.pre && message.granted && message.term !== raft.term + 1) return
  if (!raft.votes.has(message.from)) raft.votes.set(message.from, message.granted)
  decideElection(raft)
}

function decideElection(raft: Raft): void {
  const outcome = voteOutcome(raft.membership, raft.votes)
  if (outcome === 'lost') becomeFollower(raft, raft.term, 0n)
  if (outcome !== 'won') return
  if (raft.role === 'pre-candidate') startElection(raft, false)
  else if (raft.role === 'candidate' && raft.votes.get(raft.id) === true) {
    becomeLeader(raft)
    broadcastAppend(raft)
    maybeCommit(raft)
  }
}

/**
 * A member that may have lost acknowledged entries votes again once it holds, durably, all that a leader had committed,
 * and that leader had committed in its own term (then everything ever acknowledged is below).
 */
export function maybeRelease(raft: Raft): void {
  if (raft.mayVote || raft.leader === 0n || raft.leader === raft.id) return
  if (!isMember(raft.membership, raft.id)) return
  if (raft.log.stable < raft.committed || raft.committed < raft.refillUntil) return
  if (termAt(raft.log, raft.committed) !== raft.term) return
  raft.mayVote = true
  raft.out.released = true
}

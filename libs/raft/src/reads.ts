import { termAt } from './log.ts'
import { quorumValue } from './quorum.ts'
import type { Raft } from './state.ts'
import type { MessageOf, NodeId } from './types.ts'

/**
 * Read index (dissertation, section 6.4): the commit index is safe to read at once a majority has confirmed, after the
 * request, that we lead, and once an entry of our own term is committed. One round of heartbeats serves all that wait.
 */
export function requestRead(raft: Raft, from: NodeId, context: number, now: number | undefined): void {
  if (raft.role === 'leader') {
    if (!committedInTerm(raft)) {
      if (raft.deferredReads.length < readsMax) raft.deferredReads.push({ from, context })
      return
    }
    if (leaseHolds(raft, now)) {
      answer(raft, { from, context, index: raft.committed })
      return
    }
    if (raft.waitingReads.length >= readsMax) return
    const round = sendHeartbeats(raft)
    raft.waitingReads.push({ from, context, index: raft.committed, round })
    confirmRounds(raft)
  } else if (from === raft.id && raft.leader !== 0n) {
    raft.out.messages.push({ type: 'read-request', from: raft.id, to: raft.leader, term: raft.term, context })
  }
}

/** Each member has one or two rounds on their way; more than this is a bug or an attack. */
const readsMax = 10_000

/**
 * Whether nobody else can lead yet (dissertation, section 6.4.1): those who answered the confirmed round elect nobody for an election
 * timeout after they heard it. Judged by the time of the read, not by ticks, which stand still in a process that does.
 */
function leaseHolds(raft: Raft, now: number | undefined): boolean {
  if (raft.leaseEnded || now === undefined || raft.confirmedAt === undefined) return false
  return now - raft.confirmedAt < raft.options.leaseMs
}

/** Rounds whose time is remembered; one that is forgotten confirms nothing about time. */
const sentRoundsMax = 4_096

/** Heartbeats double as confirmation that we lead: followers echo the round. Returns its number. */
export function sendHeartbeats(raft: Raft): number {
  raft.round++
  const newest = raft.sentRounds[raft.sentRounds.length - 1]
  if (newest?.at === raft.now) newest.round = raft.round
  else raft.sentRounds.push({ round: raft.round, at: raft.now })
  if (raft.sentRounds.length > sentRoundsMax) raft.sentRounds.shift()
  for (const [to, progress] of raft.progress) {
    raft.out.messages.push({
      type: 'heartbeat',
      from: raft.id,
      to,
      term: raft.term,
      // It may know only up to its match that our logs agree.
      commit: Math.min(progress.match, raft.committed),
      round: raft.round,
    })
  }
  return raft.round
}

/** Serves what a majority has confirmed. */
export function confirmRounds(raft: Raft): void {
  const round = quorumValue(raft.membership, (id) =>
    id === raft.id ? raft.round : (raft.progress.get(id)?.round ?? 0),
  )
  if (round > raft.confirmedRound) raft.confirmedRound = round
  while (raft.sentRounds.length > 0 && raft.sentRounds[0]!.round <= raft.confirmedRound) {
    raft.confirmedAt = raft.sentRounds.shift()!.at
  }
  let served = 0
  for (const read of raft.waitingReads) {
    if (read.round > raft.confirmedRound) break
    answer(raft, read)
    served++
  }
  if (served > 0) raft.waitingReads.splice(0, served)
}

export function releaseDeferredReads(raft: Raft): void {
  if (raft.deferredReads.length === 0 || !committedInTerm(raft)) return
  const round = sendHeartbeats(raft)
  for (const { from, context } of raft.deferredReads) {
    raft.waitingReads.push({ from, context, index: raft.committed, round })
  }
  raft.deferredReads = []
  confirmRounds(raft)
}

export function onReadResponse(raft: Raft, message: MessageOf<'read-response'>): void {
  raft.out.reads.push({ context: message.context, index: message.index })
}

export function committedInTerm(raft: Raft): boolean {
  return termAt(raft.log, raft.committed) === raft.term
}

function answer(raft: Raft, read: { from: NodeId; context: number; index: number }): void {
  if (read.from === raft.id) {
    raft.out.reads.push({ context: read.context, index: read.index })
  } else {
    raft.out.messages.push({
      type: 'read-response',
      from: raft.id,
      to: read.from,
      term: raft.term,
      context: read.context,
      index: read.index,
    })
  }
}

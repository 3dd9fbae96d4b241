import { assert } from './assert.ts'
import {
  appendEntries,
  entryBytes,
  findConflict,
  lastIndex,
  lastTerm,
  matches,
  resetLog,
  sliceEntries,
  termAt,
  truncateFrom,
} from './log.ts'
import {
  becomeProbe,
  becomeReplicate,
  becomeSnapshot,
  isPaused,
  noteMatch,
  noteRejected,
  noteSent,
  type Progress,
} from './progress.ts'
import { quorumValue } from './quorum.ts'
import { releaseDeferredReads } from './reads.ts'
import { isVoter } from './roles.ts'
import type { Raft } from './state.ts'
import type { Entry, Message, MessageOf, NodeId } from './types.ts'

/** Sends to everybody what they lack, or the news that the commit index moved. */
export function broadcastAppend(raft: Raft): void {
  for (const [id, progress] of raft.progress) sendAppends(raft, id, progress)
}

/** Fills the window of a follower. */
export function sendAppends(raft: Raft, to: NodeId, progress: Progress): void {
  const window = { messagesMax: raft.options.windowMessages, bytesMax: raft.options.windowBytes }
  while (!isPaused(progress, window)) {
    const behind = progress.next <= lastIndex(raft.log)
    const news = progress.state === 'replicate' && raft.committed > progress.sentCommit
    if (!behind && !news && progress.state === 'replicate') return
    if (!sendAppend(raft, to, progress)) return
    if (progress.state === 'probe') return
  }
}

/**
 * One append from `progress.next`, empty on wish or if there is nothing new. False if a snapshot is needed instead.
 */
export function sendAppend(
  raft: Raft,
  to: NodeId,
  progress: Progress,
  content: 'entries' | 'empty' = 'entries',
): boolean {
  const previousIndex = progress.next - 1
  const previousTerm = termAt(raft.log, previousIndex)
  if (previousTerm === undefined) {
    requestSnapshot(raft, to, progress)
    return false
  }
  const entries =
    content === 'empty'
      ? []
      : sliceEntries(raft.log, progress.next, lastIndex(raft.log), raft.options.appendBytesMax)
  raft.out.messages.push({
    type: 'append',
    from: raft.id,
    to,
    term: raft.term,
    previousIndex,
    previousTerm,
    commit: raft.committed,
    entries,
  })
  progress.sentCommit = raft.committed
  if (entries.length > 0 || progress.state === 'probe') {
    noteSent(progress, previousIndex + entries.length, bytesOf(entries))
  }
  return true
}

function requestSnapshot(raft: Raft, to: NodeId, progress: Progress): void {
  if (!progress.active) return
  becomeSnapshot(progress, raft.snapshot.index)
  raft.out.snapshots.add(to)
}

export function onAppendResponse(raft: Raft, message: MessageOf<'append-response'>): void {
  const progress = raft.progress.get(message.from)
  if (progress === undefined) return
  progress.active = true
  if (message.rejected) {
    if (message.refill && progress.state !== 'snapshot') {
      progress.match = 0
      becomeProbe(progress)
      progress.next = message.index + 1
    }
    // Skip everything the follower holds from terms that we do not have at that place.
    const hint =
      message.hintTerm > 0
        ? findConflict(raft.log, message.hintIndex, message.hintTerm).index
        : message.hintIndex
    if (noteRejected(progress, message.index, hint)) sendAppends(raft, message.from, progress)
    return
  }
  if (message.index > lastIndex(raft.log)) return
  const moved = noteMatch(progress, message.index)
  if (progress.state === 'probe' && message.index === progress.match) becomeReplicate(progress)
  else if (progress.state === 'snapshot' && progress.match >= progress.pendingSnapshot)
    becomeReplicate(progress)
  if (moved && maybeCommit(raft)) broadcastAppend(raft)
  sendAppends(raft, message.from, progress)
  if (message.from === raft.transferee && progress.match === lastIndex(raft.log)) sendTimeoutNow(raft)
}

/** A leader commits only entries of its own term by counting (Raft paper, section 5.4.2). */
export function maybeCommit(raft: Raft): boolean {
  const index = quorumValue(raft.membership, (id) =>
    id === raft.id ? raft.log.stable : (raft.progress.get(id)?.match ?? 0),
  )
  if (index <= raft.committed || termAt(raft.log, index) !== raft.term) return false
  const newly = sliceEntries(
    raft.log,
    Math.max(raft.committed, raft.log.baseIndex) + 1,
    index,
    Number.MAX_VALUE,
  )
  raft.uncommittedBytes = Math.max(0, raft.uncommittedBytes - bytesOf(newly))
  raft.committed = index
  releaseDeferredReads(raft)
  return true
}

export function onAppend(raft: Raft, message: MessageOf<'append'>): void {
  if (message.previousIndex < raft.committed) {
    // What is committed agrees; the answer tells the leader where to go on.
    assertSameCommitted(raft, message)
    noteAgreed(raft, raft.committed, message.commit)
    acknowledge(raft, message.from, raft.committed)
    return
  }
  if (!matches(raft.log, message.previousIndex, message.previousTerm)) {
    refuse(raft, message.from, message.previousIndex, message.previousTerm)
    return
  }
  const fresh = message.entries.findIndex((entry) => !matches(raft.log, entry.index, entry.term))
  if (fresh >= 0) {
    const first = message.entries[fresh]!
    assert(first.index > raft.committed, `entry ${first.index} contradicts a committed one`)
    if (first.index <= lastIndex(raft.log)) truncateFrom(raft.log, first.index, raft.nextSeq)
    appendEntries(raft.log, message.entries.slice(fresh))
  }
  const lastNew = message.previousIndex + message.entries.length
  noteAgreed(raft, lastNew, message.commit)
  commitTo(raft, Math.min(message.commit, lastNew))
  acknowledge(raft, message.from, lastNew)
}

/** An append of the leader showed that our log is its own up to `index`; `commit` is its commit index. */
function noteAgreed(raft: Raft, index: number, commit: number): void {
  raft.agreed = Math.max(raft.agreed, index)
  raft.refillUntil = commit
}

/** The newest committed entry of an append that we have too; if it is the same, so are those before it. */
function assertSameCommitted(raft: Raft, { previousIndex, entries }: MessageOf<'append'>): void {
  const entry = entries[Math.min(raft.committed - previousIndex, entries.length) - 1]
  const term = entry && termAt(raft.log, entry.index)
  assert(term === undefined || term === entry!.term, `entry ${entry?.index} contradicts a committed one`)
}

function refuse(raft: Raft, to: NodeId, index: number, term: number): void {
  const hint = findConflict(raft.log, index, term)
  raft.out.messages.push({
    type: 'append-response',
    from: raft.id,
    to,
    term: raft.term,
    index,
    rejected: true,
    hintIndex: hint.index,
    hintTerm: hint.term,
    refill: !raft.mayVote,
  })
}

/**
 * A heartbeat tells the commit index, no further than what we acknowledged. A damaged log does not hold that any more: what is at
 * its place may be an older entry that had been overwritten. So it follows no further than appends have shown, and asks for more.
 */
export function onCommitTold(raft: Raft, from: NodeId, commit: number): void {
  const last = lastIndex(raft.log)
  if (!raft.mayVote && commit > raft.agreed) refuse(raft, from, last, lastTerm(raft.log))
  commitTo(raft, Math.min(commit, raft.mayVote ? last : raft.agreed))
}

/** Followers learn of commits from the leader, up to what they know to agree with it. */
function commitTo(raft: Raft, index: number): void {
  assert(
    index <= lastIndex(raft.log),
    `commit ${index} is beyond the log, which ends at ${lastIndex(raft.log)}`,
  )
  if (index > raft.committed) raft.committed = index
}

export function onSnapshot(raft: Raft, message: MessageOf<'snapshot'>): void {
  const { snapshot } = message
  if (snapshot.index <= raft.committed) {
    acknowledge(raft, message.from, raft.committed)
    return
  }
  if (matches(raft.log, snapshot.index, snapshot.term)) {
    commitTo(raft, snapshot.index)
  } else {
    resetLog(raft.log, snapshot, raft.nextSeq)
    raft.committed = snapshot.index
    raft.applied = snapshot.index
    raft.membership = snapshot.membership
    raft.snapshot = snapshot
    raft.out.install = snapshot
    raft.out.installMarker = snapshot
  }
  raft.agreed = Math.max(raft.agreed, snapshot.index)
  acknowledge(raft, message.from, snapshot.index)
}

/** Of several answers in a turn to one leader the highest says it all. */
function acknowledge(raft: Raft, to: NodeId, index: number): void {
  const queue = raft.out.afterPersist
  const last: Message | undefined = queue[queue.length - 1]
  if (last?.type === 'append-response' && last.to === to && last.term === raft.term && last.index <= index) {
    queue.pop()
  }
  queue.push({
    type: 'append-response',
    from: raft.id,
    to,
    term: raft.term,
    index,
    rejected: false,
    hintIndex: 0,
    hintTerm: 0,
    refill: false,
  })
}

/** The transport is done with a snapshot; the follower's own answer tells whether it took it. */
export function onSnapshotSent(raft: Raft, to: NodeId, ok: boolean): void {
  const progress = raft.progress.get(to)
  if (progress?.state !== 'snapshot') return
  if (!ok) progress.pendingSnapshot = 0
  becomeProbe(progress)
  // Wait for an answer or the next heartbeat before the next append.
  progress.probing = true
}

/**
 * Nothing but heartbeats goes to a member without a connection: appends sent ahead would fill the queue towards it, to be
 * delivered, long after, to a member that has been started again.
 */
export function onUnreachable(raft: Raft, id: NodeId): void {
  const progress = raft.progress.get(id)
  if (progress?.state !== 'replicate') return
  becomeProbe(progress)
  progress.probing = true
}

export function sendTimeoutNow(raft: Raft): void {
  raft.leaseEnded = true
  raft.out.messages.push({ type: 'timeout-now', from: raft.id, to: raft.transferee, term: raft.term })
}

/** Hands leadership to `to` once it has everything; proposals are refused meanwhile. */
export function startTransfer(raft: Raft, to: NodeId): void {
  const progress = raft.progress.get(to)
  if (raft.role !== 'leader' || progress === undefined || !raft.membership.voters.includes(to)) return
  if (!isVoter(raft) || raft.transferee === to) return
  raft.transferee = to
  raft.transferTicks = 0
  if (progress.match === lastIndex(raft.log)) sendTimeoutNow(raft)
  else sendAppends(raft, to, progress)
}

export function bytesOf(entries: readonly Entry[]): number {
  let bytes = 0
  for (const entry of entries) bytes += entryBytes(entry)
  return bytes
}

import { assert } from './assert.ts'
import { campaign, leaseForbids, maybeRelease, onVote, onVoteResponse, ownVoteDurable } from './election.ts'
import { appendEntries, compactLog, lastIndex, sliceEntries, termAt } from './log.ts'
import { isMember, voterGroups } from './membership.ts'
import { majority } from './quorum.ts'
import { committedInTerm, confirmRounds, onReadResponse, requestRead, sendHeartbeats } from './reads.ts'
import { applyMembership, maybeLeaveJoint } from './reconfigure.ts'
import {
  broadcastAppend,
  bytesOf,
  maybeCommit,
  onAppend,
  onAppendResponse,
  onCommitTold,
  onSnapshot,
  onSnapshotSent,
  onUnreachable,
  sendAppend,
  sendAppends,
  startTransfer,
} from './replication.ts'
import { becomeFollower } from './roles.ts'
import type { Raft } from './state.ts'
import type {
  Effects,
  Entry,
  Event,
  Message,
  MessageOf,
  NodeId,
  Persist,
  Proposal,
  ProposalOutcome,
} from './types.ts'

/** Takes one event in. What has to be done about it gathers until `takeEffects`. */
export function step(raft: Raft, event: Event): void {
  switch (event.kind) {
    case 'message':
      if (event.now !== undefined) raft.now = event.now
      onMessage(raft, event.message, event.now)
      return
    case 'tick':
      raft.now = event.now
      tick(raft, event.random)
      return
    case 'persisted':
      onPersisted(raft, event.seq, event.lastIndex)
      return
    case 'read':
      raft.now = event.now
      requestRead(raft, raft.id, event.context, event.now)
      return
    case 'compacted':
      raft.snapshot = event.snapshot
      compactLog(raft.log, Math.min(event.keepAfter, event.snapshot.index))
      return
    case 'snapshot-sent':
      onSnapshotSent(raft, event.to, event.ok)
      return
    case 'unreachable':
      onUnreachable(raft, event.id)
      return
    case 'transfer':
      startTransfer(raft, event.to)
      return
    case 'campaign':
      campaign(raft, 'pre-vote')
      return
  }
}

function tick(raft: Raft, random: number): void {
  const { electionTicks } = raft.options
  if (raft.redraw) {
    raft.timeout = electionTicks + Math.floor(random * electionTicks)
    raft.redraw = false
  }
  raft.elapsed++
  raft.sinceHeard++
  if (raft.role !== 'leader') {
    if (raft.elapsed >= raft.timeout) {
      raft.elapsed = 0
      raft.redraw = true
      campaign(raft, 'pre-vote')
    }
    return
  }
  if (raft.transferee !== 0n && ++raft.transferTicks >= electionTicks) raft.transferee = 0n
  if (raft.elapsed >= electionTicks) {
    raft.elapsed = 0
    if (!quorumActive(raft)) {
      becomeFollower(raft, raft.term, 0n)
      return
    }
  }
  maybeLeaveJoint(raft)
  sendHeartbeats(raft)
  confirmRounds(raft)
}

/** Check-quorum (dissertation, section 6.2): a leader that does not hear a majority steps down. */
function quorumActive(raft: Raft): boolean {
  const isActive = (id: NodeId): boolean => id === raft.id || raft.progress.get(id)?.active === true
  const active = voterGroups(raft.membership).every(
    (voters) => voters.filter(isActive).length >= majority(voters.length),
  )
  for (const progress of raft.progress.values()) {
    progress.wasActive = progress.active
    progress.active = false
  }
  return active
}

function onMessage(raft: Raft, message: Message, now: number | undefined): void {
  if (message.to !== raft.id) return
  if (message.term > raft.term) {
    if (!mayRaiseTerm(raft, message)) return
  } else if (message.term < raft.term) {
    rejectStale(raft, message)
    return
  }
  switch (message.type) {
    case 'vote':
      onVote(raft, message)
      return
    case 'vote-response':
      onVoteResponse(raft, message)
      return
    case 'append':
      follow(raft, message)
      onAppend(raft, message)
      maybeRelease(raft)
      return
    case 'heartbeat':
      follow(raft, message)
      onHeartbeat(raft, message)
      maybeRelease(raft)
      return
    case 'snapshot':
      follow(raft, message)
      onSnapshot(raft, message)
      return
    case 'append-response':
      if (raft.role === 'leader') onAppendResponse(raft, message)
      return
    case 'heartbeat-response':
      if (raft.role === 'leader') onHeartbeatResponse(raft, message)
      return
    case 'read-request':
      if (raft.role === 'leader') requestRead(raft, message.from, message.context, now)
      return
    case 'read-response':
      onReadResponse(raft, message)
      return
    case 'timeout-now':
      campaign(raft, 'transfer')
      return
  }
}

/** Handles the term of a message from the future. False if the message must be ignored. */
function mayRaiseTerm(raft: Raft, message: Message): boolean {
  switch (message.type) {
    case 'vote': {
      // Leader stickiness: while a leader is heard nobody else is elected, unless it asked for that itself.
      const heard = raft.leader !== 0n && raft.elapsed < raft.options.electionTicks
      if ((heard || leaseForbids(raft)) && !message.transfer) return false
      if (!message.pre) becomeFollower(raft, message.term, 0n)
      return true
    }
    case 'vote-response':
      // A granted pre-vote speaks of a term nobody has entered.
      if (!(message.pre && message.granted)) becomeFollower(raft, message.term, 0n)
      return true
    case 'append':
    case 'heartbeat':
    case 'snapshot':
      becomeFollower(raft, message.term, message.from)
      return true
    default:
      becomeFollower(raft, message.term, 0n)
      return true
  }
}

/** Tells the sender of an old term about ours: a leader that was cut off, or a candidate, must catch up. */
function rejectStale(raft: Raft, message: Message): void {
  const reply = { from: raft.id, to: message.from, term: raft.term }
  if (message.type === 'append' || message.type === 'heartbeat' || message.type === 'snapshot') {
    // Our term must be durable before anybody hears of it.
    raft.out.afterPersist.push({
      ...reply,
      type: 'append-response',
      index: 0,
      rejected: true,
      hintIndex: 0,
      hintTerm: 0,
      refill: false,
    })
  } else if (message.type === 'vote' && message.pre) {
    raft.out.afterPersist.push({ ...reply, type: 'vote-response', pre: true, granted: false })
  }
}

function follow(raft: Raft, message: Message): void {
  assert(raft.role !== 'leader', `two leaders in term ${raft.term}: ${raft.id} and ${message.from}`)
  if (raft.role !== 'follower') becomeFollower(raft, raft.term, message.from)
  raft.leader = message.from
  raft.elapsed = 0
  raft.sinceHeard = 0
}

function onHeartbeat(raft: Raft, message: MessageOf<'heartbeat'>): void {
  onCommitTold(raft, message.from, message.commit)
  raft.out.messages.push({
    type: 'heartbeat-response',
    from: raft.id,
    to: message.from,
    term: raft.term,
    round: message.round,
  })
}

function onHeartbeatResponse(raft: Raft, message: MessageOf<'heartbeat-response'>): void {
  const progress = raft.progress.get(message.from)
  if (progress === undefined) return
  progress.active = true
  if (message.round > progress.round) {
    progress.round = message.round
    confirmRounds(raft)
  }
  if (progress.state === 'snapshot') return
  progress.probing = false
  if (progress.state === 'probe') sendAppends(raft, message.from, progress)
  // An append may have been lost; one that follows it makes the follower say so.
  else if (progress.match < lastIndex(raft.log)) sendAppend(raft, message.from, progress, 'empty')
}

function onPersisted(raft: Raft, seq: number, last: number): void {
  if (seq >= raft.log.validFromSeq && last > raft.log.stable)
    raft.log.stable = Math.min(last, lastIndex(raft.log))
  if (raft.role === 'candidate' && seq >= raft.ownVoteSeq) ownVoteDurable(raft)
  if (raft.role === 'leader' && maybeCommit(raft)) broadcastAppend(raft)
  maybeRelease(raft)
}

/** Appends proposals to the leader's log. The outcome is decided by a majority, later. */
export function propose(raft: Raft, proposals: readonly Proposal[]): ProposalOutcome {
  if (raft.role !== 'leader' || !isMember(raft.membership, raft.id))
    return { accepted: false, reason: 'not-leader' }
  if (raft.transferee !== 0n) return { accepted: false, reason: 'transferring' }
  if (proposals.some((proposal) => proposal.kind === 'config')) {
    if (proposals.length > 1 || raft.pendingChange > raft.applied || raft.membership.joint !== undefined)
      return { accepted: false, reason: 'change-pending' }
    if (!committedInTerm(raft)) return { accepted: false, reason: 'not-ready' }
  }
  const firstIndex = lastIndex(raft.log) + 1
  const entries: Entry[] = proposals.map((proposal, at) => ({
    index: firstIndex + at,
    term: raft.term,
    kind: proposal.kind,
    data: proposal.data,
  }))
  const bytes = bytesOf(entries)
  if (raft.uncommittedBytes > 0 && raft.uncommittedBytes + bytes > raft.options.uncommittedBytesMax)
    return { accepted: false, reason: 'too-many-uncommitted' }
  raft.uncommittedBytes += bytes
  if (entries[0]?.kind === 'config') raft.pendingChange = firstIndex
  appendEntries(raft.log, entries)
  broadcastAppend(raft)
  return { accepted: true, firstIndex, term: raft.term }
}

/** Hands out what has to be done since the last call. */
export function takeEffects(raft: Raft): Effects {
  const persist = takePersist(raft)
  const { committed, more } = takeCommitted(raft)
  const { out } = raft
  const effects: Effects = {
    messages: out.messages,
    persist,
    install: out.install,
    committed,
    more,
    reads: out.reads,
    snapshots: [...out.snapshots],
    released: out.released,
  }
  raft.out = {
    messages: [],
    afterPersist: [],
    reads: [],
    snapshots: new Set(),
    install: undefined,
    installMarker: undefined,
    released: false,
  }
  return effects
}

function takePersist(raft: Raft): Persist | undefined {
  const { log, out } = raft
  const last = lastIndex(log)
  const stateChanged = raft.term !== raft.savedTerm || raft.vote !== raft.savedVote
  const write = stateChanged || log.unsaved <= last || out.installMarker !== undefined
  if (!write && out.afterPersist.length === 0) return undefined
  const entries = log.unsaved <= last ? sliceEntries(log, log.unsaved, last, Number.MAX_VALUE) : []
  log.unsaved = last + 1
  raft.savedTerm = raft.term
  raft.savedVote = raft.vote
  return {
    seq: raft.nextSeq++,
    hardState: write ? { term: raft.term, vote: raft.vote, commit: raft.committed } : undefined,
    snapshot: out.installMarker,
    entries,
    lastIndex: last,
    messages: out.afterPersist,
  }
}

function takeCommitted(raft: Raft): { committed: readonly Entry[]; more: boolean } {
  const until = Math.min(raft.committed, raft.log.stable)
  if (until <= raft.applied) return { committed: [], more: false }
  const committed = sliceEntries(raft.log, raft.applied + 1, until, raft.options.applyBytesMax)
  for (const entry of committed) {
    raft.applied = entry.index
    if (entry.kind === 'config') applyMembership(raft, entry)
  }
  maybeLeaveJoint(raft)
  return { committed, more: raft.applied < until || raft.log.unsaved <= lastIndex(raft.log) }
}

/** Whether a leader has heard a member within the last two election timeouts. */
export function isActive(raft: Raft, id: NodeId): boolean {
  const progress = raft.progress.get(id)
  return progress !== undefined && (progress.active || progress.wasActive)
}

/** Entries above this are not committed as far as this member knows. */
export function appliedTerm(raft: Raft): number {
  return termAt(raft.log, raft.applied) ?? raft.snapshot.term
}

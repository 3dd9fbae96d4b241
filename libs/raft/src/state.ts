import { assert } from './assert.ts'
import { createLog, type Log } from './log.ts'
import type { Membership } from './membership.ts'
import type { Progress } from './progress.ts'
import type { Entry, HardState, Message, NodeId, SnapshotMeta } from './types.ts'

export type RaftOptions = {
  id: NodeId
  /** Ticks without a leader before an election; the real timeout is up to twice that. Heartbeats go out every tick. */
  electionTicks: number
  /** Bytes of entries in one append, and in one batch to apply. */
  appendBytesMax: number
  applyBytesMax: number
  /** Appends on their way to one follower. */
  windowMessages: number
  windowBytes: number
  /** Entries of this leader that are not committed; beyond it proposals are refused. */
  uncommittedBytesMax: number
  /**
   * Above 0 a leader serves reads without asking anybody until this long after it sent the newest round of heartbeats that a
   * majority has answered, and members refuse votes for an election timeout after they heard a leader or started. All members must
   * have it or none. See the README for what it takes for granted about clocks; 0 takes nothing for granted.
   */
  leaseMs: number
  /**
   * False for a member whose log lost what it may have acknowledged: it neither votes nor stands for election until
   * a leader has filled it again.
   */
  mayVote: boolean
}

export const defaultOptions: Omit<RaftOptions, 'id'> = {
  electionTicks: 10,
  appendBytesMax: 1 << 20,
  applyBytesMax: 4 << 20,
  windowMessages: 256,
  windowBytes: 16 << 20,
  uncommittedBytesMax: 64 << 20,
  leaseMs: 0,
  mayVote: true,
}

/** What a member knows when it starts: from its disk, or the initial cluster for an empty one. */
export type Recovered = {
  hardState: HardState
  snapshot: SnapshotMeta
  /** Contiguous, after the snapshot. All of them are durable. */
  entries: readonly Entry[]
}

export type Role = 'follower' | 'pre-candidate' | 'candidate' | 'leader'

type WaitingRead = { from: NodeId; context: number; index: number; round: number }

/**
 * The whole state of one member. `step` changes it in place (copying the log for each event would cost more than all
 * the rest); nothing else may. There is no clock, no randomness and no I/O in it.
 */
export type Raft = {
  readonly options: RaftOptions
  readonly id: NodeId
  role: Role
  term: number
  vote: NodeId
  leader: NodeId
  log: Log
  /** Known to be stored by a majority. Invariant: applied <= committed <= last index, and never goes back. */
  committed: number
  /** Handed out to be applied. Never above what is durable here. */
  applied: number
  membership: Membership
  /** Newest snapshot of the state machine. */
  snapshot: SnapshotMeta
  mayVote: boolean
  /** Commit index that the last append we took from a leader told. */
  refillUntil: number
  /** Up to here our log is that of the leader of this term, as appends have shown since we started. */
  agreed: number

  /** The newest time we were told. */
  now: number
  /** Ticks since any leader was heard, or since the start: with leases nobody else is elected before an election timeout. */
  sinceHeard: number
  /** Ticks since the leader was heard (follower), since the election began, or since the quorum was checked (leader). */
  elapsed: number
  timeout: number
  /** The timeout is drawn again with the next tick's random number. */
  redraw: boolean
  votes: Map<NodeId, boolean>
  /** Ours at the start of a candidacy; counted only once it is durable. */
  ownVoteSeq: number

  /** Leader only: the other members. */
  progress: Map<NodeId, Progress>
  /** Leader only: no membership change is proposed before this index is applied, nor while they are joint. */
  pendingChange: number
  uncommittedBytes: number
  transferee: NodeId
  transferTicks: number
  /** Number of the newest heartbeat round, over all terms of this run. */
  round: number
  confirmedRound: number
  /** When rounds were sent that are not confirmed yet, oldest first. */
  sentRounds: { round: number; at: number }[]
  /** Leader only: when the newest confirmed round was sent, or a little earlier. */
  confirmedAt: number | undefined
  /** Leader only: it has asked a member to take over, which may win at any time from now on. */
  leaseEnded: boolean
  waitingReads: WaitingRead[]
  /** Reads that wait until an entry of this term is committed. */
  deferredReads: { from: NodeId; context: number }[]

  nextSeq: number
  out: {
    messages: Message[]
    afterPersist: Message[]
    reads: { context: number; index: number }[]
    snapshots: Set<NodeId>
    install: SnapshotMeta | undefined
    installMarker: SnapshotMeta | undefined
    released: boolean
  }
  /** As last handed out to be written. */
  savedTerm: number
  savedVote: NodeId
}

export function createRaft(options: Partial<RaftOptions> & { id: NodeId }, recovered: Recovered): Raft {
  const { hardState, snapshot, entries } = recovered
  const last = snapshot.index + entries.length
  assert(hardState.commit <= last, `commit ${hardState.commit} is beyond the log, which ends at ${last}`)
  const full = { ...defaultOptions, ...options }
  return {
    options: full,
    id: options.id,
    role: 'follower',
    term: hardState.term,
    vote: hardState.vote,
    leader: 0n,
    log: createLog(snapshot, entries),
    committed: Math.max(hardState.commit, snapshot.index),
    applied: snapshot.index,
    membership: snapshot.membership,
    snapshot,
    mayVote: full.mayVote,
    refillUntil: Number.MAX_SAFE_INTEGER,
    agreed: 0,
    now: 0,
    sinceHeard: 0,
    elapsed: 0,
    timeout: full.electionTicks,
    redraw: true,
    votes: new Map(),
    ownVoteSeq: 0,
    progress: new Map(),
    pendingChange: 0,
    uncommittedBytes: 0,
    transferee: 0n,
    transferTicks: 0,
    round: 0,
    confirmedRound: 0,
    sentRounds: [],
    confirmedAt: undefined,
    leaseEnded: false,
    waitingReads: [],
    deferredReads: [],
    nextSeq: 1,
    out: {
      messages: [],
      afterPersist: [],
      reads: [],
      snapshots: new Set(),
      install: undefined,
      installMarker: undefined,
      released: false,
    },
    savedTerm: hardState.term,
    savedVote: hardState.vote,
  }
}

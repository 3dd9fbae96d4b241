import type { Clock, Fault, Log } from '@kiln/service'
import type { Disk } from '../wal/disk.ts'

/** 64-bit id of a member, as etcd derives it; `0n` is nobody. */
export type MemberId = bigint

/** A member of the cluster as `MemberList` shows it. `name` and `clientUrls` are empty until it has published them. */
export type Member = {
  id: MemberId
  name: string
  peerUrls: string[]
  clientUrls: string[]
  learner: boolean
}

/** One of several changes: a learner becomes a voter, a voter a learner, or a member goes. */
export type MemberChange = { op: 'promote' | 'demote' | 'remove'; id: MemberId }

/** A proposal that a majority has stored: `index` grows, with gaps where the log holds entries of its own. */
export type CommittedEntry = { index: number; term: number; data: Uint8Array }

/**
 * What the log drives. Everything must be deterministic: the same entries give the same state and the same
 * results on each member; no clock, no randomness, no local settings.
 */
export type StateMachine<Result> = {
  /**
   * Applies entries in order; one result for each, in the same order. Must not throw. What would hold up the event loop
   * is answered by a promise; nothing else is asked of the state machine before that.
   */
  apply(entries: readonly CommittedEntry[]): readonly Result[] | Promise<readonly Result[]>
  /**
   * The whole state at the moment of the call: what is applied later must not show in it, even if the bytes are
   * produced later. It is called between two `apply`.
   */
  snapshot(): Promise<Uint8Array | AsyncIterable<Uint8Array>>
  /**
   * Replaces the whole state by what `snapshot` gave, in pieces of any size. Called before any `apply` at a start, and when this
   * member was too far behind.
   */
  restore(snapshot: AsyncIterable<Uint8Array>): Promise<void>
}

/** Carries frames between members. It may lose, delay, reorder and repeat them, but never changes them. */
export type Transport = {
  /** Begins delivery; called once. `lost` is told when a member has no connection: frames to it may be gone. */
  start(receive: (from: MemberId, frame: Uint8Array) => void, lost: (to: MemberId) => void): void
  /** Gives a frame to a bounded queue towards a member, or drops it. Never blocks and never throws. */
  send(to: MemberId, frame: Uint8Array): void
  /** The members that may be talked to from now on, without this one. */
  setPeers(peers: readonly Member[]): void
  /** Members that were removed: they are told so when they come. */
  setRemoved?(ids: readonly MemberId[]): void
  stop(): Promise<void>
}

/** When a proposal of this member got how far (milliseconds of `clock`); what is undefined is not known any more. */
export type ProposalTimes = {
  addedAt: number
  /** Given to the leader. */
  sentAt: number
  /** Durable in this member's own log. */
  syncedAt: number | undefined
  /** Known to be so on a majority. */
  committedAt: number | undefined
  appliedAt: number
}

export type ConsensusOptions<Result> = {
  clusterId: bigint
  self: MemberId
  /** The initial cluster. Only read when the disk is empty; the log knows better afterwards. */
  members: readonly Member[]
  /** True for a member that was added to a running cluster: it waits to be told instead of electing. */
  joining?: boolean
  /** Where the log and the snapshots are: `nodeDisk(folder)` or a simulated one. */
  disk: Disk
  stateMachine: StateMachine<Result>
  transport: Transport
  clock: Clock
  /** Uniform in [0, 1). */
  random: () => number
  /** Heartbeat interval. */
  tickMs: number
  /** Ticks without a leader after which a member asks for an election; the real one is up to twice that. */
  electionTicks: number
  log: Log
  /** Runs a function when this turn of the event loop ends; default `setImmediate`. */
  endOfTurn?: (fn: () => void) => void
  /** Answers `requestLeader` of other members; only called while this member believes that it leads. */
  onRequest?: (body: Uint8Array, from: MemberId) => Promise<Uint8Array>
  /** A failure after which this member must not go on (I/O error, full disk, removed). The daemon ends with it. */
  onFatal: (fault: Fault) => void
  limits?: Partial<ConsensusLimits>
  /** Hears of proposals that took longer than `ms` and belong to a call. */
  slow?: { ms: number; report(call: object, times: ProposalTimes): void }
  /** A single member whose last batch is damaged starts only with this (it may forget acknowledged writes). */
  acceptDamage?: boolean
  /** Makes this member the only one of its cluster, whose majority is lost for good; see `force-new-cluster.ts`. */
  forceNewCluster?: boolean
  /** A leader serves reads without asking a majority for a while after one has answered it; all members must agree on it. */
  leaseReads?: boolean
}

export type ConsensusLimits = {
  /** Log bytes and entries after which a snapshot is taken. */
  snapshotBytes: number
  snapshotEntries: number
  /** Entries kept behind a snapshot, so that a slow member needs no snapshot. */
  keptEntries: number
  /** Snapshot files kept. */
  snapshotFiles: number
  segmentBytes: number
  /** One proposal. */
  proposalBytesMax: number
  /** Proposals of this member that wait for their result. */
  pendingMax: number
  /** Appended but not committed; beyond it a leader refuses proposals. */
  uncommittedBytesMax: number
  /** Committed but not applied; beyond it proposals are refused. */
  unappliedEntriesMax: number
  /** A proposal, read or request without an answer fails after this. */
  requestTimeoutMs: number
  snapshotChunkBytes: number
}

export type Role = 'follower' | 'pre-candidate' | 'candidate' | 'leader'

export type LeaderChange = { leader: MemberId; term: number; isLeader: boolean }

export type ConsensusStatus = {
  id: MemberId
  clusterId: bigint
  role: Role
  term: number
  /** `0n` when none is known. */
  leader: MemberId
  lastIndex: number
  committedIndex: number
  appliedIndex: number
  /** Term of the entry at `appliedIndex`. */
  appliedTerm: number
  snapshotIndex: number
  /** Bytes of the log's files on the disk. */
  walBytes: number
  /** How far each other member is known to be; empty unless this member leads. */
  progress: { id: MemberId; matchIndex: number; active: boolean }[]
  /** True while several members change at once and both the old and the new voters decide. */
  joint: boolean
  /** True while a full disk makes this member refuse proposals. */
  diskFull: boolean
}

/**
 * A running member. All faults have one of the codes
 * `STORE_NO_LEADER` (nothing happened), `STORE_TOO_MANY_REQUESTS` (nothing happened), `STORE_REQUEST_TOO_LARGE` (nothing
 * happened), `STORE_DISK_FULL` (nothing happened), `STORE_LEADER_CHANGED` (outcome unknown), `STORE_TIMEOUT` (outcome
 * unknown), `STORE_STOPPED` (outcome unknown), `STORE_MEMBER_EXISTS`, `STORE_MEMBER_UNKNOWN`, `STORE_MEMBER_UNREADY`,
 * `STORE_NOT_LEADER`, `STORE_UNHEALTHY`.
 */
export type Consensus<Result> = {
  /**
   * Resolves with what `apply` returned on this member, once it is applied here. Works on every member. `call` is what a slow
   * one is reported for.
   */
  propose(data: Uint8Array, call?: object): Promise<Result>
  /**
   * Linearizable barrier: resolves once this member has applied all that was acknowledged anywhere before the call.
   * The value is the read index. Works on every member; concurrent calls share rounds.
   */
  readIndex(): Promise<number>
  /** Sends bytes to the leader's `onRequest` (to our own if we lead) and resolves with its answer. */
  requestLeader(body: Uint8Array): Promise<Uint8Array>
  /**
   * The time on `clock` at which a majority last confirmed that we lead: it is the time at which the confirmed round was
   * *sent*. Undefined when we do not lead. It moves with every heartbeat.
   */
  leadershipConfirmedAt(): number | undefined
  /** Resolves once a majority confirmed, after the call, that we lead; `STORE_NOT_LEADER` otherwise. */
  confirmLeadership(): Promise<void>
  status(): ConsensusStatus
  id(): MemberId
  clusterId(): bigint
  leader(): MemberId
  isLeader(): boolean
  term(): number
  appliedIndex(): number
  members(): readonly Member[]
  /** Called at each change of leader or term; returns the function that ends it. */
  onLeaderChange(fn: (change: LeaderChange) => void): () => void
  onMembersChange(fn: (members: readonly Member[]) => void): () => void
  transferLeader(to: MemberId): Promise<void>
  /** Each resolves when the change is applied here. */
  addMember(member: { peerUrls: string[]; learner: boolean; name?: string }): Promise<Member>
  removeMember(id: MemberId): Promise<void>
  promoteMember(id: MemberId): Promise<void>
  /** Changes what others know of a member: its peer URLs, or the name and client URLs it publishes. */
  updateMember(
    id: MemberId,
    change: { peerUrls?: string[]; name?: string; clientUrls?: string[] },
  ): Promise<void>
  /**
   * Changes several members in one step, through a joint configuration: until it is complete every decision needs a majority of
   * the old voters and one of the new. Resolves when it is complete and applied here.
   */
  changeMembers(changes: readonly MemberChange[]): Promise<void>
  /** Takes a snapshot now, if anything was applied since the last. */
  compactLog(): Promise<void>
  stop(): Promise<void>
}

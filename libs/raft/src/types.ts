import type { Membership } from './membership.ts'

/** Identity of a member; `0n` is nobody. */
export type NodeId = bigint

/**
 * `data` is the user's, `config` a membership change, `empty` what a new leader appends to commit what came before.
 */
export type EntryKind = 'data' | 'config' | 'empty'

export type Entry = { index: number; term: number; kind: EntryKind; data: Uint8Array }

/**
 * What must be durable before a member answers. `commit` rides along with every write of entries: a member whose
 * log holds a second membership change must know, after a restart too, that the first one is committed.
 */
export type HardState = { term: number; vote: NodeId; commit: number }

/** Everything up to `index` is in the snapshot, the membership too. */
export type SnapshotMeta = { index: number; term: number; membership: Membership }

type Envelope = { from: NodeId; to: NodeId; term: number }

export type Message = Envelope &
  (
    | { type: 'vote'; pre: boolean; transfer: boolean; lastIndex: number; lastTerm: number }
    | { type: 'vote-response'; pre: boolean; granted: boolean }
    | {
        type: 'append'
        previousIndex: number
        previousTerm: number
        commit: number
        entries: readonly Entry[]
      }
    | {
        type: 'append-response'
        index: number
        rejected: boolean
        hintIndex: number
        hintTerm: number
        /** This member lost durable entries: what it acknowledged before does not count. Answers heartbeats, too. */
        refill: boolean
      }
    | { type: 'heartbeat'; commit: number; round: number }
    | { type: 'heartbeat-response'; round: number }
    | { type: 'snapshot'; snapshot: SnapshotMeta }
    | { type: 'read-request'; context: number }
    | { type: 'read-response'; context: number; index: number }
    | { type: 'timeout-now' }
  )

export type MessageOf<Type extends Message['type']> = Extract<Message, { type: Type }>

export type Event =
  /** Without `now` a read that another member asks for is not answered from a lease. */
  | { kind: 'message'; message: Message; now?: number }
  /**
   * Time passed. `random` in [0, 1) sets the next election timeout if one is due to be drawn; `now` is in milliseconds of a clock
   * that never goes back.
   */
  | { kind: 'tick'; random: number; now: number }
  /** The write of `Persist` number `seq` is durable. Acknowledge in order. */
  | { kind: 'persisted'; seq: number; lastIndex: number }
  /** Asks for a read index; it comes back in `Effects.reads`, or never: ask again. */
  | { kind: 'read'; context: number; now: number }
  /** The state machine was saved. Entries up to `keepAfter` leave the memory. */
  | { kind: 'compacted'; snapshot: SnapshotMeta; keepAfter: number }
  /** A snapshot asked for by `Effects.snapshots` arrived, or did not. */
  | { kind: 'snapshot-sent'; to: NodeId; ok: boolean }
  /** The connection to a member broke: what was on its way is lost, and what is sent now waits for nobody. */
  | { kind: 'unreachable'; id: NodeId }
  | { kind: 'transfer'; to: NodeId }
  /** Start an election now, as if the leader had not been heard. */
  | { kind: 'campaign' }

export type Proposal = { kind: 'data' | 'config'; data: Uint8Array }

export type ProposalRefusal =
  | 'not-leader'
  | 'transferring'
  | 'too-many-uncommitted'
  /** Another membership change is not applied yet. */
  | 'change-pending'
  /** The leader has not committed an entry of its own term yet. */
  | 'not-ready'

export type ProposalOutcome =
  | { accepted: true; firstIndex: number; term: number }
  | { accepted: false; reason: ProposalRefusal }

/** One write to the log, in order: the marker of an installed snapshot, entries (which cut off what they overlap), state. */
export type Persist = {
  seq: number
  hardState: HardState | undefined
  snapshot: SnapshotMeta | undefined
  entries: readonly Entry[]
  lastIndex: number
  /** To be sent once this write and all before it are durable. */
  messages: readonly Message[]
}

/** What has to be done after a turn; order: send, persist, install, apply, then answer reads. */
export type Effects = {
  messages: readonly Message[]
  persist: Persist | undefined
  /** Replace the state machine by this snapshot, whose bytes came with the message. */
  install: SnapshotMeta | undefined
  /** Durable here and committed: to be applied in order. */
  committed: readonly Entry[]
  /** More committed entries wait: take effects again soon. */
  more: boolean
  /** Reads that may be served once the state machine has applied `index`. */
  reads: readonly { context: number; index: number }[]
  /** Members that need a snapshot newer than their log. */
  snapshots: readonly NodeId[]
  /** The damaged log of this member is complete again, it votes from now on. */
  released: boolean
}

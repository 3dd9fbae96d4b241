import { appliedTerm, type Entry, type Membership, type Raft, type SnapshotMeta } from '@kiln/raft'
import { assert, Fault, type Log } from '@kiln/service'
import type { Disk } from '../wal/disk.ts'
import { pruneSnapshots, saveSnapshot } from '../wal/snapshot-file.ts'
import type { Wal } from '../wal/wal.ts'
import {
  applyRosterEntry,
  decodeRoster,
  decodeRosterEntry,
  encodeRoster,
  membershipOf,
  type Roster,
  type RosterEntry,
} from './members.ts'
import { decodePayload } from './payload.ts'
import type { Proposals } from './proposals.ts'
import type { Received } from './snapshot-transfer.ts'
import type { CommittedEntry, ConsensusLimits, StateMachine } from './types.ts'

type Ports<Result> = {
  stateMachine: StateMachine<Result>
  disk: Disk
  wal: Wal
  raft: Raft
  limits: ConsensusLimits
  log: Log
  /** Ours are settled with their results; `origin` tells which they are. */
  proposals: Proposals
  origin: bigint
  compacted(snapshot: SnapshotMeta, keepAfter: number): void
  rosterChanged(): void
  /** Entries that waited can be applied now. */
  resume(): void
  isStopped(): boolean
  fail(fault: Fault): void
}

/** Drives the state machine: committed entries, snapshots of it, and its replacement by a leader's snapshot. */
export class Applier<Result> {
  /** Everything up to here is in the state machine. */
  index: number
  term: number
  roster: Roster
  #ports: Ports<Result>
  /** Entries that wait while a snapshot is being installed. */
  #waiting: Entry[] = []
  #installing = false
  #saving: Promise<void> | undefined
  #sinceSnapshot = { entries: 0, bytes: 0 }
  /** Our own change of several members: it is done when the joint configuration is left. */
  #jointSequence = 0
  #membersChecked = false

  constructor(ports: Ports<Result>, roster: Roster) {
    this.#ports = ports
    this.roster = roster
    this.index = ports.raft.applied
    this.term = ports.raft.snapshot.term
  }

  apply(committed: readonly Entry[]): void {
    for (const entry of committed) this.#waiting.push(entry)
    if (this.#installing || this.#waiting.length === 0) return
    const entries = this.#waiting
    this.#waiting = []
    let run: { entries: CommittedEntry[]; sequences: number[] } = { entries: [], sequences: [] }
    for (const entry of entries) {
      this.#sinceSnapshot.bytes += entry.data.length + 24
      if (entry.kind === 'data') {
        const { origin, sequence, data } = decodePayload(entry.data)
        run.entries.push({ index: entry.index, term: entry.term, data })
        run.sequences.push(origin === this.#ports.origin ? sequence : 0)
        continue
      }
      this.#applyRun(run)
      run = { entries: [], sequences: [] }
      this.index = entry.index
      this.term = entry.term
      if (entry.kind === 'config') this.#applyChange(entry)
      else this.#ports.proposals.termBegan(entry.term)
    }
    this.#applyRun(run)
    this.#checkMembers()
    this.#sinceSnapshot.entries += entries.length
    this.#saveIfDue()
  }

  #applyRun({ entries, sequences }: { entries: CommittedEntry[]; sequences: number[] }): void {
    const last = entries[entries.length - 1]
    if (last === undefined) return
    assert(entries[0]!.index > this.index, 'entries are applied once, in order')
    const results = this.#ports.stateMachine.apply(entries)
    assert(results.length === entries.length, 'the state machine answers each entry')
    this.index = last.index
    this.term = last.term
    sequences.forEach((sequence, at) => {
      if (sequence !== 0) this.#ports.proposals.applied(sequence, results[at])
    })
  }

  #applyChange(entry: Entry): void {
    const change = decodeRosterEntry(entry.data)
    this.#membersChecked = false
    this.roster = applyRosterEntry(this.roster, change)
    this.#ports.log.info(describeChange(change), 'members changed')
    this.#ports.rosterChanged()
    const { origin, proposals } = this.#ports
    if (change.kind === 'leave') {
      if (this.#jointSequence > 0) proposals.applied(this.#jointSequence, undefined)
      this.#jointSequence = 0
    } else if (change.origin === origin) {
      if (change.kind === 'enter') this.#jointSequence = change.sequence
      else proposals.applied(change.sequence, undefined)
    }
  }

  /** A snapshot says who the members are as we know them, and whoever installs it goes by that. */
  #checkMembers(): void {
    const { raft } = this.#ports
    if (this.#membersChecked || this.index !== raft.applied) return
    this.#membersChecked = true
    assert(
      describeMembers(membershipOf(this.roster)) === describeMembers(raft.membership),
      'the members are those that consensus goes by',
    )
  }

  #saveIfDue(): void {
    const { snapshotEntries, snapshotBytes } = this.#ports.limits
    if (this.#sinceSnapshot.entries < snapshotEntries && this.#sinceSnapshot.bytes < snapshotBytes) return
    this.save().catch((error) =>
      this.#ports.log.error({ error }, 'a snapshot could not be saved, the log goes on growing'),
    )
  }

  /** Saves the state as it is now, and lets the log before it go. */
  async save(): Promise<void> {
    const { raft, isStopped } = this.#ports
    if (this.#saving !== undefined || isStopped() || this.index <= raft.snapshot.index) return
    // While a snapshot is being installed there is nothing to take one of.
    if (this.#installing || this.index !== raft.applied) return
    this.#saving = this.#save().finally(() => {
      this.#saving = undefined
    })
    await this.#saving
    // What was applied meanwhile may make the next one due, though nothing more comes.
    if (!isStopped()) this.#saveIfDue()
  }

  async #save(): Promise<void> {
    const { raft, disk, stateMachine, limits, log } = this.#ports
    const meta: SnapshotMeta = {
      index: this.index,
      term: appliedTerm(raft),
      membership: membershipOf(this.roster),
    }
    this.#sinceSnapshot = { entries: 0, bytes: 0 }
    const context = encodeRoster(this.roster)
    const payload = await stateMachine.snapshot()
    const bytes = await saveSnapshot(disk, { meta, context }, payload)
    if (this.#ports.isStopped() || meta.index <= raft.snapshot.index) return
    log.info({ index: meta.index, bytes }, 'snapshot saved')
    this.#ports.compacted(meta, meta.index - limits.keptEntries)
    await this.#releaseLog()
  }

  async #releaseLog(): Promise<void> {
    const { wal, disk, limits } = this.#ports
    wal.release(await pruneSnapshots(disk, limits.snapshotFiles))
  }

  /** Replaces the state by a snapshot that is on the disk already. */
  install({ meta, file }: Received): void {
    const { stateMachine, log, fail } = this.#ports
    this.#installing = true
    this.#waiting = []
    log.info({ index: meta.index }, 'installing a snapshot')
    const restore = async (): Promise<void> => {
      await stateMachine.restore(file.payload)
      this.#installing = false
      this.index = meta.index
      this.term = meta.term
      this.#sinceSnapshot = { entries: 0, bytes: 0 }
      this.roster = decodeRoster(file.context)
      this.#ports.rosterChanged()
      await this.#releaseLog()
      this.#ports.resume()
    }
    restore().catch((error) =>
      fail(new Fault('STORE_RESTORE_FAILED', 'a snapshot could not be installed', { cause: error })),
    )
  }

  /** Resolves when nothing is being saved any more. */
  async idle(): Promise<void> {
    await this.#saving?.catch(() => undefined)
  }
}

const describeMembers = ({ voters, learners, joint }: Membership): string =>
  [voters, learners, joint?.outgoing, joint?.learnersNext].map(String).join(' / ')

function describeChange(entry: RosterEntry): Record<string, unknown> {
  const one = ({ op, id }: { op: string; id: bigint }): string => `${op} ${id.toString(16)}`
  switch (entry.kind) {
    case 'change':
      return { change: one(entry.change) }
    case 'enter':
      return { joint: true, changes: entry.changes.map(one) }
    case 'leave':
      return { joint: false }
  }
}

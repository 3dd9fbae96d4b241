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
import type { OwnProposal, Proposals } from './proposals.ts'
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
  now(): number
  /** The entry at `index`, proposed by this member, is part of the state. */
  applied(proposal: OwnProposal, index: number, now: number): void
  compacted(snapshot: SnapshotMeta, keepAfter: number): void
  rosterChanged(): void
  /** Entries that waited can be applied now. */
  resume(): void
  isStopped(): boolean
  fail(fault: Fault): void
}

/** Entries for the state machine; `sequences` are those of our own proposals, 0 for others. */
type Run = { entries: CommittedEntry[]; sequences: number[] }

/** Log of at least this part of the state's size comes before the next snapshot. */
const savedShare = 8

/** Drives the state machine: committed entries, snapshots of it, and its replacement by a leader's snapshot. */
export class Applier<Result> {
  /** Everything up to here is in the state machine. */
  index: number
  term: number
  roster: Roster
  #ports: Ports<Result>
  /** Entries that wait while others are applied or a snapshot is being installed. */
  #waiting: Entry[] = []
  #installing = false
  #restoring: Promise<void> | undefined
  /** Entries that the state machine takes its time for. */
  #applying: Promise<void> | undefined
  #saving: Promise<void> | undefined
  #sinceSnapshot = { entries: 0, bytes: 0 }
  /** Our own change of several members: it is done when the joint configuration is left. */
  #jointSequence = 0
  #membersChecked = false
  /** Size of the last snapshot saved. */
  #savedBytes = 0

  constructor(ports: Ports<Result>, roster: Roster) {
    this.#ports = ports
    this.roster = roster
    this.index = ports.raft.applied
    this.term = ports.raft.snapshot.term
  }

  apply(committed: readonly Entry[]): void {
    for (const entry of committed) this.#waiting.push(entry)
    this.#applyWaiting()
  }

  /** Goes on until all is applied, or the state machine asks for time. */
  #applyWaiting(): void {
    let place = 0
    while (place < this.#waiting.length && !this.#installing && !this.#applying) {
      const run: Run = { entries: [], sequences: [] }
      for (; this.#waiting[place]?.kind === 'data'; place++) {
        const { index, term, data: bytes } = this.#waiting[place]!
        const { origin, sequence, data } = decodePayload(bytes)
        run.entries.push({ index, term, data })
        run.sequences.push(origin === this.#ports.origin ? sequence : 0)
        this.#sinceSnapshot.bytes += bytes.length + 24
      }
      this.#sinceSnapshot.entries += run.entries.length
      if (run.entries.length > 0) this.#applyRun(run)
      else this.#applyOther(this.#waiting[place++]!)
    }
    this.#waiting.splice(0, place)
    this.#checkMembers()
    this.#saveIfDue()
  }

  #applyRun(run: Run): void {
    assert(run.entries[0]!.index > this.index, 'entries are applied once, in order')
    const results = this.#ports.stateMachine.apply(run.entries)
    if (!(results instanceof Promise)) {
      this.#settle(run, results)
      return
    }
    this.#applying = results.then(
      (late) => {
        this.#applying = undefined
        if (this.#ports.isStopped()) return
        this.#settle(run, late)
        this.#applyWaiting()
        this.#ports.resume()
      },
      (cause: unknown) => {
        this.#ports.fail(new Fault('STORE_FAILED', 'an entry could not be applied', { cause }))
      },
    )
  }

  #settle({ entries, sequences }: Run, results: readonly Result[]): void {
    assert(results.length === entries.length, 'the state machine answers each entry')
    const last = entries[entries.length - 1]!
    this.index = last.index
    this.term = last.term
    const { proposals, applied, now } = this.#ports
    const appliedAt = now()
    sequences.forEach((sequence, at) => {
      if (sequence === 0) return
      const proposal = proposals.applied(sequence, results[at])
      if (proposal?.call) applied(proposal, entries[at]!.index, appliedAt)
    })
  }

  #applyOther(entry: Entry): void {
    this.#sinceSnapshot.entries++
    this.index = entry.index
    this.term = entry.term
    if (entry.kind === 'config') this.#applyChange(entry)
    else this.#ports.proposals.termBegan(entry.term)
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
    const { entries, bytes } = this.#sinceSnapshot
    // A snapshot is the whole state: it is not written again before a part of that has changed.
    const isDue = entries >= snapshotEntries && bytes >= this.#savedBytes / savedShare
    if (!isDue && bytes < snapshotBytes) return
    this.save().catch((error) =>
      this.#ports.log.error({ error }, 'a snapshot could not be saved, the log goes on growing'),
    )
  }

  /** Saves the state as it is now, and lets the log before it go. */
  async save(): Promise<void> {
    const { raft, isStopped } = this.#ports
    if (this.#saving !== undefined || isStopped() || this.index <= raft.snapshot.index) return
    // While a snapshot is being installed there is nothing to take one of.
    if (this.#installing || this.#applying || this.index !== raft.applied) return
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
    this.#savedBytes = bytes
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
    const { stateMachine, log, fail, isStopped } = this.#ports
    this.#installing = true
    this.#waiting = []
    log.info({ index: meta.index }, 'installing a snapshot')
    const restore = async (): Promise<void> => {
      await this.#applying
      await stateMachine.restore(file.payload())
      if (isStopped()) return
      this.#installing = false
      this.index = meta.index
      this.term = meta.term
      this.#sinceSnapshot = { entries: 0, bytes: 0 }
      this.roster = decodeRoster(file.context)
      this.#ports.rosterChanged()
      await this.#releaseLog()
      this.#ports.resume()
    }
    this.#restoring = restore().catch((error) =>
      fail(new Fault('STORE_RESTORE_FAILED', 'a snapshot could not be installed', { cause: error })),
    )
  }

  /** Resolves when nothing is being applied or saved any more. */
  async idle(): Promise<void> {
    await this.#applying
    await this.#restoring
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

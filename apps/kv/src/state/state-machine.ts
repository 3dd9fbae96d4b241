import {
  type AttachedKeys,
  AuthBook,
  type AuthChange,
  accepted,
  authRefusals,
  type DeleteRangeResponse,
  type Demand,
  encodeSnapshotSlices,
  MvccStore,
  type Outcome,
  type PutResponse,
  refusals,
  refused,
  type Slices,
  SnapshotDecoder,
  type TxnRequest,
  type TxnResponse,
  ValueFetch,
} from '@kiln/mvcc'
import { Fault } from '@kiln/service'
import { decodeRestore } from '../api/history-messages.ts'
import { decodeCompaction, decodeDelete, decodePut, decodeTxn } from '../api/requests.ts'
import type { CommittedEntry, StateMachine } from '../consensus/types.ts'
import { type Alarm, AlarmBook } from './alarm-book.ts'
import { type Command, decodeCommand, type MinorVersion } from './command.ts'
import { demandOf, refuseCommand } from './permission.ts'
import { proposerOf } from './proposer.ts'
import { afterSlice, nextTurn, runSlices, type ValueSource, valuesInMemory } from './slices.ts'
import { decodeStateHead, encodeStateHead, type StateHead } from './state-head.ts'
import { firstStoreVersion, newerStore, storeVersion } from './store-version.ts'
import { TimeMarks } from './time-marks.ts'

/** What applying a command gave, on the member that proposed it. */
export type Applied =
  | { kind: 'put'; outcome: Outcome<PutResponse> }
  | { kind: 'delete'; outcome: Outcome<DeleteRangeResponse> }
  | { kind: 'txn'; outcome: Outcome<TxnResponse> }
  | { kind: 'compact' | 'lease-revoke'; outcome: Outcome<{ revision: number }> }
  | { kind: 'restore'; outcome: Outcome<{ revision: number; put: number; deleted: number }> }
  | { kind: 'lease-grant'; outcome: Outcome<{ id: bigint; ttl: number }> }
  | { kind: 'lease-expire' | 'lease-checkpoint' }
  | { kind: 'alarm'; alarms: Alarm[] }
  | { kind: 'downgrade' | 'raise-version' | 'mark-time' }
  | { kind: 'auth'; outcome: Outcome<{ authRevision: number }> }
  | { kind: 'authenticate'; outcome: Outcome<{ token: string }> }

export type StoreListener = {
  /** Entries were applied: watchers may have something to hear. */
  onApplied?(): void
  /** The state was replaced by a snapshot. */
  onReplaced?(): void
  onLeaseGranted?(id: bigint, ttl: number): void
  onLeaseGone?(id: bigint): void
  /** A user may present this token from now on. */
  onTokenGiven?(name: string, token: string): void
  onAuthChanged?(change: AuthChange): void
}

/**
 * The replicated state: keys, leases, alarms, users and roles. Applying looks at the entries and the state alone, so that
 * all members come to the same.
 */
export class StoreState implements StateMachine<Applied> {
  readonly store = new MvccStore()
  readonly alarms = new AlarmBook()
  readonly auth = new AuthBook()
  readonly times = new TimeMarks()
  /** Where values are that are not in memory. */
  values: ValueSource = valuesInMemory
  #downgrade: MinorVersion | undefined
  #version = firstStoreVersion
  #listener: StoreListener = {}
  #attached: AttachedKeys = (id) => this.store.leases.get(id)?.keys ?? []

  /** The version the cluster is about to go back to. */
  get downgrade(): MinorVersion | undefined {
    return this.#downgrade
  }

  /** What may be in log and snapshots by now; see `store-version.ts`. */
  get version(): number {
    return this.#version
  }

  listen(listener: StoreListener): void {
    this.#listener = listener
  }

  /** A command that touches very many keys takes several turns; whatever it does is seen when it is done. */
  apply(entries: readonly CommittedEntry[]): Applied[] | Promise<Applied[]> {
    const room = this.values.room()
    if (room) return room.then(() => this.apply(entries))
    const results: Applied[] = []
    for (const [at, entry] of entries.entries()) {
      const slices = this.#applyEntry(entry)
      const step = slices.next()
      if (!step.done) {
        const first = afterSlice(this.values, step.value)
        return this.#applyInTurns({ entries: entries.slice(at + 1), results, slices, first })
      }
      results.push(step.value)
    }
    this.#listener.onApplied?.()
    return results
  }

  /** Ends the command that was begun, then goes on with the entries behind it. */
  async #applyInTurns(rest: {
    entries: readonly CommittedEntry[]
    results: Applied[]
    slices: Slices<Applied>
    /** What the command waits for. */
    first: Promise<void>
  }): Promise<Applied[]> {
    // What came before is complete.
    this.#listener.onApplied?.()
    await rest.first
    const applied = await runSlices(rest.slices, this.values)
    const more = rest.entries.length > 0 ? await this.apply(rest.entries) : []
    if (rest.entries.length === 0) this.#listener.onApplied?.()
    return [...rest.results, applied, ...more]
  }

  async snapshot(): Promise<AsyncIterable<Uint8Array>> {
    const head = encodeStateHead({
      alarms: this.alarms.list(),
      auth: this.auth.exportState(),
      downgrade: this.#downgrade,
      version: this.#version,
      times: this.times.list(),
    })
    return withPauses(head, encodeSnapshotSlices(this.store), this.values)
  }

  /** The bytes were checked as a whole before; they may come in pieces of any size. */
  async restore(snapshot: Uint8Array | AsyncIterable<Uint8Array>): Promise<void> {
    const decoder = new SnapshotDecoder(this.store)
    let head: StateHead | undefined
    let begun = Buffer.alloc(0)
    for await (const piece of snapshot instanceof Uint8Array ? [snapshot] : snapshot) {
      await this.values.room()
      if (head) await runSlices(decoder.add(piece), this.values)
      else {
        begun = Buffer.concat([begun, piece])
        head = decodeStateHead(begun)
        if (head) await runSlices(decoder.add(begun.subarray(head.bytes)), this.values)
      }
    }
    const problem = head ? decoder.end() : 'truncated'
    if (!head || problem) {
      throw new Fault('STORE_SNAPSHOT_BAD', `the snapshot cannot be restored: ${problem}`)
    }
    this.alarms.replace(head.alarms)
    this.#downgrade = head.downgrade
    this.#version = head.version
    this.auth.replace(head.auth)
    this.times.replace(head.times)
    this.#listener.onReplaced?.()
  }

  /** Permission is checked here as of now, whatever it was when the entry was proposed. */
  *#applyEntry({ data, term, index }: CommittedEntry): Slices<Applied> {
    const command = decodeCommand(data)
    const proposer = this.auth.enabled ? proposerOf(data) : 'member'
    if (proposer === 'member') return yield* this.#apply(command, { term, index })
    const demand = demandOf(command)
    const refusal = demand && this.auth.check(proposer, demand, this.#attached)
    return refusal ? refuseCommand(command, refusal) : yield* this.#apply(command, { term, index, demand })
  }

  /** A demand has the request decoded already. */
  *#apply(
    command: Command,
    { term, index, demand }: { term: number; index: number; demand?: Demand | undefined },
  ): Slices<Applied> {
    const { store } = this
    const refusal = this.alarms.has('corrupt') ? whileCorrupt(command) : undefined
    if (refusal) return refusal
    switch (command.kind) {
      case 'put': {
        if (this.alarms.has('nospace')) return { kind: 'put', outcome: refused(refusals.noSpace) }
        const request = demand?.kind === 'put' ? demand.request : decodePut(command.request)
        const needsValue = request.prevKv || request.ignoreValue
        return { kind: 'put', outcome: needsValue ? yield* store.putSlices(request) : store.put(request) }
      }
      case 'delete':
        return {
          kind: 'delete',
          outcome: yield* store.deleteRangeSlices(
            demand?.kind === 'delete' ? demand.request : decodeDelete(command.request),
          ),
        }
      case 'txn': {
        const request = demand?.kind === 'txn' ? demand.request : decodeTxn(command.request)
        const isRefused = this.alarms.has('nospace') && mayPut(request)
        const outcome = isRefused ? refused(refusals.noSpace) : yield* store.txnSlices(request)
        return { kind: 'txn', outcome }
      }
      case 'compact': {
        const outcome = store.compact(decodeCompaction(command.request).revision)
        if (outcome.ok) this.times.compact(store.compactRevision)
        return { kind: 'compact', outcome }
      }
      case 'restore': {
        if (this.alarms.has('nospace')) return { kind: 'restore', outcome: refused(refusals.noSpace) }
        const { changesMax, bytesMax } = command
        const request = { ...decodeRestore(command.request), changesMax, bytesMax }
        return { kind: 'restore', outcome: yield* store.restoreRangeSlices(request) }
      }
      case 'lease-grant':
        return this.#grant(command.id, command.ttl)
      case 'lease-revoke': {
        const outcome = yield* store.revokeLeaseSlices(command.id)
        if (outcome.ok) this.#listener.onLeaseGone?.(command.id)
        return { kind: 'lease-revoke', outcome }
      }
      case 'lease-expire': {
        // A former leader's count says nothing: the leases may have been renewed with its successor.
        if (command.term === term) {
          for (const id of command.ids) {
            const { ok } = yield* store.revokeLeaseSlices(id)
            if (ok) this.#listener.onLeaseGone?.(id)
          }
        }
        return { kind: 'lease-expire' }
      }
      case 'lease-checkpoint': {
        if (command.term === term) {
          for (const { id, remainingTtl } of command.leases) store.checkpointLease(id, remainingTtl)
        }
        return { kind: 'lease-checkpoint' }
      }
      case 'alarm': {
        const { member, alarm } = command
        if (!command.raise) return { kind: 'alarm', alarms: this.alarms.clear({ member, alarm }) }
        this.alarms.raise({ member, alarm })
        return { kind: 'alarm', alarms: [{ member, alarm }] }
      }
      case 'downgrade':
        this.#downgrade = command.target
        return { kind: 'downgrade' }
      case 'raise-version':
        if (command.version > storeVersion) throw newerStore(command.version)
        this.#version = Math.max(this.#version, command.version)
        if (command.isNew) this.times.begin()
        return { kind: 'raise-version' }
      case 'mark-time':
        this.times.add({ timeMs: command.timeMs, revision: store.revision })
        return { kind: 'mark-time' }
      case 'auth': {
        const refusal = this.auth.apply(command.change)
        if (refusal) return { kind: 'auth', outcome: refused(refusal) }
        this.#listener.onAuthChanged?.(command.change)
        return { kind: 'auth', outcome: accepted({ authRevision: this.auth.revision }) }
      }
      case 'authenticate':
        return this.#authenticate(command, index)
    }
  }

  /** What the password was compared with may be gone by now: it only counts for the revision it was looked up at. */
  #authenticate(command: Command & { kind: 'authenticate' }, index: number): Applied {
    const { name, authRevision, prefix } = command
    if (!this.auth.enabled) return { kind: 'authenticate', outcome: refused(authRefusals.notEnabled) }
    if (authRevision !== this.auth.revision) {
      return { kind: 'authenticate', outcome: refused(authRefusals.oldRevision) }
    }
    const token = `${prefix}.${index}`
    this.#listener.onTokenGiven?.(name, token)
    return { kind: 'authenticate', outcome: accepted({ token }) }
  }

  #grant(id: bigint, ttl: number): Applied {
    if (this.alarms.has('nospace')) return { kind: 'lease-grant', outcome: refused(refusals.noSpace) }
    const outcome = this.store.grantLease(id, ttl)
    if (!outcome.ok) return { kind: 'lease-grant', outcome }
    this.#listener.onLeaseGranted?.(id, ttl)
    return { kind: 'lease-grant', outcome: accepted({ id, ttl }) }
  }
}

/** A store that differs between members takes no more requests; alarms and what only the leader proposes go on. */
function whileCorrupt({ kind }: Command): Applied | undefined {
  switch (kind) {
    case 'put':
    case 'delete':
    case 'txn':
    case 'compact':
    case 'restore':
    case 'lease-grant':
    case 'lease-revoke':
      return { kind, outcome: refused(refusals.corrupt) }
    case 'lease-expire':
    case 'lease-checkpoint':
    case 'alarm':
    case 'downgrade':
    case 'auth':
    case 'authenticate':
    case 'raise-version':
    case 'mark-time':
      return undefined
  }
}

/** Whether a transaction could make the store larger. */
export function mayPut(request: TxnRequest): boolean {
  return [...request.success, ...request.failure].some(
    (op) => op.kind === 'put' || (op.kind === 'txn' && mayPut(op.request)),
  )
}

/** Lets other work run between two pieces. */
async function* withPauses(
  head: Uint8Array,
  pieces: Iterable<Uint8Array | ValueFetch>,
  values: ValueSource,
): AsyncGenerator<Uint8Array> {
  yield head
  for (const piece of pieces) {
    if (piece instanceof ValueFetch) {
      await values.read(piece)
      continue
    }
    yield piece
    await nextTurn()
  }
}

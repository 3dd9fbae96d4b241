import { accepted, type Outcome, type Refusal, refusals, refused } from './errors.ts'
import { History } from './history.ts'
import { type Key, toKey, toSpan } from './key.ts'
import { KeyIndex } from './key-index.ts'
import { type Lease, LeaseBook } from './lease-book.ts'
import { checkRevision, keyValue, range, recordAt, scanLive, type View } from './read.ts'
import type {
  DeleteRangeRequest,
  DeleteRangeResponse,
  KeyValue,
  PutRequest,
  PutResponse,
  RangeRequest,
  RangeResponse,
  RequestOp,
  ResponseOp,
  TxnRequest,
  TxnResponse,
} from './requests.ts'
import { choosePath, type TxnPath } from './txn-path.ts'

/** What a record costs besides its key and value. */
const recordOverheadBytes = 64
const nothing = new Uint8Array(0)

/**
 * Keys with their history, leases and what is attached to them. Every method is deterministic: members that apply
 * the same requests in the same order hold the same store. One write request is one revision (kv.md section 1).
 */
export class MvccStore {
  #index = new KeyIndex()
  #history = new History()
  #leases = new LeaseBook()
  #revision = 1
  #compactRevision = -1
  /** Changes made so far by the write that is going on. */
  #changes = 0

  get revision(): number {
    return this.#revision
  }
  get compactRevision(): number {
    return this.#compactRevision
  }
  get history(): History {
    return this.#history
  }
  get index(): KeyIndex {
    return this.#index
  }
  get leases(): LeaseBook {
    return this.#leases
  }
  /** Size that quotas count: the same on all members that applied the same. */
  get sizeBytes(): number {
    return this.#history.dataBytes + this.#history.count * recordOverheadBytes
  }

  range(request: RangeRequest): Outcome<RangeResponse> {
    return range(this.#view(), request)
  }

  /** The newest version of a key, if it exists. */
  get(key: Uint8Array): KeyValue | undefined {
    const record = this.#newest(toKey(key))
    return record < 0 ? undefined : keyValue(this.#history, record)
  }

  put(request: PutRequest): Outcome<PutResponse> {
    const refusal = this.#checkPut(request)
    if (refusal) return refused(refusal)
    return accepted(this.#finish(() => this.#put(request)))
  }

  deleteRange(request: DeleteRangeRequest): Outcome<DeleteRangeResponse> {
    return accepted(this.#finish(() => this.#deleteRange(request)))
  }

  /**
   * Applies a validated transaction as a whole or not at all. All compares, nested ones too, look at the state
   * before it; reads see its own writes.
   */
  txn(request: TxnRequest): Outcome<TxnResponse> {
    const path = choosePath(this.#view(), request)
    const refusal = this.#checkPath(path)
    if (refusal) return refused(refusal)
    return accepted(this.#finish(() => this.#runPath(path)))
  }

  /**
   * Forgets all versions that a read at `revision` or later does not see. A deletion exactly at `revision` stays
   * until the next compaction, for watchers that start there (kv.md section 2).
   */
  compact(revision: number): Outcome<{ revision: number }> {
    if (revision <= this.#compactRevision) return refused(refusals.compacted)
    if (revision > this.#revision) return refused(refusals.futureRevision)
    this.#compactRevision = revision
    const history = this.#history
    const firstAfter = history.fromRevision(revision + 1)
    const limit = firstAfter < 0 ? history.next : firstAfter
    const kept = new Set<number>()
    this.#index.filter((_key, newest) => {
      let above = -1
      let record = newest
      while (record >= limit) {
        above = record
        record = history.prev(record)
      }
      if (record < 0) return true
      const isKept = history.version(record) > 0 || history.revision(record) === revision
      if (isKept) {
        kept.add(record)
        history.cutPrev(record)
      } else if (above >= 0) history.cutPrev(above)
      return isKept || above >= 0
    })
    history.drop(limit, (record) => kept.has(record))
    return accepted({ revision: this.#revision })
  }

  grantLease(id: bigint, ttl: number): Outcome<Lease> {
    return this.#leases.grant(id, ttl)
  }

  /** Ends a lease and deletes its keys in one revision. */
  revokeLease(id: bigint): Outcome<{ revision: number }> {
    const lease = this.#leases.remove(id)
    if (!lease) return refused(refusals.leaseNotFound)
    const keys = [...lease.keys].sort()
    this.#finish(() => {
      for (const key of keys) this.#delete(key)
      return undefined
    })
    return accepted({ revision: this.#revision })
  }

  checkpointLease(id: bigint, remainingTtl: number): void {
    this.#leases.checkpoint(id, remainingTtl)
  }

  /** Replaces everything by what a snapshot holds. Called by `restoreSnapshot` only. */
  replace(state: {
    index: KeyIndex
    history: History
    leases: LeaseBook
    revision: number
    compactRevision: number
  }): void {
    this.#index = state.index
    this.#history = state.history
    this.#leases = state.leases
    this.#revision = state.revision
    this.#compactRevision = state.compactRevision
  }

  #view(): View {
    return {
      index: this.#index,
      history: this.#history,
      revision: this.#changes > 0 ? this.#revision + 1 : this.#revision,
      compactRevision: this.#compactRevision,
    }
  }

  /** Runs the body of a write; if it changed something, that is the next revision. */
  #finish<T>(body: () => T): T {
    this.#changes = 0
    const value = body()
    if (this.#changes > 0) this.#revision++
    this.#changes = 0
    return value
  }

  #newest(key: Key): number {
    const record = this.#index.get(key)
    return record === undefined ? -1 : recordAt(this.#history, record, Number.POSITIVE_INFINITY)
  }

  #checkPut(request: PutRequest): Refusal | undefined {
    if (request.lease && !this.#leases.has(request.lease)) return refusals.leaseNotFound
    if ((request.ignoreValue || request.ignoreLease) && this.#newest(toKey(request.key)) < 0) {
      return refusals.keyNotFound
    }
    return undefined
  }

  #checkPath(path: TxnPath): Refusal | undefined {
    for (const step of path.steps) {
      const refusal = step.inner ? this.#checkPath(step.inner) : this.#checkOp(step.op)
      if (refusal) return refusal
    }
    return undefined
  }

  #checkOp(op: RequestOp): Refusal | undefined {
    if (op.kind === 'put') return this.#checkPut(op.request)
    if (op.kind === 'range') return checkRevision(this.#view(), op.request.revision ?? 0)
    return undefined
  }

  #runPath(path: TxnPath): TxnResponse {
    const responses = path.steps.map(({ op, inner }) => this.#runOp(op, inner))
    return { revision: this.#view().revision, succeeded: path.succeeded, responses }
  }

  #runOp(op: RequestOp, inner: TxnPath | undefined): ResponseOp {
    switch (op.kind) {
      case 'range': {
        const outcome = this.range(op.request)
        if (!outcome.ok) throw new Error('assertion failed: a checked range is answered')
        return { kind: 'range', response: outcome.value }
      }
      case 'put':
        return { kind: 'put', response: this.#put(op.request) }
      case 'delete':
        return { kind: 'delete', response: this.#deleteRange(op.request) }
      case 'txn':
        return { kind: 'txn', response: this.#runPath(inner!) }
      case 'empty':
        throw new Error('assertion failed: a validated transaction has no empty operation')
    }
  }

  #put(request: PutRequest): PutResponse {
    const key = toKey(request.key)
    const before = this.#newest(key)
    const prevKv = request.prevKv && before >= 0 ? keyValue(this.#history, before) : undefined
    const value = request.ignoreValue ? this.#history.value(before) : request.value
    const leaseBefore = before < 0 ? 0n : this.#history.lease(before)
    const lease = request.ignoreLease ? leaseBefore : (request.lease ?? 0n)
    this.#append(key, value, before, lease)
    if (leaseBefore !== lease) {
      if (leaseBefore) this.#leases.detach(leaseBefore, key)
      if (lease) this.#leases.attach(lease, key)
    }
    return { revision: this.#revision + 1, prevKv }
  }

  #deleteRange(request: DeleteRangeRequest): DeleteRangeResponse {
    const view = this.#view()
    const records: number[] = []
    scanLive(view, toSpan(request.key, request.rangeEnd), view.revision, (record) => {
      records.push(record)
      return true
    })
    const prevKvs = request.prevKv ? records.map((record) => keyValue(this.#history, record)) : []
    for (const record of records) this.#delete(this.#history.key(record))
    return { revision: this.#view().revision, deleted: records.length, prevKvs }
  }

  #delete(key: Key): void {
    const before = this.#newest(key)
    if (before < 0) return
    const lease = this.#history.lease(before)
    if (lease) this.#leases.detach(lease, key)
    this.#append(key, undefined, before, 0n)
  }

  /** One more version; a deletion is one without a value. `before` is the live version, -1 for none. */
  #append(key: Key, value: Uint8Array | undefined, before: number, lease: bigint): void {
    const revision = this.#revision + 1
    const previous = before >= 0 ? this.#history.fields(before) : undefined
    const record = this.#history.append(
      {
        key: previous?.key ?? key,
        revision,
        sub: this.#changes++,
        createRevision: value === undefined ? 0 : (previous?.createRevision ?? revision),
        version: value === undefined ? 0 : (previous?.version ?? 0) + 1,
        lease,
        prev: this.#index.get(key) ?? -1,
      },
      value ?? nothing,
    )
    this.#index.set(key, record)
  }
}

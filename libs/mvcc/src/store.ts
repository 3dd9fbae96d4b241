import { accepted, type Outcome, type Refusal, refusals, refused } from './errors.ts'
import { History, type PinnedRecord } from './history.ts'
import { planRestore, type RestoreRequest } from './history-read.ts'
import { fromKey, type Key, toKey, toSpan } from './key.ts'
import { KeyIndex } from './key-index.ts'
import { type Lease, LeaseBook } from './lease-book.ts'
import { checkRevision, rangeSlices, rangeWithin, recordAt, scanLive, type View } from './read.ts'
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
import { defaultSizes, type StoreSizes } from './sizes.ts'
import { inOnePiece, type Slices, sortSlices } from './slices.ts'
import { StoreCounts } from './store-counts.ts'
import { choosePath, isWriting, readPath, type TxnPath } from './txn-path.ts'
import { ValueFetch, ValueMemory } from './value-memory.ts'
import { ValueReader } from './value-reader.ts'

/** What a record costs besides its key and value. */
const recordOverheadBytes = 64
const nothing = new Uint8Array(0)

/**
 * Keys with their history, leases and what is attached to them. Every method is deterministic: members that apply
 * the same requests in the same order hold the same store. One write request is one revision (kv.md section 1). A write in
 * slices is not seen by reads before it is complete, and no other write may come in between.
 */
export class MvccStore {
  readonly sizes: StoreSizes
  /** What of the values is in memory. */
  readonly memory = new ValueMemory()
  readonly counts = new StoreCounts()
  #history: History
  #index: KeyIndex
  #leases = new LeaseBook()
  #revision = 1
  #compactRevision = -1
  /** Changes made so far by the write that is going on. */
  #changes = 0
  /** Revisions that reads in slices look at, with how many they are. */
  readonly #pins = new Map<number, number>()
  /** How far `reclaim` is: the compaction it works on, and the record it goes on with. */
  #reclaiming = { revision: -1, next: -1 }

  constructor(sizes: Partial<StoreSizes> = {}) {
    this.sizes = { ...defaultSizes, ...sizes }
    this.#history = new History(this.sizes, this.memory)
    this.#index = new KeyIndex(this.#history, this.sizes.leafKeys)
  }

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
  /** Size that quotas count: what is held, so it falls as memory of compacted versions is freed. */
  get sizeBytes(): number {
    return this.#history.dataBytes + this.#history.count * recordOverheadBytes
  }

  range(request: RangeRequest): Outcome<RangeResponse> {
    const kvs: KeyValue[] = []
    const slices = this.rangeSlices(request)
    for (;;) {
      const step = slices.next()
      if (!step.done) {
        if (step.value instanceof ValueFetch) throw new Error('assertion failed: all values are in memory')
        kvs.push(...step.value)
      } else if (!step.value.ok || kvs.length === 0) return step.value
      else return accepted({ ...step.value.value, kvs: [...kvs, ...step.value.value.kvs] })
    }
  }

  /**
   * The same in slices, at the revision of the first one whatever is written meanwhile. Pairs come with the slices, in order;
   * the last ones with the answer. Must be run to its end or ended by `return`.
   */
  *rangeSlices(request: RangeRequest): Generator<KeyValue[] | ValueFetch, Outcome<RangeResponse>> {
    const view = this.#view()
    const refusal = checkRevision(view, request.revision ?? 0)
    if (refusal) return refused(refusal)
    const release = this.pin(request.revision || view.revision)
    this.counts.ranges++
    try {
      return yield* rangeSlices(view, request)
    } finally {
      release()
    }
  }

  /** Runs a read of history in slices, at the revision of the first one; `oldest` is the earliest revision it looks at. */
  *lookSlices<T>(oldest: number, read: (view: View) => Slices<T>): Slices<T> {
    const release = this.pin(Math.max(oldest, this.#compactRevision))
    try {
      return yield* read(this.#view())
    } finally {
      release()
    }
  }

  /** Keeps what a read at `revision` sees in memory until the function it answers is called. */
  pin(revision: number): () => void {
    const pins = this.#pins
    pins.set(revision, (pins.get(revision) ?? 0) + 1)
    return () => {
      const left = pins.get(revision)! - 1
      if (left > 0) pins.set(revision, left)
      else pins.delete(revision)
    }
  }

  /** The versions a compacted store has, in the order of their revisions, as of now; to be read in slices; a fetch comes before the versions it is for. */
  versions(): Generator<PinnedRecord | ValueFetch, void> {
    return this.#history.pinned(this.#revision)
  }

  /** The newest version of a key, if it exists. */
  get(key: Uint8Array): KeyValue | undefined {
    const record = recordAt(this.#history, this.#index.get(toKey(key)), this.#revision)
    return record < 0 ? undefined : this.#history.keyValue(record)
  }

  put(request: PutRequest): Outcome<PutResponse> {
    const refusal = this.#checkPut(request)
    if (refusal) return refused(refusal)
    this.#changes = 0
    const response = this.#put(request)
    this.#finish()
    return accepted(response)
  }

  /** The same for a put that may need the value before it. */
  *putSlices(request: PutRequest): Slices<Outcome<PutResponse>> {
    const refusal = this.#checkPut(request)
    if (refusal) return refused(refusal)
    const before = this.#isFetching(request) ? yield* this.#valueBefore(request) : undefined
    this.#changes = 0
    const response = this.#put(request, before)
    this.#finish()
    return accepted(response)
  }

  deleteRange(request: DeleteRangeRequest): Outcome<DeleteRangeResponse> {
    return inOnePiece(this.deleteRangeSlices(request))
  }

  *deleteRangeSlices(request: DeleteRangeRequest): Slices<Outcome<DeleteRangeResponse>> {
    this.#changes = 0
    const response = yield* this.#deleteRange(request)
    this.#finish()
    return accepted({ ...response, revision: this.#revision })
  }

  /**
   * Applies a validated transaction as a whole or not at all. All compares, nested ones too, look at the state
   * before it; reads see its own writes.
   */
  txn(request: TxnRequest): Outcome<TxnResponse> {
    return inOnePiece(this.txnSlices(request))
  }

  /** One whose path only reads may run beside writes: it sees the revision at which it began. */
  *txnSlices(request: TxnRequest): Slices<Outcome<TxnResponse>> {
    const view = this.#view()
    const release = this.pin(view.revision)
    try {
      const path = yield* choosePath(view, request)
      const refusal = this.#checkPath(path)
      if (refusal) return refused(refusal)
      this.counts.addTxn(path)
      if (!isWriting(path)) return accepted(yield* readPath(view, path))
      this.#changes = 0
      const response = yield* this.#runPath(path)
      this.#finish()
      return accepted(response)
    } finally {
      release()
    }
  }

  /**
   * Forgets all versions that a read at `revision` or later does not see. A deletion exactly at `revision` stays
   * until the next compaction, for watchers that start there (kv.md section 2). Nothing answers what is forgotten from now on;
   * `reclaim` frees its memory.
   */
  compact(revision: number): Outcome<{ revision: number }> {
    if (revision <= this.#compactRevision) return refused(refusals.compacted)
    if (revision > this.#revision) return refused(refusals.futureRevision)
    this.#compactRevision = revision
    this.#history.compact(revision)
    return accepted({ revision: this.#revision })
  }

  /** Whether `reclaim` has something to do, now or when a read that looks at it has ended. */
  get isReclaimPending(): boolean {
    return this.#reclaiming.next >= 0 || this.#reclaiming.revision < this.#compactRevision
  }

  /**
   * Frees what the compaction has forgotten among the next `recordsMax` or more versions. True if it can go on at once: not
   * when all is done, nor when reads still look at the rest.
   */
  reclaim(recordsMax: number): boolean {
    return inOnePiece(this.reclaimSlices(recordsMax))
  }

  /** The same where values may not be in memory. It must have ended before it is called again. */
  *reclaimSlices(recordsMax: number): Slices<boolean> {
    const history = this.#history
    let target = this.#compactRevision
    for (const revision of this.#pins.keys()) target = Math.min(target, revision)
    let { revision: goal, next: at } = this.#reclaiming
    // A pass is finished before the next one begins. A later pin is of a later revision than what the pass is for.
    if (at < 0) {
      if (target <= goal) return false
      goal = target
      at = 0
    }
    for (let left = recordsMax; left > 0 && at >= 0; left -= this.sizes.chunkRecords) {
      at = yield* history.free(at, goal, (record, key) => {
        if (this.#index.get(key) === record) this.#index.delete(key)
      })
      // Another history came in its place meanwhile.
      if (history !== this.#history) return this.isReclaimPending
    }
    this.#reclaiming = { revision: goal, next: at }
    return at >= 0 || goal < target
  }

  /** Makes a range what it was as of a revision, in one revision; keys that are put belong to no lease. */
  *restoreRangeSlices(
    request: RestoreRequest,
  ): Slices<Outcome<{ revision: number; put: number; deleted: number }>> {
    const planned = yield* planRestore(this.#view(), request)
    if (!planned.ok) return planned
    this.#changes = 0
    let put = 0
    const records = planned.value.map(({ from }) => from).filter((from) => from >= 0)
    const values = new ValueReader(this.#view(), records)
    for (const [at, { key, from }] of planned.value.entries()) {
      if (from < 0) this.#delete(key)
      else {
        const value: Buffer = values.take(put) ?? (yield* values.more(put))
        put++
        this.#put({ key: fromKey(key), value })
      }
      if ((at + 1) % this.sizes.sliceRecords === 0) yield
    }
    this.#finish()
    return accepted({ revision: this.#revision, put, deleted: planned.value.length - put })
  }

  grantLease(id: bigint, ttl: number): Outcome<Lease> {
    const outcome = this.#leases.grant(id, ttl)
    if (outcome.ok) this.counts.leasesGranted++
    return outcome
  }

  /** Ends a lease and deletes its keys in one revision. */
  revokeLease(id: bigint): Outcome<{ revision: number }> {
    return inOnePiece(this.revokeLeaseSlices(id))
  }

  *revokeLeaseSlices(id: bigint): Slices<Outcome<{ revision: number }>> {
    const lease = this.#leases.get(id)
    if (!lease) return refused(refusals.leaseNotFound)
    const keys = yield* sortSlices([...lease.keys], byKey, this.sizes.sliceRecords)
    this.#changes = 0
    for (const key of keys) {
      this.#delete(key)
      if (this.#changes % this.sizes.sliceRecords === 0) yield
    }
    this.#leases.remove(id)
    this.counts.leasesRevoked++
    this.#finish()
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
    this.#history.dispose()
    this.#index = state.index
    this.#history = state.history
    this.#leases = state.leases
    this.#revision = state.revision
    this.#compactRevision = state.compactRevision
    this.#history.compact(state.compactRevision)
    // A snapshot has nothing that a compaction has forgotten.
    this.#reclaiming = { revision: state.compactRevision, next: -1 }
  }

  /** What reads see: not the write that is going on. */
  #view(): View {
    return {
      index: this.#index,
      history: this.#history,
      revision: this.#revision,
      compactRevision: this.#compactRevision,
      sliceRecords: this.sizes.sliceRecords,
    }
  }

  /** What the write that is going on sees: its own changes too. */
  #ownView(): View {
    return { ...this.#view(), revision: this.#changes > 0 ? this.#revision + 1 : this.#revision }
  }

  /** If the write changed something, that is the next revision. */
  #finish(): void {
    if (this.#changes > 0) this.#revision++
    this.#changes = 0
  }

  #newest(key: Key): number {
    return recordAt(this.#history, this.#index.get(key), Number.POSITIVE_INFINITY)
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

  *#runPath(path: TxnPath): Slices<TxnResponse> {
    const responses: ResponseOp[] = []
    for (const { op, inner } of path.steps) responses.push(yield* this.#runOp(op, inner))
    return { revision: this.#ownView().revision, succeeded: path.succeeded, responses }
  }

  *#runOp(op: RequestOp, inner: TxnPath | undefined): Slices<ResponseOp> {
    switch (op.kind) {
      case 'range':
        return { kind: 'range', response: yield* rangeWithin(this.#ownView(), op.request) }
      case 'put':
        return {
          kind: 'put',
          response: this.#put(
            op.request,
            this.#isFetching(op.request) ? yield* this.#valueBefore(op.request) : undefined,
          ),
        }
      case 'delete':
        return { kind: 'delete', response: yield* this.#deleteRange(op.request) }
      case 'txn':
        return { kind: 'txn', response: yield* this.#runPath(inner!) }
      case 'empty':
        throw new Error('assertion failed: a validated transaction has no empty operation')
    }
  }

  /** Whether a put needs the value before it, which may not be in memory. */
  #isFetching({ prevKv, ignoreValue }: PutRequest): boolean {
    return this.#history.hasOut && !!(prevKv || ignoreValue)
  }

  *#valueBefore({ key }: PutRequest): Slices<Buffer | undefined> {
    const before = this.#newest(toKey(key))
    if (before < 0) return undefined
    const fetch = new ValueFetch()
    this.#history.want(fetch, before)
    if (fetch.wants.length > 0) yield fetch
    return fetch.complete[0]
  }

  /** `valueBefore` is the value before it, if that was fetched. */
  #put(request: PutRequest, valueBefore?: Buffer): PutResponse {
    const key = toKey(request.key)
    const before = this.#newest(key)
    const prevKv = request.prevKv && before >= 0 ? this.#history.keyValue(before, !!valueBefore) : undefined
    if (prevKv && valueBefore) prevKv.value = valueBefore
    const value = request.ignoreValue ? (valueBefore ?? this.#history.value(before)) : request.value
    const leaseBefore = before < 0 ? 0n : this.#history.lease(before)
    const lease = request.ignoreLease ? leaseBefore : (request.lease ?? 0n)
    this.counts.puts++
    this.counts.putBytes += key.length + value.length
    this.#append(key, value, before, lease)
    if (leaseBefore !== lease) {
      if (leaseBefore) this.#leases.detach(leaseBefore, key)
      if (lease) this.#leases.attach(lease, key)
    }
    return { revision: this.#revision + 1, prevKv }
  }

  *#deleteRange(request: DeleteRangeRequest): Slices<DeleteRangeResponse> {
    const view = this.#ownView()
    const { sliceRecords } = view
    this.counts.deletes++
    const records: number[] = []
    yield* scanLive(view, toSpan(request.key, request.rangeEnd), view.revision, (record) => {
      records.push(record)
      return true
    })
    const prevKvs: KeyValue[] = []
    const values = new ValueReader(view, request.prevKv ? records : [])
    for (const [at, record] of records.entries()) {
      if (request.prevKv) {
        const value: Buffer = values.take(at) ?? (yield* values.more(at))
        prevKvs.push({ ...this.#history.keyValue(record, true), value })
      }
      this.#delete(this.#history.key(record))
      if ((at + 1) % sliceRecords === 0 && at + 1 < records.length) yield
    }
    return { revision: this.#ownView().revision, deleted: records.length, prevKvs }
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
    const history = this.#history
    const revision = this.#revision + 1
    const isPut = value !== undefined
    const record = history.append(
      {
        key,
        revision,
        sub: this.#changes++,
        createRevision: !isPut ? 0 : before >= 0 ? history.createRevision(before) : revision,
        version: !isPut ? 0 : before >= 0 ? history.version(before) + 1 : 1,
        lease,
        prev: this.#index.get(key),
      },
      value ?? nothing,
    )
    this.#index.set(key, record)
  }
}

const byKey = (a: Key, b: Key): number => (a < b ? -1 : a > b ? 1 : 0)

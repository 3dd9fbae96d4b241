import {
  appendTo,
  type Chunk,
  compareKeyAt,
  compareValues,
  copyTo,
  emptyChunk,
  fieldsAt,
  isOutAt,
  isRetainedAt,
  keyAt,
  keyBytesAt,
  keyValueAt,
  leaseAt,
  lowerBound,
  type RecordFields,
  recordAtSlot,
  type Slabs,
  slabOf,
  slotOf,
  valueAt,
  valuesAt,
  wantAt,
} from './chunk.ts'
import type { Key } from './key.ts'
import type { KeyValue } from './requests.ts'
import { defaultSizes, type StoreSizes } from './sizes.ts'
import { SlabWriter, ValueWriter } from './slab.ts'
import { ValueFetch, ValueMemory } from './value-memory.ts'

/** A version as it is read in order. `keyBytes` and `value` are views that stay valid and must not be written to. */
export type PinnedRecord = { fields: RecordFields; keyBytes: Buffer; value: Buffer }

/** Values looked at together: records, and bytes. */
const windowRecords = 512
const windowBytes = 1 << 20

/** All versions since the last compaction in the order they were written, numbered without reuse. */
export class History {
  readonly #sizes: StoreSizes
  /** In the order of their records. */
  #chunks: Chunk[] = []
  /**
   * The chunk of a record by the aligned range of its number, so that finding one is no search. Chunks that a compaction merged
   * stand under each range they have a record of.
   */
  readonly #byRange = new Map<number, Chunk>()
  readonly #slabs: Slabs
  readonly #memory: ValueMemory
  #next = 0
  #count = 0
  #dataBytes = 0
  /** Versions that only reads below this revision see are gone, though they may not be freed yet. */
  #compactRevision = -1

  constructor(sizes: StoreSizes = defaultSizes, memory = new ValueMemory()) {
    this.#sizes = sizes
    this.#memory = memory
    this.#slabs = {
      keys: new SlabWriter(sizes.slabBytes),
      values: new ValueWriter(memory, sizes.slabBytes),
    }
  }

  /** Number that the next record will have. */
  get next(): number {
    return this.#next
  }
  /** Versions that take memory: those not freed yet included. */
  get count(): number {
    return this.#count
  }
  /** Bytes of all keys and values held: what of the store's size does not depend on the runtime. */
  get dataBytes(): number {
    return this.#dataBytes
  }
  get compactRevision(): number {
    return this.#compactRevision
  }

  append(fields: RecordFields, value: Uint8Array): number {
    let chunk = this.#chunks[this.#chunks.length - 1]
    if (!chunk || chunk.numbers || chunk.count === chunk.capacity) chunk = this.#begin()
    const record = this.#next++
    appendTo(chunk, record, fields, value, this.#slabs)
    if (fields.prev >= 0) {
      const before = this.#find(fields.prev)
      before.untils[slotOf(before, fields.prev)] = fields.revision
    }
    this.#count++
    this.#dataBytes += fields.key.length + value.length
    return record
  }

  has(record: number): boolean {
    const chunk = this.#byRange.get(Math.floor(record / this.#sizes.chunkRecords))
    if (!chunk) return false
    const slot = slotOf(chunk, record)
    return slot < chunk.count && recordAtSlot(chunk, slot) === record
  }
  key(record: number): Key {
    const chunk = this.#find(record)
    return keyAt(chunk, slotOf(chunk, record))
  }
  keyBytes(record: number): Buffer {
    const chunk = this.#find(record)
    return keyBytesAt(chunk, slotOf(chunk, record))
  }
  revision(record: number): number {
    const chunk = this.#find(record)
    return chunk.revisions[slotOf(chunk, record)]!
  }
  createRevision(record: number): number {
    const chunk = this.#find(record)
    return chunk.creates[slotOf(chunk, record)]!
  }
  version(record: number): number {
    const chunk = this.#find(record)
    return chunk.versions[slotOf(chunk, record)]!
  }
  /** The version before, -1 if there is none any more. */
  prev(record: number): number {
    const chunk = this.#find(record)
    const prev = chunk.prevs[slotOf(chunk, record)]!
    return prev >= 0 && this.has(prev) ? prev : -1
  }
  lease(record: number): bigint {
    const chunk = this.#find(record)
    return leaseAt(chunk, slotOf(chunk, record))
  }
  fields(record: number): RecordFields {
    const chunk = this.#find(record)
    return fieldsAt(chunk, slotOf(chunk, record))
  }
  /** Bytes of key and value. */
  dataBytesOf(record: number): number {
    const chunk = this.#find(record)
    const slot = slotOf(chunk, record)
    return chunk.keyLengths[slot]! + chunk.valueLengths[slot]!
  }
  /** Whether any value may have to be fetched. */
  get hasOut(): boolean {
    return this.#memory.outBytes > 0
  }
  /** Whether the value has to be fetched. */
  isOut(record: number): boolean {
    const chunk = this.#find(record)
    return isOutAt(chunk, slotOf(chunk, record))
  }
  valueBytesOf(record: number): number {
    const chunk = this.#find(record)
    return chunk.valueLengths[slotOf(chunk, record)]!
  }
  /** Adds the value of a record to what is fetched. */
  want(fetch: ValueFetch, record: number): void {
    const chunk = this.#find(record)
    wantAt(fetch, chunk, slotOf(chunk, record))
  }
  /**
   * The values of the next records from `from` on, as many as one slice takes and at least one; those that are not in memory are
   * fetched.
   */
  *values(records: readonly number[], from: number, max: { records: number; bytes: number }) {
    const fetch = new ValueFetch()
    let bytes = 0
    for (let at = from; at < records.length && at - from < max.records && bytes < max.bytes; at++) {
      this.want(fetch, records[at]!)
      bytes += this.valueBytesOf(records[at]!)
    }
    if (fetch.wants.length > 0) yield fetch
    return fetch.complete
  }
  /** A view that stays valid: it must not be written to. */
  value(record: number): Buffer {
    const chunk = this.#find(record)
    return valueAt(chunk, slotOf(chunk, record))
  }
  keyValue(record: number, keysOnly = false): KeyValue {
    const chunk = this.#find(record)
    return keyValueAt(chunk, slotOf(chunk, record), keysOnly)
  }
  /** Order of the values of two records. */
  compareValues(a: number, b: number): number {
    const chunkA = this.#find(a)
    const chunkB = this.#find(b)
    return compareValues(chunkA, slotOf(chunkA, a), chunkB, slotOf(chunkB, b))
  }
  /** Order of a record's key and another key, as of `a - b`. */
  compareKey(record: number, other: Key): number {
    const chunk = this.#find(record)
    return compareKeyAt(chunk, slotOf(chunk, record), other)
  }

  /** The first record at or after `record`, -1 if there is none: how to walk on over compacted gaps. */
  atOrAfter(record: number): number {
    if (record >= this.#next) return -1
    for (let at = Math.max(0, this.#placeOf(record)); at < this.#chunks.length; at++) {
      const chunk = this.#chunks[at]!
      const slot = slotOf(chunk, record)
      if (slot < chunk.count) return recordAtSlot(chunk, slot)
    }
    return -1
  }

  /** The first record whose revision is at least `revision`, -1 if there is none. */
  fromRevision(revision: number): number {
    let low = 0
    let high = this.#chunks.length
    while (low < high) {
      const middle = (low + high) >> 1
      const chunk = this.#chunks[middle]!
      if (chunk.revisions[chunk.count - 1]! < revision) low = middle + 1
      else high = middle
    }
    const chunk = this.#chunks[low]
    return chunk ? recordAtSlot(chunk, lowerBound(chunk.revisions, chunk.count, revision)) : -1
  }

  /** From now on reads below `revision` are not answered. `free` gives the memory back. */
  compact(revision: number): void {
    this.#compactRevision = revision
  }

  /** How many `pinned` would read. */
  pinnedCount(revisionMax = Number.POSITIVE_INFINITY): number {
    let count = 0
    for (const chunk of this.#chunks) {
      for (let slot = 0; slot < chunk.count; slot++) {
        if (chunk.revisions[slot]! <= revisionMax && isRetainedAt(chunk, slot, this.#compactRevision)) count++
      }
    }
    return count
  }

  /**
   * The versions up to a revision that a store compacted as now has, as they are now, to be read in slices while writes and
   * compactions go on: chunks are replaced when memory is freed, never changed.
   */
  pinned(revisionMax = Number.POSITIVE_INFINITY): Generator<PinnedRecord | ValueFetch, void> {
    const until = { record: this.#next, revision: revisionMax }
    return readPinned([...this.#chunks], until, this.#compactRevision)
  }

  /**
   * Frees what a store compacted at `revision` does not have, in the chunk of `from` or the next one there is; answers
   * where to go on, -1 when all is done. `dropped` hears of each version that is still the newest of its key: a deletion. Values
   * that are left over in a slab outside memory are fetched and written anew, so that its place can be used again.
   */
  *free(
    from: number,
    revision: number,
    dropped: (record: number, key: Key) => void,
  ): Generator<ValueFetch, number> {
    const fetched = new Map<number, Buffer>()
    // While something is fetched more can be written to the chunk, and leave memory.
    while (this.hasOut && (yield* this.#fetchLeftOvers(from, revision, fetched)));
    const place = Math.max(0, this.#placeOf(from))
    const chunk = this.#chunks[place]
    if (!chunk || chunk.revisions[0]! > revision) return -1
    const kept: number[] = []
    for (let slot = 0; slot < chunk.count; slot++) {
      if (isRetainedAt(chunk, slot, revision)) {
        kept.push(slot)
        continue
      }
      this.#count--
      this.#dataBytes -= chunk.keyLengths[slot]! + chunk.valueLengths[slot]!
      this.#memory.release(slabOf(chunk, slot), chunk.valueLengths[slot]!)
      if (chunk.untils[slot] === Number.POSITIVE_INFINITY) {
        dropped(recordAtSlot(chunk, slot), keyAt(chunk, slot))
      }
    }
    const next = this.#chunks[place + 1]?.first ?? -1
    if (kept.length < chunk.count) this.#replace(place, kept, fetched)
    return next
  }

  /** Fetches what is kept of a chunk in slabs of which less than half is; false if there is nothing of that. */
  *#fetchLeftOvers(
    from: number,
    revision: number,
    fetched: Map<number, Buffer>,
  ): Generator<ValueFetch, boolean> {
    const place = Math.max(0, this.#placeOf(from))
    const chunk = this.#chunks[place]
    if (!chunk || chunk.revisions[0]! > revision) return false
    const kept: number[] = []
    for (let slot = 0; slot < chunk.count; slot++) if (isRetainedAt(chunk, slot, revision)) kept.push(slot)
    if (kept.length === chunk.count) return false
    const before = this.#chunks[place - 1]
    const joined = before && kept.length > 0 && this.#joins(before, kept.length) ? [before] : []
    let isMore = false
    for (const source of [...joined, chunk]) {
      const slots = source === chunk ? kept : Array.from({ length: source.count }, (_, at) => at)
      const left = slots.filter((slot) => {
        const { live, size } = slabOf(source, slot)
        return live * 2 < size && isOutAt(source, slot) && !fetched.has(recordAtSlot(source, slot))
      })
      if (left.length === 0) continue
      isMore = true
      const values = yield* valuesAt(source, left)
      left.forEach((slot, at) => void fetched.set(recordAtSlot(source, slot), values[at]!))
    }
    return isMore
  }

  /** Whether what is kept of a chunk goes behind the one before it. */
  #joins(before: Chunk, kept: number): boolean {
    return before.numbers !== undefined && before.count + kept <= this.#sizes.chunkRecords
  }

  /** Gives up all values: another history takes the place of this one. */
  dispose(): void {
    this.#slabs.values.end()
    for (const { values } of this.#chunks) for (const slab of values) this.#memory.drop(slab)
  }

  /** Puts what is left of a chunk into one of the right size, or behind what is left of the chunk before it. */
  #replace(place: number, kept: number[], fetched: ReadonlyMap<number, Buffer>): void {
    const chunk = this.#chunks[place]!
    // Numbers go on in a range of their own.
    const isTail = place === this.#chunks.length - 1
    const { chunkRecords } = this.#sizes
    if (isTail) this.#next = Math.ceil(this.#next / chunkRecords) * chunkRecords
    this.#forget(chunk)
    if (kept.length === 0) {
      this.#chunks.splice(place, 1)
      return
    }
    const before = this.#chunks[place - 1]
    const joins = before !== undefined && this.#joins(before, kept.length)
    const sources = joins ? [before, chunk] : [chunk]
    const size = joins ? before.count + kept.length : kept.length
    const packed = emptyChunk(joins ? before.first : recordAtSlot(chunk, kept[0]!), size, true)
    const slabBytes = Math.min(this.#sizes.slabBytes, 16 * 1024)
    const slabs = { keys: new SlabWriter(slabBytes), values: new ValueWriter(this.#memory, slabBytes) }
    for (const source of sources) {
      const slots = source === chunk ? kept : Array.from({ length: source.count }, (_, at) => at)
      for (const slot of slots) {
        const value = fetched.get(recordAtSlot(source, slot))
        if (!copyTo(packed, { chunk: source, slot, value }, slabs)) continue
        this.#memory.release(slabOf(source, slot), source.valueLengths[slot]!)
      }
    }
    slabs.values.end()
    if (joins) {
      this.#forget(before)
      this.#chunks.splice(place - 1, 2, packed)
    } else this.#chunks[place] = packed
    for (let slot = 0; slot < packed.count; slot++) {
      this.#byRange.set(Math.floor(packed.numbers![slot]! / chunkRecords), packed)
    }
  }

  #forget(chunk: Chunk): void {
    const { chunkRecords } = this.#sizes
    for (let slot = 0; slot < chunk.count; slot++) {
      this.#byRange.delete(Math.floor(recordAtSlot(chunk, slot) / chunkRecords))
    }
  }

  #begin(): Chunk {
    const { chunkRecords } = this.#sizes
    const chunk = emptyChunk(this.#next, chunkRecords, false)
    this.#chunks.push(chunk)
    this.#byRange.set(this.#next / chunkRecords, chunk)
    return chunk
  }

  #find(record: number): Chunk {
    const chunk = this.#byRange.get(Math.floor(record / this.#sizes.chunkRecords))
    if (chunk) {
      if (!chunk.numbers) {
        if (record - chunk.first < chunk.count) return chunk
      } else if (chunk.numbers[slotOf(chunk, record)] === record) return chunk
    }
    throw new Error(`assertion failed: record ${record} is in the history`)
  }

  /** Place of the last chunk whose first record is not above `record`; -1 if there is none. */
  #placeOf(record: number): number {
    let low = -1
    let high = this.#chunks.length - 1
    if (high >= 0 && this.#chunks[high]!.first <= record) return high
    while (low < high) {
      const middle = (low + high + 1) >> 1
      if (this.#chunks[middle]!.first <= record) low = middle
      else high = middle - 1
    }
    return low
  }
}

function* readPinned(
  chunks: Chunk[],
  until: { record: number; revision: number },
  compactRevision: number,
): Generator<PinnedRecord | ValueFetch, void> {
  for (const chunk of chunks) {
    for (let slot = 0; slot < chunk.count; ) {
      const slots: number[] = []
      let bytes = 0
      for (; slot < chunk.count && slots.length < windowRecords && bytes < windowBytes; slot++) {
        if (recordAtSlot(chunk, slot) >= until.record || chunk.revisions[slot]! > until.revision) break
        if (!isRetainedAt(chunk, slot, compactRevision)) continue
        slots.push(slot)
        bytes += chunk.valueLengths[slot]!
      }
      const isEnd = slot < chunk.count && slots.length < windowRecords && bytes < windowBytes
      const values = yield* valuesAt(chunk, slots)
      for (const [at, each] of slots.entries()) {
        yield { fields: fieldsAt(chunk, each), keyBytes: keyBytesAt(chunk, each), value: values[at]! }
      }
      if (isEnd) return
    }
  }
}

import type { Key } from './key.ts'

/** One version of one key. `version` 0 is a deletion; `prev` is the record of the version before, or -1. */
export type RecordFields = {
  key: Key
  revision: number
  /** Place among the changes of one revision. */
  sub: number
  createRevision: number
  version: number
  lease: bigint
  prev: number
}

export type PinnedRecord = { fields: RecordFields; value: Uint8Array }

const chunkRecordsMax = 1024
const chunkBytesMax = 1 << 20

/**
 * A run of records in columns, so that a version costs some 60 bytes and its value, and no object. `numbers` is
 * undefined while no record between first and last is missing.
 */
type Chunk = {
  first: number
  count: number
  numbers: Float64Array | undefined
  keys: Key[]
  revisions: Float64Array
  subs: Uint32Array
  creates: Float64Array
  versions: Float64Array
  leases: BigInt64Array
  prevs: Float64Array
  /** Value i is bytes[ends[i-1], ends[i]). Written bytes never change, so views may be handed out. */
  ends: Uint32Array
  bytes: Uint8Array
}

/** All versions since the last compaction in the order they were written, numbered without reuse. */
export class History {
  #chunks: Chunk[] = []
  #next = 0
  #live = 0
  #dataBytes = 0

  /** Number that the next record will have. */
  get next(): number {
    return this.#next
  }
  get count(): number {
    return this.#live
  }
  /** Bytes of all keys and values held: what of the store's size does not depend on the runtime. */
  get dataBytes(): number {
    return this.#dataBytes
  }

  append(fields: RecordFields, value: Uint8Array): number {
    let chunk = this.#chunks.at(-1)
    if (!chunk || isFull(chunk, value.length, this.#next)) {
      if (chunk) seal(chunk)
      chunk = emptyChunk(this.#next, chunkRecordsMax)
      this.#chunks.push(chunk)
    }
    put(chunk, this.#next, fields, value)
    this.#live++
    this.#dataBytes += fields.key.length + value.length
    return this.#next++
  }

  key(record: number): Key {
    const [chunk, at] = this.#find(record)
    return chunk.keys[at]!
  }
  revision(record: number): number {
    const [chunk, at] = this.#find(record)
    return chunk.revisions[at]!
  }
  version(record: number): number {
    const [chunk, at] = this.#find(record)
    return chunk.versions[at]!
  }
  prev(record: number): number {
    const [chunk, at] = this.#find(record)
    return chunk.prevs[at]!
  }
  lease(record: number): bigint {
    const [chunk, at] = this.#find(record)
    return chunk.leases[at]!
  }
  fields(record: number): RecordFields {
    const [chunk, at] = this.#find(record)
    return fieldsAt(chunk, at)
  }
  /** A view that stays valid: it must not be written to. */
  value(record: number): Uint8Array {
    const [chunk, at] = this.#find(record)
    return chunk.bytes.subarray(at === 0 ? 0 : chunk.ends[at - 1]!, chunk.ends[at]!)
  }

  /** The first record at or after `record`, -1 if there is none: how to walk on over compacted gaps. */
  atOrAfter(record: number): number {
    if (record >= this.#next) return -1
    let at = this.#chunkOf(record)
    if (at < 0) at = 0
    for (; at < this.#chunks.length; at++) {
      const chunk = this.#chunks[at]!
      const slot = slotOf(chunk, record)
      if (slot < chunk.count) return chunk.numbers?.[slot] ?? chunk.first + slot
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
    if (!chunk) return -1
    const slot = lowerBound(chunk.revisions, chunk.count, revision)
    return chunk.numbers?.[slot] ?? chunk.first + slot
  }

  /** Marks the end of a chain: the version before this one was compacted away. */
  cutPrev(record: number): void {
    const [chunk, at] = this.#find(record)
    chunk.prevs[at] = -1
  }

  /**
   * The records as they are now, to be read in slices while writes and compactions go on: chunks are replaced by a
   * compaction, never changed, but for links to versions that went.
   */
  pinned(): Generator<PinnedRecord, void> {
    return readPinned([...this.#chunks], this.#next)
  }

  /** Drops all records below `limit` for which `keep` answers false; numbers of the others stay. */
  drop(limit: number, keep: (record: number) => boolean): void {
    const chunks: Chunk[] = []
    let packed: Chunk | undefined
    for (const chunk of this.#chunks) {
      if (chunk.first >= limit) {
        chunks.push(chunk)
        continue
      }
      const kept: number[] = []
      for (let at = 0; at < chunk.count; at++) {
        const record = chunk.numbers?.[at] ?? chunk.first + at
        if (record >= limit || keep(record)) kept.push(at)
        else {
          this.#live--
          this.#dataBytes -= chunk.keys[at]!.length + chunk.ends[at]! - (at === 0 ? 0 : chunk.ends[at - 1]!)
        }
      }
      if (kept.length === 0) continue
      if (kept.length === chunk.count) {
        packed = undefined
        chunks.push(chunk)
        continue
      }
      for (const at of kept) {
        const value = chunk.bytes.subarray(at === 0 ? 0 : chunk.ends[at - 1]!, chunk.ends[at]!)
        const record = chunk.numbers?.[at] ?? chunk.first + at
        if (!packed || packed.count === packed.revisions.length || isOverBytes(packed, value.length)) {
          packed = emptyChunk(record, chunkRecordsMax)
          packed.numbers = new Float64Array(chunkRecordsMax)
          chunks.push(packed)
        }
        put(packed, record, fieldsAt(chunk, at), value)
      }
    }
    for (const chunk of chunks) if (chunk.numbers && chunk.revisions.length > chunk.count) seal(chunk)
    this.#chunks = chunks
  }

  #find(record: number): [Chunk, number] {
    const chunk = this.#chunks[this.#chunkOf(record)]
    if (chunk) {
      const slot = slotOf(chunk, record)
      if (slot < chunk.count && (!chunk.numbers || chunk.numbers[slot] === record)) return [chunk, slot]
    }
    throw new Error(`assertion failed: record ${record} is in the history`)
  }

  /** The last chunk whose first record is not above `record`; -1 if there is none. */
  #chunkOf(record: number): number {
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

function emptyChunk(first: number, records: number): Chunk {
  return {
    first,
    count: 0,
    numbers: undefined,
    keys: [],
    revisions: new Float64Array(records),
    subs: new Uint32Array(records),
    creates: new Float64Array(records),
    versions: new Float64Array(records),
    leases: new BigInt64Array(records),
    prevs: new Float64Array(records),
    ends: new Uint32Array(records),
    bytes: new Uint8Array(4096),
  }
}

const usedBytes = (chunk: Chunk): number => (chunk.count === 0 ? 0 : chunk.ends[chunk.count - 1]!)

const isOverBytes = (chunk: Chunk, more: number): boolean =>
  chunk.count > 0 && usedBytes(chunk) + more > chunkBytesMax

const isFull = (chunk: Chunk, more: number, next: number): boolean =>
  chunk.numbers !== undefined ||
  chunk.count === chunk.revisions.length ||
  chunk.first + chunk.count !== next ||
  isOverBytes(chunk, more)

function put(chunk: Chunk, record: number, fields: RecordFields, value: Uint8Array): void {
  const start = usedBytes(chunk)
  const end = start + value.length
  if (end > chunk.bytes.length) {
    const grown = new Uint8Array(Math.max(end, Math.min(chunk.bytes.length * 2, chunkBytesMax)))
    grown.set(chunk.bytes.subarray(0, start))
    chunk.bytes = grown
  }
  chunk.bytes.set(value, start)
  const at = chunk.count++
  if (chunk.numbers) chunk.numbers[at] = record
  chunk.keys.push(fields.key)
  chunk.revisions[at] = fields.revision
  chunk.subs[at] = fields.sub
  chunk.creates[at] = fields.createRevision
  chunk.versions[at] = fields.version
  chunk.leases[at] = fields.lease
  chunk.prevs[at] = fields.prev
  chunk.ends[at] = end
}

function* readPinned(chunks: Chunk[], limit: number): Generator<PinnedRecord, void> {
  for (const chunk of chunks) {
    for (let at = 0; at < chunk.count; at++) {
      if ((chunk.numbers?.[at] ?? chunk.first + at) >= limit) return
      const value = chunk.bytes.subarray(at === 0 ? 0 : chunk.ends[at - 1]!, chunk.ends[at]!)
      yield { fields: fieldsAt(chunk, at), value }
    }
  }
}

/** Gives back what a chunk reserved and will not use. */
function seal(chunk: Chunk): void {
  const { count } = chunk
  if (chunk.bytes.length > usedBytes(chunk)) chunk.bytes = chunk.bytes.slice(0, usedBytes(chunk))
  if (chunk.revisions.length === count) return
  chunk.numbers = chunk.numbers?.slice(0, count)
  chunk.revisions = chunk.revisions.slice(0, count)
  chunk.subs = chunk.subs.slice(0, count)
  chunk.creates = chunk.creates.slice(0, count)
  chunk.versions = chunk.versions.slice(0, count)
  chunk.leases = chunk.leases.slice(0, count)
  chunk.prevs = chunk.prevs.slice(0, count)
  chunk.ends = chunk.ends.slice(0, count)
}

function fieldsAt(chunk: Chunk, at: number): RecordFields {
  return {
    key: chunk.keys[at]!,
    revision: chunk.revisions[at]!,
    sub: chunk.subs[at]!,
    createRevision: chunk.creates[at]!,
    version: chunk.versions[at]!,
    lease: chunk.leases[at]!,
    prev: chunk.prevs[at]!,
  }
}

/** First slot whose record is not below `record`; may be `count`. */
function slotOf(chunk: Chunk, record: number): number {
  if (record <= chunk.first) return 0
  if (!chunk.numbers) return Math.min(record - chunk.first, chunk.count)
  return lowerBound(chunk.numbers, chunk.count, record)
}

function lowerBound(column: Float64Array, count: number, wanted: number): number {
  let low = 0
  let high = count
  while (low < high) {
    const middle = (low + high) >> 1
    if (column[middle]! < wanted) low = middle + 1
    else high = middle
  }
  return low
}

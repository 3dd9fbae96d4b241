import type { Key } from './key.ts'
import type { KeyValue } from './requests.ts'
import type { SlabWriter, ValueWriter } from './slab.ts'
import { type Slab, ValueFetch } from './value-memory.ts'

const noValue = Buffer.alloc(0)

/**
 * A run of versions in columns: some 60 bytes a version beside its key and value, and no object. Columns but `untils` never
 * change once written, and bytes never: whoever holds a chunk may go on reading it.
 */
export type Chunk = {
  /** Number of the first version. */
  readonly first: number
  count: number
  readonly capacity: number
  /** Numbers of the versions; undefined while none between first and last is missing. */
  readonly numbers: Float64Array | undefined
  readonly revisions: Float64Array
  readonly creates: Float64Array
  readonly versions: Float64Array
  readonly prevs: Float64Array
  /** Revision at which another version took the place of this one; infinite for the newest. */
  readonly untils: Float64Array
  /** Where key and value are: slab (its place in `keyBytes` or `values`), first byte, length. */
  readonly keyStarts: Uint32Array
  readonly keyLengths: Uint32Array
  readonly valueStarts: Uint32Array
  readonly valueLengths: Uint32Array
  readonly keySlabs: Uint16Array
  readonly valueSlabs: Uint16Array
  readonly keyBytes: Buffer[]
  readonly values: Slab[]
  /** Undefined while all are 0. */
  subs: Uint32Array | undefined
  leases: BigInt64Array | undefined
}

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

export function emptyChunk(first: number, capacity: number, sparse: boolean): Chunk {
  // One allocation for all columns.
  const doubles = sparse ? 6 : 5
  const buffer = new ArrayBuffer(capacity * (doubles * 8 + 4 * 4 + 2 * 2))
  const double = (at: number): Float64Array => new Float64Array(buffer, at * capacity * 8, capacity)
  const words = doubles * 8 * capacity
  const word = (at: number): Uint32Array => new Uint32Array(buffer, words + at * capacity * 4, capacity)
  const halves = words + 16 * capacity
  const half = (at: number): Uint16Array => new Uint16Array(buffer, halves + at * capacity * 2, capacity)
  return {
    first,
    count: 0,
    capacity,
    numbers: sparse ? double(5) : undefined,
    revisions: double(0),
    creates: double(1),
    versions: double(2),
    prevs: double(3),
    untils: double(4),
    keyStarts: word(0),
    keyLengths: word(1),
    valueStarts: word(2),
    valueLengths: word(3),
    keySlabs: half(0),
    valueSlabs: half(1),
    keyBytes: [],
    values: [],
    subs: undefined,
    leases: undefined,
  }
}

export function recordAtSlot(chunk: Chunk, slot: number): number {
  return chunk.numbers ? chunk.numbers[slot]! : chunk.first + slot
}

/** First slot whose record is not below `record`; may be `count`. */
export function slotOf(chunk: Chunk, record: number): number {
  if (record <= chunk.first) return 0
  if (!chunk.numbers) return Math.min(record - chunk.first, chunk.count)
  return lowerBound(chunk.numbers, chunk.count, record)
}

export function lowerBound(column: Float64Array, count: number, wanted: number): number {
  let low = 0
  let high = count
  while (low < high) {
    const middle = (low + high) >> 1
    if (column[middle]! < wanted) low = middle + 1
    else high = middle
  }
  return low
}

/** Views that stay valid: they must not be written to. */
export function keyBytesAt(chunk: Chunk, slot: number): Buffer {
  const start = chunk.keyStarts[slot]!
  return chunk.keyBytes[chunk.keySlabs[slot]!]!.subarray(start, start + chunk.keyLengths[slot]!)
}
/** The value, which must be in memory. */
export function valueAt(chunk: Chunk, slot: number): Buffer {
  const start = chunk.valueStarts[slot]!
  const length = chunk.valueLengths[slot]!
  return length === 0 ? noValue : bytesOf(slabOf(chunk, slot)).subarray(start, start + length)
}

export const slabOf = (chunk: Chunk, slot: number): Slab => chunk.values[chunk.valueSlabs[slot]!]!

/** Whether the value has to be fetched. */
export const isOutAt = (chunk: Chunk, slot: number): boolean =>
  slabOf(chunk, slot).bytes === undefined && chunk.valueLengths[slot]! > 0

function bytesOf(slab: Slab): Buffer {
  if (slab.bytes) return slab.bytes
  throw new Error('assertion failed: values on the disk are fetched before they are used')
}

/** Adds the value at a slot to what is fetched. */
export function wantAt(fetch: ValueFetch, chunk: Chunk, slot: number): void {
  const { values, wants } = fetch
  if (!isOutAt(chunk, slot)) {
    values.push(valueAt(chunk, slot))
    return
  }
  const [start, length] = [chunk.valueStarts[slot]!, chunk.valueLengths[slot]!]
  wants.push({ slab: slabOf(chunk, slot), start, length, at: values.length })
  values.push(undefined)
}

/** The values of slots, of which those that are not in memory are fetched. */
export function* valuesAt(chunk: Chunk, slots: readonly number[]): Generator<ValueFetch, Buffer[]> {
  const fetch = new ValueFetch()
  for (const slot of slots) wantAt(fetch, chunk, slot)
  if (fetch.wants.length > 0) yield fetch
  return fetch.complete
}

export function keyAt(chunk: Chunk, slot: number): Key {
  const start = chunk.keyStarts[slot]!
  return chunk.keyBytes[chunk.keySlabs[slot]!]!.toString('latin1', start, start + chunk.keyLengths[slot]!)
}

/** Order of a version's key and another key, as of `a - b`. */
export function compareKeyAt(chunk: Chunk, slot: number, other: Key): number {
  const bytes = chunk.keyBytes[chunk.keySlabs[slot]!]!
  const start = chunk.keyStarts[slot]!
  const length = chunk.keyLengths[slot]!
  const shared = Math.min(length, other.length)
  for (let at = 0; at < shared; at++) {
    const difference = bytes[start + at]! - other.charCodeAt(at)
    if (difference !== 0) return difference
  }
  return length - other.length
}

/** Bytes compared here before the runtime is asked, which costs as much as some thirty of them. */
const comparedHere = 32

/** Order of the values of two versions. */
export function compareValues(a: Chunk, slotA: number, b: Chunk, slotB: number): number {
  const startA = a.valueStarts[slotA]!
  const startB = b.valueStarts[slotB]!
  const lengthA = a.valueLengths[slotA]!
  const lengthB = b.valueLengths[slotB]!
  const shared = Math.min(lengthA, lengthB)
  if (shared === 0) return lengthA - lengthB
  const bytesA = bytesOf(slabOf(a, slotA))
  const bytesB = bytesOf(slabOf(b, slotB))
  const here = Math.min(shared, comparedHere)
  for (let at = 0; at < here; at++) {
    const difference = bytesA[startA + at]! - bytesB[startB + at]!
    if (difference !== 0) return difference
  }
  if (here === shared) return lengthA - lengthB
  return bytesA.compare(bytesB, startB + here, startB + lengthB, startA + here, startA + lengthA)
}

export function keyValueAt(chunk: Chunk, slot: number, keysOnly: boolean): KeyValue {
  return {
    key: keyBytesAt(chunk, slot),
    value: keysOnly ? noValue : valueAt(chunk, slot),
    createRevision: chunk.creates[slot]!,
    modRevision: chunk.revisions[slot]!,
    version: chunk.versions[slot]!,
    lease: leaseAt(chunk, slot),
  }
}

export const subAt = (chunk: Chunk, slot: number): number => (chunk.subs ? chunk.subs[slot]! : 0)
export const leaseAt = (chunk: Chunk, slot: number): bigint => (chunk.leases ? chunk.leases[slot]! : 0n)

export function fieldsAt(chunk: Chunk, slot: number): RecordFields {
  return {
    key: keyAt(chunk, slot),
    revision: chunk.revisions[slot]!,
    sub: subAt(chunk, slot),
    createRevision: chunk.creates[slot]!,
    version: chunk.versions[slot]!,
    lease: leaseAt(chunk, slot),
    prev: chunk.prevs[slot]!,
  }
}

/**
 * Whether a store that was compacted at `compactRevision` still has a version: the newest up to there, unless it is a
 * deletion before it, and all later ones.
 */
export function isRetainedAt(chunk: Chunk, slot: number, compactRevision: number): boolean {
  const revision = chunk.revisions[slot]!
  if (revision >= compactRevision) return true
  return chunk.untils[slot]! > compactRevision && chunk.versions[slot]! > 0
}

/** Where bytes of new versions go. Keys and values apart, as keys are looked at far more often. */
export type Slabs = { keys: SlabWriter; values: ValueWriter }

/** Adds a version; its number must be above those before. */
export function appendTo(
  chunk: Chunk,
  record: number,
  fields: RecordFields,
  value: Uint8Array,
  slabs: Slabs,
): void {
  const slot = appendNumbers(chunk, record, fields.sub, fields.lease)
  chunk.revisions[slot] = fields.revision
  chunk.creates[slot] = fields.createRevision
  chunk.versions[slot] = fields.version
  chunk.prevs[slot] = fields.prev
  chunk.untils[slot] = Number.POSITIVE_INFINITY
  chunk.keyStarts[slot] = slabs.keys.addKey(fields.key)
  chunk.keyLengths[slot] = fields.key.length
  chunk.keySlabs[slot] = placeOf(chunk.keyBytes, slabs.keys.slab)
  chunk.valueStarts[slot] = slabs.values.add(value)
  chunk.valueLengths[slot] = value.length
  chunk.valueSlabs[slot] = placeOf(chunk.values, slabs.values.slab)
}

/**
 * Copies a version with its bytes, so that what it leaves can be freed. A value that is not in memory stays where it is, unless it was
 * fetched. True if the value was copied.
 */
export function copyTo(
  chunk: Chunk,
  { chunk: from, slot: at, value: fetched }: { chunk: Chunk; slot: number; value: Buffer | undefined },
  slabs: Slabs,
): boolean {
  const slot = appendNumbers(chunk, recordAtSlot(from, at), subAt(from, at), leaseAt(from, at))
  chunk.revisions[slot] = from.revisions[at]!
  chunk.creates[slot] = from.creates[at]!
  chunk.versions[slot] = from.versions[at]!
  chunk.prevs[slot] = from.prevs[at]!
  chunk.untils[slot] = from.untils[at]!
  chunk.keyStarts[slot] = slabs.keys.add(keyBytesAt(from, at))
  chunk.keyLengths[slot] = from.keyLengths[at]!
  chunk.keySlabs[slot] = placeOf(chunk.keyBytes, slabs.keys.slab)
  chunk.valueLengths[slot] = from.valueLengths[at]!
  const isCopied = fetched !== undefined || !isOutAt(from, at)
  chunk.valueStarts[slot] = isCopied ? slabs.values.add(fetched ?? valueAt(from, at)) : from.valueStarts[at]!
  chunk.valueSlabs[slot] = placeOf(chunk.values, isCopied ? slabs.values.slab : slabOf(from, at))
  return isCopied
}

function appendNumbers(chunk: Chunk, record: number, sub: number, lease: bigint): number {
  const slot = chunk.count++
  if (chunk.numbers) chunk.numbers[slot] = record
  if (sub !== 0) {
    chunk.subs ??= new Uint32Array(chunk.capacity)
    chunk.subs[slot] = sub
  }
  if (lease !== 0n) {
    chunk.leases ??= new BigInt64Array(chunk.capacity)
    chunk.leases[slot] = lease
  }
  return slot
}

/** The slab is nearly always one of the last two. */
function placeOf<T>(slabs: T[], slab: T): number {
  const at = slabs.lastIndexOf(slab)
  return at >= 0 ? at : slabs.push(slab) - 1
}

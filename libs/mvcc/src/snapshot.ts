import { crc32 } from 'node:zlib'
import { History } from './history.ts'
import { toKey } from './key.ts'
import { KeyIndex } from './key-index.ts'
import { LeaseBook } from './lease-book.ts'
import { inOnePiece, type Slices } from './slices.ts'
import type { MvccStore } from './store.ts'
import { ValueFetch } from './value-memory.ts'
import { type PinnedStore, pinStore, type Version } from './version.ts'

/** First bytes of a snapshot, and the version of what follows. */
const magic = Buffer.from('KMVC')
export const snapshotFormatVersion = 1

const headerBytes = 4 + 4 + 8 + 8 + 4 + 8
const leaseBytes = 24
const recordHeadBytes = 4 + 4 + 8 + 4 + 8 + 8 + 8
const pieceBytes = 256 * 1024
/** Checked before others may run. */
const crcBytes = 8 << 20
/** Decoded at once, at most, of a piece. */
const decodeBytes = 1 << 20

/** Why bytes are not a snapshot this version reads. */
export type SnapshotProblem = 'truncated' | 'not-a-snapshot' | 'newer-format' | 'checksum'

/**
 * The store as bytes, in pieces of about 256 KiB. The state is that of the moment of the call, however the
 * pieces are taken between later writes. Layout (little endian): magic, format version u32, revision f64, compact
 * revision f64, leases u32, records f64; per lease id i64, ttl f64, remaining f64; per record key length
 * u32, value length u32, revision f64, sub u32, create f64, version f64, lease i64, key, value; last the CRC-32 of all before.
 */
export function encodeSnapshot(store: MvccStore): Generator<Uint8Array, void> {
  return inMemory(encodeSnapshotSlices(store))
}

function* inMemory(pieces: Iterable<Uint8Array | ValueFetch>): Generator<Uint8Array, void> {
  for (const piece of pieces) {
    if (piece instanceof ValueFetch) throw new Error('assertion failed: all values are in memory')
    yield piece
  }
}

/** The same where values may not be in memory: a fetch comes before the pieces it is for. */
export function encodeSnapshotSlices(store: MvccStore): Generator<Uint8Array | ValueFetch, void> {
  const { walks, ...state } = pinStore(store)
  return encodePinned(
    new SnapshotEncoder({ ...state, count: store.history.pinnedCount(store.revision) }),
    walks[0]!,
  )
}

function* encodePinned(
  encoder: SnapshotEncoder,
  versions: Iterable<Version | ValueFetch>,
): Generator<Uint8Array | ValueFetch, void> {
  yield encoder.head
  for (const version of versions) {
    if (version instanceof ValueFetch) {
      yield version
      continue
    }
    const piece = encoder.add(version)
    if (piece) yield piece
  }
  yield encoder.end()
}

/** Makes a snapshot of versions that come in order from anywhere, one at a time. */
export class SnapshotEncoder {
  /** The first piece. */
  readonly head: Uint8Array
  #crc: number
  #piece = Buffer.alloc(pieceBytes)
  #used = 0

  /** `count` is the number of versions that will be added. */
  constructor(store: Omit<PinnedStore, 'walks'> & { count: number }) {
    const { leases } = store
    const head = Buffer.alloc(headerBytes + leases.length * leaseBytes)
    magic.copy(head)
    head.writeUInt32LE(snapshotFormatVersion, 4)
    head.writeDoubleLE(store.revision, 8)
    head.writeDoubleLE(store.compactRevision, 16)
    head.writeUInt32LE(leases.length, 24)
    head.writeDoubleLE(store.count, 28)
    let at = headerBytes
    for (const lease of leases) {
      head.writeBigInt64LE(lease.id, at)
      head.writeDoubleLE(lease.ttl, at + 8)
      head.writeDoubleLE(lease.remainingTtl, at + 16)
      at += leaseBytes
    }
    this.head = head
    this.#crc = crc32(head)
  }

  /** Answers a piece when one is full. */
  add(version: Version): Uint8Array | undefined {
    const { key, value } = version
    const size = recordHeadBytes + key.length + value.length
    let full: Buffer | undefined
    if (this.#used + size > this.#piece.length) {
      if (this.#used > 0) {
        full = this.#piece.subarray(0, this.#used)
        this.#crc = crc32(full, this.#crc)
      }
      this.#piece = Buffer.alloc(Math.max(pieceBytes, size))
      this.#used = 0
    }
    const at = this.#used
    this.#piece.writeUInt32LE(key.length, at)
    this.#piece.writeUInt32LE(value.length, at + 4)
    this.#piece.writeDoubleLE(version.revision, at + 8)
    this.#piece.writeUInt32LE(version.sub, at + 16)
    this.#piece.writeDoubleLE(version.createRevision, at + 20)
    this.#piece.writeDoubleLE(version.version, at + 28)
    this.#piece.writeBigInt64LE(version.lease, at + 36)
    this.#piece.set(key, at + recordHeadBytes)
    this.#piece.set(value, at + recordHeadBytes + key.length)
    this.#used += size
    return full
  }

  /** The last piece. */
  end(): Uint8Array {
    const last = Buffer.alloc(this.#used + 4)
    this.#piece.copy(last, 0, 0, this.#used)
    last.writeUInt32LE(crc32(last.subarray(0, this.#used), this.#crc), this.#used)
    return last
  }
}

/** Replaces the store's content by a snapshot; the store is untouched if the bytes are not good. */
export function restoreSnapshot(store: MvccStore, bytes: Uint8Array): SnapshotProblem | undefined {
  return inOnePiece(restoreSlices(store, bytes))
}

/** The same in slices; the store is replaced with the last one. */
export function* restoreSlices(store: MvccStore, bytes: Uint8Array): Slices<SnapshotProblem | undefined> {
  const data = asBuffer(bytes)
  if (data.length < headerBytes + 4) return 'truncated'
  const problem = problemOfHead(data)
  if (problem) return problem
  // First the checksum: what is decoded is what was written.
  const end = data.length - 4
  let crc = 0
  for (let from = 0; from < end; from += crcBytes) {
    crc = crc32(data.subarray(from, Math.min(from + crcBytes, end)), crc)
    if (from + crcBytes < end) yield
  }
  if (crc !== data.readUInt32LE(end)) return 'checksum'
  const decoder = new SnapshotDecoder(store)
  yield* decoder.add(data)
  return decoder.end()
}

/**
 * Reads a snapshot that comes in pieces of any size, so that it never is in memory as a whole. What it holds is built beside the
 * store's content, which it replaces at the `end`. Bytes must have been checked before: its own checksum is known last.
 */
export class SnapshotDecoder {
  readonly #store: MvccStore
  readonly #leases = new LeaseBook()
  readonly #history: History
  readonly #index: KeyIndex
  #head: { revision: number; compactRevision: number } | undefined
  #leasesLeft = 0
  #recordsLeft = 0
  /** The beginning of what the next piece goes on with. */
  #rest: Buffer = Buffer.alloc(0)
  /** Of all before `rest`. */
  #crc = 0
  #problem: SnapshotProblem | undefined

  constructor(store: MvccStore) {
    this.#store = store
    this.#history = new History(store.sizes, store.memory)
    this.#index = new KeyIndex(this.#history, store.sizes.leafKeys)
  }

  /** Takes the next bytes in; they may be overwritten once the slices have ended. */
  *add(bytes: Uint8Array): Slices<void> {
    for (let from = 0; from < bytes.length && !this.#problem; from += decodeBytes) {
      const piece = bytes.subarray(from, from + decodeBytes)
      const data = this.#rest.length > 0 ? Buffer.concat([this.#rest, piece]) : asBuffer(piece)
      const used = yield* this.#decode(data)
      this.#crc = crc32(data.subarray(0, used), this.#crc)
      this.#rest = Buffer.from(data.subarray(used))
    }
  }

  /** Replaces the store's content; the store is untouched if the snapshot is not good or not complete. */
  end(): SnapshotProblem | undefined {
    const problem = this.#problem ?? this.#problemOfEnd()
    if (problem || !this.#head) {
      this.#history.dispose()
      return problem
    }
    this.#store.replace({
      index: this.#index,
      history: this.#history,
      leases: this.#leases,
      ...this.#head,
    })
    return undefined
  }

  #problemOfEnd(): SnapshotProblem | undefined {
    if (!this.#head || this.#leasesLeft + this.#recordsLeft > 0 || this.#rest.length < 4) return 'truncated'
    if (this.#rest.length > 4 || this.#rest.readUInt32LE(0) !== this.#crc) return 'checksum'
    return undefined
  }

  /** Takes over what is complete in `data` and answers how many bytes that is. */
  *#decode(data: Buffer): Slices<number> {
    let at = 0
    if (!this.#head) {
      if (data.length < headerBytes) return 0
      this.#problem = problemOfHead(data)
      if (this.#problem) return 0
      this.#head = { revision: data.readDoubleLE(8), compactRevision: data.readDoubleLE(16) }
      this.#leasesLeft = data.readUInt32LE(24)
      this.#recordsLeft = data.readDoubleLE(28)
      at = headerBytes
    }
    for (; this.#leasesLeft > 0 && at + leaseBytes <= data.length; this.#leasesLeft--, at += leaseBytes) {
      const id = data.readBigInt64LE(at)
      this.#leases.grant(id, data.readDoubleLE(at + 8))
      this.#leases.checkpoint(id, data.readDoubleLE(at + 16))
    }
    if (this.#leasesLeft > 0) return at
    const into = { index: this.#index, history: this.#history, leases: this.#leases }
    while (this.#recordsLeft > 0 && at + recordHeadBytes <= data.length) {
      const end = at + recordHeadBytes + data.readUInt32LE(at) + data.readUInt32LE(at + 4)
      if (end > data.length) break
      restoreRecord(into, data, at)
      at = end
      if (--this.#recordsLeft % this.#store.sizes.sliceRecords === 0) yield
    }
    return at
  }
}

function problemOfHead(data: Buffer): SnapshotProblem | undefined {
  if (!data.subarray(0, 4).equals(magic)) return 'not-a-snapshot'
  return data.readUInt32LE(4) > snapshotFormatVersion ? 'newer-format' : undefined
}

const asBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** Adds the version at `at`, all of whose bytes are there. */
function restoreRecord(
  { index, history, leases }: { index: KeyIndex; history: History; leases: LeaseBook },
  data: Buffer,
  at: number,
): void {
  const keyEnd = at + recordHeadBytes + data.readUInt32LE(at)
  const valueEnd = keyEnd + data.readUInt32LE(at + 4)
  const key = toKey(data.subarray(at + recordHeadBytes, keyEnd))
  const before = index.get(key)
  const lease = data.readBigInt64LE(at + 36)
  const record = history.append(
    {
      key,
      revision: data.readDoubleLE(at + 8),
      sub: data.readUInt32LE(at + 16),
      createRevision: data.readDoubleLE(at + 20),
      version: data.readDoubleLE(at + 28),
      lease,
      prev: before,
    },
    data.subarray(keyEnd, valueEnd),
  )
  const leaseBefore = before < 0 ? 0n : history.lease(before)
  if (leaseBefore) leases.detach(leaseBefore, key)
  if (lease) leases.attach(lease, key)
  index.set(key, record)
}

import type { PinnedRecord } from './history.ts'
import type { MvccStore } from './store.ts'
import { ValueFetch } from './value-memory.ts'

/** One version of a key with its place in the history; `version` 0 is a deletion. */
export type Version = {
  key: Uint8Array
  value: Uint8Array
  revision: number
  /** Place among the changes of one revision. */
  sub: number
  createRevision: number
  version: number
  lease: bigint
}

/** The store as it was at one moment, while writes and compactions go on. */
export type PinnedStore = {
  revision: number
  compactRevision: number
  leases: { id: bigint; ttl: number; remainingTtl: number }[]
  /** Every retained version in the order of revisions. Each of the walks can be taken once; a fetch comes before the versions it is for. */
  walks: Generator<Version | ValueFetch, void>[]
}

/** Pins the store at this moment for `walks` walks. */
export function pinStore(store: MvccStore, walks = 1): PinnedStore {
  return {
    revision: store.revision,
    compactRevision: store.compactRevision,
    leases: store.leases.list().map(({ id, ttl, remainingTtl }) => ({ id, ttl, remainingTtl })),
    walks: Array.from({ length: walks }, () => versionsOf(store.versions())),
  }
}

function* versionsOf(
  records: Generator<PinnedRecord | ValueFetch, void>,
): Generator<Version | ValueFetch, void> {
  for (const record of records) {
    if (record instanceof ValueFetch) yield record
    else yield { ...record.fields, key: record.keyBytes, value: record.value }
  }
}

export const revisionKeyBytes = 17
const tombstone = 0x74

/** The key under which etcd stores a version: main(8) '_' sub(8), big endian, and 't' for a deletion. */
export function revisionKey({
  revision,
  sub,
  version,
}: Pick<Version, 'revision' | 'sub' | 'version'>): Buffer {
  const key = Buffer.allocUnsafe(version === 0 ? revisionKeyBytes + 1 : revisionKeyBytes)
  writeUInt64(key, revision, 0)
  key[8] = 0x5f
  writeUInt64(key, sub, 9)
  if (version === 0) key[revisionKeyBytes] = tombstone
  return key
}

/** Revision, place and kind that a stored key stands for; undefined if it is none. */
export function parseRevisionKey(
  key: Buffer,
): { revision: number; sub: number; isDeletion: boolean } | undefined {
  const isDeletion = key.length === revisionKeyBytes + 1 && key[revisionKeyBytes] === tombstone
  if ((key.length !== revisionKeyBytes && !isDeletion) || key[8] !== 0x5f) return undefined
  const revision = key.readBigUInt64BE(0)
  const sub = key.readBigUInt64BE(9)
  if (revision > BigInt(Number.MAX_SAFE_INTEGER) || sub > 0xffff_ffffn) return undefined
  return { revision: Number(revision), sub: Number(sub), isDeletion }
}

/** Bytes of `encodeKeyValue`. */
export function keyValueBytes({ key, value, version, ...fields }: Version): number {
  const head = bytesField(key.length)
  if (version === 0) return head
  return (
    head +
    numberField(fields.createRevision) +
    numberField(fields.revision) +
    numberField(version) +
    bytesField(value.length) +
    (fields.lease === 0n ? 0 : 1 + varintBytes(BigInt.asUintN(64, fields.lease)))
  )
}

/** A version as etcd stores it: mvccpb.KeyValue; of a deletion the key alone. */
export function encodeKeyValue(version: Version): Buffer {
  const bytes = Buffer.allocUnsafe(keyValueBytes(version))
  let at = writeBytes(bytes, 0x0a, version.key, 0)
  if (version.version === 0) return bytes
  at = writeNumber(bytes, 0x10, version.createRevision, at)
  at = writeNumber(bytes, 0x18, version.revision, at)
  at = writeNumber(bytes, 0x20, version.version, at)
  at = writeBytes(bytes, 0x2a, version.value, at)
  if (version.lease !== 0n) {
    bytes[at++] = 0x30
    let rest = BigInt.asUintN(64, version.lease)
    for (; rest >= 0x80n; rest >>= 7n) bytes[at++] = Number(rest & 0x7fn) | 0x80
    bytes[at] = Number(rest)
  }
  return bytes
}

const bytesField = (length: number): number => (length === 0 ? 0 : 1 + varintBytes(length) + length)
const numberField = (value: number): number => (value === 0 ? 0 : 1 + varintBytes(value))

function varintBytes(value: number | bigint): number {
  let bytes = 1
  if (typeof value === 'bigint') for (let rest = value; rest >= 0x80n; rest >>= 7n) bytes++
  else for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes++
  return bytes
}

function writeVarint(bytes: Buffer, value: number, at: number): number {
  let rest = value
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes[at++] = (rest % 0x80) | 0x80
  bytes[at++] = rest
  return at
}

function writeNumber(bytes: Buffer, tag: number, value: number, at: number): number {
  if (value === 0) return at
  bytes[at] = tag
  return writeVarint(bytes, value, at + 1)
}

function writeBytes(bytes: Buffer, tag: number, value: Uint8Array, at: number): number {
  if (value.length === 0) return at
  bytes[at] = tag
  const start = writeVarint(bytes, value.length, at + 1)
  bytes.set(value, start)
  return start + value.length
}

function writeUInt64(bytes: Buffer, value: number, at: number): void {
  bytes.writeUInt32BE(Math.floor(value / 2 ** 32), at)
  bytes.writeUInt32BE(value % 2 ** 32, at + 4)
}

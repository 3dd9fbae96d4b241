import { crc32 } from 'node:zlib'
import { decodeMembership, encodedMembershipBytes, type SnapshotMeta, writeMembership } from '@kiln/raft'
import { Fault } from '@kiln/service'
import type { Disk, DiskFile } from './disk.ts'
import { write } from './segment-files.ts'

/**
 * A snapshot file, little endian: magic u32, version u16 (2 if the membership is joint and so has two lists more, else 1), header length u32, index f64, term f64, membership, context; then the
 * state machine's bytes; then their length f64 and the CRC u32 of all before it. It goes over the wire as it is.
 */
const magic = 0x4b534e50
const versions = { plain: 1, joint: 2 }
const fixedBytes = 26
const trailerBytes = 12
const namePattern = /^snapshot-[0-9a-f]{14}\.snap$/

/** Read at once: of a snapshot only a piece is ever in memory, and checking one holds up nobody. */
const pieceBytes = 1 << 20

/**
 * A snapshot that was found good. `context` is what the owner of the store remembers beside the state machine: its members.
 * `payload` reads the state machine's bytes and throws if they are not what they were.
 */
export type SnapshotFile = {
  meta: SnapshotMeta
  context: Uint8Array
  payload(): AsyncGenerator<Uint8Array, void>
}

export function snapshotName(index: number): string {
  return `snapshot-${index.toString(16).padStart(14, '0')}.snap`
}

/** Writes a snapshot: a neighbour first, synced, then renamed, then the folder synced. Returns its size. */
export async function saveSnapshot(
  disk: Disk,
  { meta, context }: { meta: SnapshotMeta; context: Uint8Array },
  payload: Uint8Array | AsyncIterable<Uint8Array>,
): Promise<number> {
  const sink = await receiveSnapshot(disk, `${snapshotName(meta.index)}.new`)
  try {
    await sink.write(encodeHeader(meta, context))
    let length = 0
    for await (const chunk of chunksOf(payload)) {
      await sink.write(chunk)
      length += chunk.length
    }
    const trailer = new Uint8Array(trailerBytes)
    const view = new DataView(trailer.buffer)
    view.setFloat64(0, length, true)
    view.setUint32(8, crc32(trailer.subarray(0, 8), sink.crc()), true)
    await sink.write(trailer)
    await sink.commit(meta.index)
    return sink.bytes()
  } catch (error) {
    await sink.abort()
    throw error
  }
}

export type SnapshotSink = {
  write(chunk: Uint8Array): Promise<void>
  bytes(): number
  /** Reads back what was written; undefined if that is no good snapshot. Its payload can be read after `commit`. */
  check(): Promise<SnapshotFile | undefined>
  /** CRC of what was written so far. */
  crc(): number
  /** Makes it durable under its name. */
  commit(index: number): Promise<void>
  abort(): Promise<void>
}

/** A snapshot that arrives in pieces. It is not one until `commit`. */
export async function receiveSnapshot(disk: Disk, temporary: string): Promise<SnapshotSink> {
  const file = await disk.open(temporary, { create: true, durable: false })
  let offset = 0
  let crc = 0
  return {
    write: async (chunk) => {
      const at = offset
      offset += chunk.length
      crc = crc32(chunk, crc)
      await write(file, chunk, at)
    },
    bytes: () => offset,
    check: () => checkSnapshot(disk, file),
    crc: () => crc,
    commit: async (index) => {
      await file.sync()
      await file.close()
      await disk.rename({ from: temporary, to: snapshotName(index) })
      await disk.syncDirectory()
    },
    abort: async () => {
      await file.close().catch(() => undefined)
      await disk.remove(temporary).catch(() => undefined)
    },
  }
}

/** Checks the whole file; undefined if it is not what was written. `name` is where its payload will be read. */
async function checkSnapshot(disk: Disk, file: DiskFile, name?: string): Promise<SnapshotFile | undefined> {
  const size = await file.size()
  if (size < fixedBytes + trailerBytes) return undefined
  const fixed = viewOf(await file.read(0, fixedBytes))
  if (fixed.getUint32(0, true) !== magic) return undefined
  const end = { at: size - trailerBytes, crc: 0 }
  const trailer = viewOf(await file.read(end.at, trailerBytes))
  for await (const piece of piecesOf(file, 0, size - 4)) end.crc = crc32(piece, end.crc)
  if (trailer.byteLength < trailerBytes || end.crc !== trailer.getUint32(8, true)) return undefined
  const version = fixed.getUint16(4, true)
  if (version !== versions.plain && version !== versions.joint) {
    throw new Fault(
      'STORE_FORMAT_UNKNOWN',
      `a snapshot has format ${version}, this version knows up to ${versions.joint}`,
    )
  }
  const header = await file.read(0, fixed.getUint32(6, true))
  const { membership, next } = decodeMembership(viewOf(header), fixedBytes, version === versions.joint)
  const meta = { index: fixed.getFloat64(10, true), term: fixed.getFloat64(18, true), membership }
  const checked = { name: name ?? snapshotName(meta.index), header, end }
  return { meta, context: header.subarray(next), payload: () => readPayload(disk, checked) }
}

/** What was checked is read again, from the disk: so it is checked again. */
async function* readPayload(
  disk: Disk,
  { name, header, end }: { name: string; header: Uint8Array; end: { at: number; crc: number } },
): AsyncGenerator<Uint8Array, void> {
  const file = await disk.open(name, { create: false, durable: false })
  try {
    let crc = crc32(header)
    for await (const piece of piecesOf(file, header.length, end.at)) {
      crc = crc32(piece, crc)
      yield piece
    }
    if (crc32(await file.read(end.at, trailerBytes - 4), crc) !== end.crc) {
      throw new Fault('STORE_SNAPSHOT_BAD', `the disk gives other bytes of ${name} than before`)
    }
  } finally {
    await file.close()
  }
}

/** Ends early where the file does. */
async function* piecesOf(file: DiskFile, from: number, to: number): AsyncGenerator<Uint8Array, void> {
  for (let at = from; at < to; ) {
    const piece = await file.read(at, Math.min(pieceBytes, to - at))
    if (piece.length === 0) return
    yield piece
    at += piece.length
  }
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** Names of the snapshots, newest first. */
export async function listSnapshots(disk: Disk): Promise<string[]> {
  const names = await disk.list()
  return names
    .filter((name) => namePattern.test(name))
    .sort()
    .reverse()
}

/** Removes what was being written when the machine went down. */
export async function removeUnfinished(disk: Disk): Promise<void> {
  for (const name of await disk.list()) {
    if (name.startsWith('snapshot-') && name.endsWith('.new')) await disk.remove(name)
  }
}

/** The newest good snapshot; older ones stand in for damaged ones if the log reaches back that far. */
export async function findSnapshot(
  disk: Disk,
): Promise<{ found: SnapshotFile | undefined; damaged: string[] }> {
  const damaged: string[] = []
  await removeUnfinished(disk)
  for (const name of await listSnapshots(disk)) {
    const file = await disk.open(name, { create: false, durable: false })
    try {
      const found = await checkSnapshot(disk, file, name)
      if (found !== undefined) return { found, damaged }
    } finally {
      await file.close()
    }
    damaged.push(name)
  }
  return { found: undefined, damaged }
}

/** Keeps the newest `keep`. Returns the index of the oldest that is left. */
export async function pruneSnapshots(disk: Disk, keep: number): Promise<number> {
  const names = await listSnapshots(disk)
  for (const name of names.slice(keep)) await disk.remove(name)
  const oldest = names[Math.min(keep, names.length) - 1]
  return oldest === undefined ? 0 : Number.parseInt(oldest.slice(9, 23), 16)
}

function encodeHeader(meta: SnapshotMeta, context: Uint8Array): Uint8Array {
  const length = fixedBytes + encodedMembershipBytes(meta.membership) + context.length
  const header = new Uint8Array(length)
  const view = new DataView(header.buffer)
  view.setUint32(0, magic, true)
  view.setUint16(4, meta.membership.joint === undefined ? versions.plain : versions.joint, true)
  view.setUint32(6, length, true)
  view.setFloat64(10, meta.index, true)
  view.setFloat64(18, meta.term, true)
  header.set(context, writeMembership(view, fixedBytes, meta.membership))
  return header
}

async function* chunksOf(payload: Uint8Array | AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  if (payload instanceof Uint8Array) yield payload
  else yield* payload
}

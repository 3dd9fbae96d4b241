import { crc32 } from 'node:zlib'

/**
 * A batch of the log is a run of 4 KiB blocks, each stamped so that a reader can tell a write that never finished from
 * one that was damaged later. Little endian:
 *
 *     0 magic u32   4 crc u32 of the rest   8 generation u32   12 batch f64
 *    20 place u16  22 count u16            24 length u16      26 zero u16
 *    28 crc u32 of the batch before        32 8 x u32: what the tag of each sector displaced
 *    64 payload
 *
 * A disk may write only some of the 512-byte sectors of a block, so each sector ends with a tag, the low bits of the
 * batch number; the four bytes that were there are kept in the head (as NTFS does with its update sequence).
 */
export const blockBytes = 4096
export const payloadBytesMax = blockBytes - 64
const magic = 0x4b4c424b
const sectorBytes = 512
const sectors = blockBytes / sectorBytes
const fixupsAt = 32
const payloadAt = 64

export type Stamp = { generation: number; batch: number; previousCrc: number }

/** How many blocks a batch of this many bytes takes; an empty one takes one. */
export function blocksFor(bytes: number): number {
  return Math.max(1, Math.ceil(bytes / payloadBytesMax))
}

/** Writes `payload` as stamped blocks into `target` and returns the CRC of the batch, which the next one carries. */
export function writeBatch(target: Uint8Array, payload: Uint8Array, stamp: Stamp): number {
  const count = blocksFor(payload.length)
  const view = new DataView(target.buffer, target.byteOffset, target.length)
  let batchCrc = stamp.previousCrc
  for (let place = 0; place < count; place++) {
    const at = place * blockBytes
    const part = payload.subarray(place * payloadBytesMax, (place + 1) * payloadBytesMax)
    view.setUint32(at, magic, true)
    view.setUint32(at + 8, stamp.generation, true)
    view.setFloat64(at + 12, stamp.batch, true)
    view.setUint16(at + 20, place, true)
    view.setUint16(at + 22, count, true)
    view.setUint16(at + 24, part.length, true)
    view.setUint16(at + 26, 0, true)
    view.setUint32(at + 28, stamp.previousCrc, true)
    target.set(part, at + payloadAt)
    target.fill(0, at + payloadAt + part.length, at + blockBytes)
    for (let sector = 0; sector < sectors; sector++) {
      const tail = at + (sector + 1) * sectorBytes - 4
      view.setUint32(at + fixupsAt + sector * 4, view.getUint32(tail, true), true)
      view.setUint32(tail, tagOf(stamp.batch), true)
    }
    view.setUint32(at + 4, crc32(target.subarray(at + 8, at + blockBytes)), true)
    batchCrc = crc32(target.subarray(at + 4, at + 8), batchCrc)
  }
  return batchCrc
}

/**
 * - `batch`: complete; `payload` and its chained CRC.
 * - `unfinished`: the head is missing or some sector is not of this batch: the write never finished, or never began.
 * - `damaged`: all of it was written, and is wrong now.
 */
export type ReadBatch =
  | { kind: 'batch'; payload: Uint8Array; crc: number; blocks: number }
  | { kind: 'unfinished' }
  | { kind: 'damaged' }

/** Reads the batch that begins at `offset` if it is the one stamped so. */
export function readBatch(segment: Uint8Array, offset: number, stamp: Stamp): ReadBatch {
  if (!isStamped(segment, offset, stamp, 0)) return { kind: 'unfinished' }
  const view = new DataView(segment.buffer, segment.byteOffset, segment.length)
  const count = view.getUint16(offset + 22, true)
  if (count === 0 || offset + count * blockBytes > segment.length) return { kind: 'damaged' }
  for (let place = 1; place < count; place++) {
    if (!isStamped(segment, offset + place * blockBytes, stamp, place)) return { kind: 'unfinished' }
  }
  const payload = new Uint8Array(count * payloadBytesMax)
  let length = 0
  let crc = stamp.previousCrc
  for (let place = 0; place < count; place++) {
    const at = offset + place * blockBytes
    const part = view.getUint16(at + 24, true)
    const whole =
      isIntact(segment, at) &&
      view.getUint16(at + 22, true) === count &&
      view.getUint32(at + 28, true) === stamp.previousCrc &&
      part <= payloadBytesMax &&
      (part === payloadBytesMax || place === count - 1)
    if (!whole) return { kind: 'damaged' }
    crc = crc32(segment.subarray(at + 4, at + 8), crc)
    payload.set(readPayload(segment, at, part), length)
    length += part
  }
  return { kind: 'batch', payload: payload.subarray(0, length), crc, blocks: count }
}

/** Whether some intact block of a later batch follows: then what comes before it was acknowledged. */
export function hasLaterBatch(segment: Uint8Array, from: number, stamp: Stamp): boolean {
  const view = new DataView(segment.buffer, segment.byteOffset, segment.length)
  for (let at = from; at + blockBytes <= segment.length; at += blockBytes) {
    if (view.getUint32(at, true) !== magic || view.getUint32(at + 8, true) !== stamp.generation) continue
    if (view.getFloat64(at + 12, true) > stamp.batch && isIntact(segment, at)) return true
  }
  return false
}

/** Where the traces of an unfinished batch end: up to there the segment must be blank before it is written again. */
export function endOfTraces(segment: Uint8Array, from: number, batch: number): number {
  const view = new DataView(segment.buffer, segment.byteOffset, segment.length)
  let end = from
  for (let at = from; at + blockBytes <= segment.length; at += blockBytes) {
    let touched = view.getFloat64(at + 12, true) === batch
    for (let sector = 1; sector <= sectors && !touched; sector++) {
      touched = view.getUint32(at + sector * sectorBytes - 4, true) === tagOf(batch)
    }
    if (touched) end = at + blockBytes
  }
  return end
}

/** The generation of an intact block, for telling a lost segment header from one never finished. */
export function generationOf(segment: Uint8Array, at: number): number | undefined {
  if (at + blockBytes > segment.length) return undefined
  const view = new DataView(segment.buffer, segment.byteOffset, segment.length)
  if (view.getUint32(at, true) !== magic || !isIntact(segment, at)) return undefined
  return view.getUint32(at + 8, true)
}

function isStamped(segment: Uint8Array, at: number, stamp: Stamp, place: number): boolean {
  if (at + blockBytes > segment.length) return false
  const view = new DataView(segment.buffer, segment.byteOffset, segment.length)
  if (
    view.getUint32(at, true) !== magic ||
    view.getUint32(at + 8, true) !== stamp.generation ||
    view.getFloat64(at + 12, true) !== stamp.batch ||
    view.getUint16(at + 20, true) !== place
  ) {
    return false
  }
  for (let sector = 1; sector <= sectors; sector++) {
    if (view.getUint32(at + sector * sectorBytes - 4, true) !== tagOf(stamp.batch)) return false
  }
  return true
}

function isIntact(segment: Uint8Array, at: number): boolean {
  const view = new DataView(segment.buffer, segment.byteOffset, segment.length)
  return crc32(segment.subarray(at + 8, at + blockBytes)) === view.getUint32(at + 4, true)
}

function readPayload(segment: Uint8Array, at: number, length: number): Uint8Array {
  // A copy: `slice` of a Buffer would be a view, and the fix-ups below would land in the segment.
  const block = new Uint8Array(segment.subarray(at, at + blockBytes))
  const view = new DataView(block.buffer)
  for (let sector = 0; sector < sectors; sector++) {
    view.setUint32((sector + 1) * sectorBytes - 4, view.getUint32(fixupsAt + sector * 4, true), true)
  }
  return block.subarray(payloadAt, payloadAt + length)
}

/** Never zero, so that an empty sector carries no tag. */
const tagOf = (batch: number): number => (batch % 0xffffffff) + 1

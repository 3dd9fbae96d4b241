import { crc32 } from 'node:zlib'
import type { HardState } from '@kiln/raft'
import { blockBytes } from './block.ts'

/** Version of everything in the log: headers, blocks and records. */
export const walFormatVersion = 1
const magic = 0x4b57414c
const headerBytes = 100

/**
 * The first block of a segment, written when the segment is taken into use. It repeats what earlier segments said last, so
 * that they can be reused as soon as a snapshot covers their entries.
 */
export type SegmentHeader = {
  clusterId: bigint
  memberId: bigint
  segmentBytes: number
  /** Counts the uses of segments: older blocks in a reused file belong to older generations. */
  generation: number
  firstBatch: number
  previousCrc: number
  /** End of the log before this segment. */
  lastIndex: number
  lastTerm: number
  hardState: HardState
}

export function encodeSegmentHeader(header: SegmentHeader): Uint8Array {
  const block = new Uint8Array(blockBytes)
  const view = new DataView(block.buffer)
  view.setUint32(0, magic, true)
  view.setUint16(8, walFormatVersion, true)
  view.setBigUint64(12, header.clusterId, true)
  view.setBigUint64(20, header.memberId, true)
  view.setUint32(28, header.segmentBytes, true)
  view.setUint32(32, header.generation, true)
  view.setFloat64(36, header.firstBatch, true)
  view.setUint32(44, header.previousCrc, true)
  view.setFloat64(48, header.lastIndex, true)
  view.setFloat64(56, header.lastTerm, true)
  view.setFloat64(64, header.hardState.term, true)
  view.setBigUint64(72, header.hardState.vote, true)
  view.setFloat64(80, header.hardState.commit, true)
  view.setUint32(4, crc32(block.subarray(8, headerBytes)), true)
  return block
}

/** `blank` was never used; `unreadable` is a header that was not finished, or is damaged. */
export type ReadHeader =
  | { kind: 'header'; header: SegmentHeader }
  | { kind: 'blank' }
  | { kind: 'unreadable' }
  | { kind: 'foreign'; version: number }

export function decodeSegmentHeader(block: Uint8Array): ReadHeader {
  if (block.length < blockBytes) return { kind: 'unreadable' }
  if (block.subarray(0, headerBytes).every((byte) => byte === 0)) return { kind: 'blank' }
  const view = new DataView(block.buffer, block.byteOffset, block.length)
  if (view.getUint32(0, true) !== magic) return { kind: 'unreadable' }
  if (crc32(block.subarray(8, headerBytes)) !== view.getUint32(4, true)) return { kind: 'unreadable' }
  const version = view.getUint16(8, true)
  if (version !== walFormatVersion) return { kind: 'foreign', version }
  return {
    kind: 'header',
    header: {
      clusterId: view.getBigUint64(12, true),
      memberId: view.getBigUint64(20, true),
      segmentBytes: view.getUint32(28, true),
      generation: view.getUint32(32, true),
      firstBatch: view.getFloat64(36, true),
      previousCrc: view.getUint32(44, true),
      lastIndex: view.getFloat64(48, true),
      lastTerm: view.getFloat64(56, true),
      hardState: {
        term: view.getFloat64(64, true),
        vote: view.getBigUint64(72, true),
        commit: view.getFloat64(80, true),
      },
    },
  }
}

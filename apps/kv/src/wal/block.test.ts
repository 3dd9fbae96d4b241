import { randomBytes } from 'node:crypto'
import { expect, test } from 'vitest'
import {
  blockBytes,
  blocksFor,
  hasLaterBatch,
  payloadBytesMax,
  readBatch,
  type Stamp,
  writeBatch,
} from './block.ts'

const stamp: Stamp = { generation: 3, batch: 7, previousCrc: 0x1234 }

function makeSegment(payload: Uint8Array): Uint8Array {
  const segment = new Uint8Array(16 * blockBytes)
  writeBatch(segment.subarray(blockBytes), payload, stamp)
  return segment
}

test('payloads of every size around the edges of a block come back', () => {
  for (const size of [0, 1, payloadBytesMax - 1, payloadBytesMax, payloadBytesMax + 1, 3 * payloadBytesMax]) {
    const payload = new Uint8Array(randomBytes(size))
    const read = readBatch(makeSegment(payload), blockBytes, stamp)
    expect(read.kind).toBe('batch')
    if (read.kind === 'batch') expect(read.payload).toEqual(payload)
  }
})

test('a segment in a Buffer that is a window of a larger one reads the same', () => {
  const payload = new Uint8Array(randomBytes(2 * payloadBytesMax))
  const segment = makeSegment(payload)
  const pool = Buffer.alloc(segment.length + 3 * blockBytes)
  const view = pool.subarray(blockBytes + 8, blockBytes + 8 + segment.length)
  view.set(segment)
  const read = readBatch(view, blockBytes, stamp)
  expect(read).toMatchObject({ kind: 'batch', payload })
  expect(Buffer.compare(view, segment)).toBe(0)
})

test('a batch of which any one sector was not written is unfinished', () => {
  const payload = new Uint8Array(randomBytes(2 * payloadBytesMax))
  for (let at = blockBytes; at < 3 * blockBytes; at += 512) {
    const segment = makeSegment(payload)
    segment.fill(0, at, at + 512)
    expect(readBatch(segment, blockBytes, stamp).kind).toBe('unfinished')
  }
})

test('a sector left from an earlier use of the segment makes it unfinished too', () => {
  const payload = new Uint8Array(randomBytes(2 * payloadBytesMax))
  const old = new Uint8Array(16 * blockBytes)
  writeBatch(old.subarray(blockBytes), payload, { generation: 1, batch: 2, previousCrc: 9 })
  for (let at = blockBytes; at < 3 * blockBytes; at += 512) {
    const segment = makeSegment(payload)
    segment.set(old.subarray(at, at + 512), at)
    expect(readBatch(segment, blockBytes, stamp).kind).toBe('unfinished')
  }
})

test('a changed byte anywhere in what was written shows as damage, or as unfinished where the stamp was', () => {
  const payload = new Uint8Array(randomBytes(payloadBytesMax + 100))
  const kinds = { damaged: 0, unfinished: 0, batch: 0 }
  for (let at = blockBytes; at < 3 * blockBytes; at++) {
    const segment = makeSegment(payload)
    segment[at]! ^= 0x10
    kinds[readBatch(segment, blockBytes, stamp).kind]++
  }
  expect(kinds.batch).toBe(0)
  // Per block: magic, generation, batch and place, and the tag of each of eight sectors.
  expect(kinds.unfinished).toBe(2 * (4 + 4 + 8 + 2 + 8 * 4))
})

test('a good block of a later batch is found behind a bad one', () => {
  const payload = new Uint8Array(randomBytes(100))
  const segment = makeSegment(payload)
  const after = blockBytes * (1 + blocksFor(payload.length))
  expect(hasLaterBatch(segment, after, stamp)).toBe(false)
  writeBatch(segment.subarray(after), payload, { ...stamp, batch: stamp.batch + 1 })
  expect(hasLaterBatch(segment, after, stamp)).toBe(true)
})

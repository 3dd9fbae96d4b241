import { decodeMessage, encodeMessage, type Message } from '@kiln/raft'
import type { MemberId } from './types.ts'

/**
 * What members say to each other, as bytes: kind u8, then, little endian:
 * 1 message; 2 propose: entry kind u8, origin u64, sequence f64, data; 3 refuse: sequence f64, code; 4 request: id f64, body;
 * 5 response: id f64, ok u8, body or code; 6 chunk: transfer f64, term f64, offset f64, total f64, bytes; 7 chunk taken:
 * transfer f64, next offset f64; 8 removed.
 */
export type Frame =
  | { kind: 'message'; message: Message }
  | { kind: 'propose'; entry: 'data' | 'config'; origin: bigint; sequence: number; data: Uint8Array }
  | { kind: 'refuse'; sequence: number; code: string }
  | { kind: 'request'; id: number; body: Uint8Array }
  | { kind: 'response'; id: number; ok: boolean; body: Uint8Array }
  | { kind: 'chunk'; transfer: number; term: number; offset: number; total: number; bytes: Uint8Array }
  | { kind: 'chunk-taken'; transfer: number; next: number }
  | { kind: 'removed' }

export type FrameFrom = { from: MemberId; frame: Frame }

export function encodeFrame(frame: Frame): Uint8Array {
  switch (frame.kind) {
    case 'message': {
      const body = encodeMessage(frame.message)
      const bytes = new Uint8Array(1 + body.length)
      bytes[0] = 1
      bytes.set(body, 1)
      return bytes
    }
    case 'propose': {
      const { bytes, view } = start(2, 17, frame.data)
      bytes[1] = frame.entry === 'data' ? 0 : 1
      view.setBigUint64(2, frame.origin, true)
      view.setFloat64(10, frame.sequence, true)
      return bytes
    }
    case 'refuse': {
      const { bytes, view } = start(3, 8, new TextEncoder().encode(frame.code))
      view.setFloat64(1, frame.sequence, true)
      return bytes
    }
    case 'request': {
      const { bytes, view } = start(4, 8, frame.body)
      view.setFloat64(1, frame.id, true)
      return bytes
    }
    case 'response': {
      const { bytes, view } = start(5, 9, frame.body)
      view.setFloat64(1, frame.id, true)
      bytes[9] = frame.ok ? 1 : 0
      return bytes
    }
    case 'chunk': {
      const { bytes, view } = start(6, 32, frame.bytes)
      view.setFloat64(1, frame.transfer, true)
      view.setFloat64(9, frame.term, true)
      view.setFloat64(17, frame.offset, true)
      view.setFloat64(25, frame.total, true)
      return bytes
    }
    case 'chunk-taken': {
      const { bytes, view } = start(7, 16, new Uint8Array(0))
      view.setFloat64(1, frame.transfer, true)
      view.setFloat64(9, frame.next, true)
      return bytes
    }
    case 'removed':
      return Uint8Array.of(8)
  }
}

/** Throws on anything malformed. */
export function decodeFrame(bytes: Uint8Array): Frame {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  switch (bytes[0]) {
    case 1:
      return { kind: 'message', message: decodeMessage(bytes.subarray(1)) }
    case 2:
      return {
        kind: 'propose',
        entry: bytes[1] === 0 ? 'data' : 'config',
        origin: view.getBigUint64(2, true),
        sequence: view.getFloat64(10, true),
        data: bytes.subarray(18),
      }
    case 3:
      return {
        kind: 'refuse',
        sequence: view.getFloat64(1, true),
        code: new TextDecoder().decode(bytes.subarray(9)),
      }
    case 4:
      return { kind: 'request', id: view.getFloat64(1, true), body: bytes.subarray(9) }
    case 5:
      return { kind: 'response', id: view.getFloat64(1, true), ok: bytes[9] === 1, body: bytes.subarray(10) }
    case 6:
      return {
        kind: 'chunk',
        transfer: view.getFloat64(1, true),
        term: view.getFloat64(9, true),
        offset: view.getFloat64(17, true),
        total: view.getFloat64(25, true),
        bytes: bytes.subarray(33),
      }
    case 7:
      return { kind: 'chunk-taken', transfer: view.getFloat64(1, true), next: view.getFloat64(9, true) }
    case 8:
      return { kind: 'removed' }
    default:
      throw new Error(`a frame has the unknown kind ${bytes[0]}`)
  }
}

function start(kind: number, fixed: number, rest: Uint8Array): { bytes: Uint8Array; view: DataView } {
  const bytes = new Uint8Array(1 + fixed + rest.length)
  bytes[0] = kind
  bytes.set(rest, 1 + fixed)
  return { bytes, view: new DataView(bytes.buffer) }
}

import { decodeMembership, encodedMembershipBytes, writeMembership } from './membership-codec.ts'
import type { Entry, EntryKind, Message, NodeId } from './types.ts'

/**
 * Binary form of messages and entries, little endian; the same entries go to peers and into the log.
 * Integers below 2^53 are stored as float64: exact, and the fastest to read in JavaScript.
 *
 * Message: type u8, flags u8, from u64, to u64, term f64, then the fields of the type.
 * Entry: length u32 of data, kind u8, index f64, term f64, data.
 */
const types: readonly Message['type'][] = [
  'vote',
  'vote-response',
  'append',
  'append-response',
  'heartbeat',
  'heartbeat-response',
  'snapshot',
  'read-request',
  'read-response',
  'timeout-now',
]

const kinds: readonly EntryKind[] = ['data', 'config', 'empty']

export const entryHeaderBytes = 21
const headerBytes = 26

/** Writes one entry at `at`; returns where the next one goes. */
export function writeEntry(target: Uint8Array, view: DataView, at: number, entry: Entry): number {
  view.setUint32(at, entry.data.length, true)
  target[at + 4] = kinds.indexOf(entry.kind)
  view.setFloat64(at + 5, entry.index, true)
  view.setFloat64(at + 13, entry.term, true)
  target.set(entry.data, at + entryHeaderBytes)
  return at + entryHeaderBytes + entry.data.length
}

/** Reads one entry; `next` is where it ends. Its data is a view into `source`. Throws on anything malformed. */
export function readEntry(source: Uint8Array, view: DataView, at: number): { entry: Entry; next: number } {
  const start = at + entryHeaderBytes
  if (start > source.length) throw new Error('an entry is cut off')
  const length = view.getUint32(at, true)
  const kind = kinds[source[at + 4]!]
  const index = view.getFloat64(at + 5, true)
  const term = view.getFloat64(at + 13, true)
  if (kind === undefined || !isCount(index) || !isCount(term) || start + length > source.length) {
    throw new Error('an entry is malformed')
  }
  return { entry: { index, term, kind, data: source.subarray(start, start + length) }, next: start + length }
}

export function encodeMessage(message: Message): Uint8Array {
  const bytes = new Uint8Array(headerBytes + bodyBytes(message))
  const view = new DataView(bytes.buffer)
  bytes[0] = types.indexOf(message.type)
  view.setBigUint64(2, message.from, true)
  view.setBigUint64(10, message.to, true)
  view.setFloat64(18, message.term, true)
  const put = (...values: number[]): void =>
    values.forEach((value, at) => {
      view.setFloat64(headerBytes + at * 8, value, true)
    })
  switch (message.type) {
    case 'vote':
      bytes[1] = (message.pre ? 1 : 0) | (message.transfer ? 2 : 0)
      put(message.lastIndex, message.lastTerm)
      break
    case 'vote-response':
      bytes[1] = (message.pre ? 1 : 0) | (message.granted ? 2 : 0)
      break
    case 'append': {
      put(message.previousIndex, message.previousTerm, message.commit)
      let at = headerBytes + 24
      for (const entry of message.entries) at = writeEntry(bytes, view, at, entry)
      break
    }
    case 'append-response':
      bytes[1] = (message.rejected ? 1 : 0) | (message.refill ? 2 : 0)
      put(message.index, message.hintIndex, message.hintTerm)
      break
    case 'heartbeat':
      put(message.commit, message.round)
      break
    case 'heartbeat-response':
      put(message.round)
      break
    case 'snapshot':
      bytes[1] = message.snapshot.membership.joint === undefined ? 0 : 1
      put(message.snapshot.index, message.snapshot.term)
      writeMembership(view, headerBytes + 16, message.snapshot.membership)
      break
    case 'read-request':
      put(message.context)
      break
    case 'read-response':
      put(message.context, message.index)
      break
    case 'timeout-now':
      break
  }
  return bytes
}

/** Throws on anything malformed: the connection it came from is not to be trusted. */
export function decodeMessage(bytes: Uint8Array): Message {
  if (bytes.length < headerBytes) throw new Error('a message is cut off')
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const type = types[bytes[0]!]
  if (type === undefined) throw new Error(`a message has the unknown type ${bytes[0]}`)
  const flags = bytes[1]!
  const from: NodeId = view.getBigUint64(2, true)
  const to: NodeId = view.getBigUint64(10, true)
  const get = (at: number): number => {
    const value = view.getFloat64(headerBytes + at * 8, true)
    if (!isCount(value)) throw new Error('a message has a number out of range')
    return value
  }
  const term = view.getFloat64(18, true)
  if (!isCount(term)) throw new Error('a message has a term out of range')
  const envelope = { from, to, term }
  const one = (flags & 1) !== 0
  const two = (flags & 2) !== 0
  switch (type) {
    case 'vote':
      return { type, ...envelope, pre: one, transfer: two, lastIndex: get(0), lastTerm: get(1) }
    case 'vote-response':
      return { type, ...envelope, pre: one, granted: two }
    case 'append': {
      const entries: Entry[] = []
      const previousIndex = get(0)
      for (let at = headerBytes + 24; at < bytes.length; ) {
        const { entry, next } = readEntry(bytes, view, at)
        if (entry.index !== previousIndex + entries.length + 1) throw new Error('an append has a gap')
        entries.push(entry)
        at = next
      }
      return { type, ...envelope, previousIndex, previousTerm: get(1), commit: get(2), entries }
    }
    case 'append-response':
      return {
        type,
        ...envelope,
        index: get(0),
        rejected: one,
        hintIndex: get(1),
        hintTerm: get(2),
        refill: two,
      }
    case 'heartbeat':
      return { type, ...envelope, commit: get(0), round: get(1) }
    case 'heartbeat-response':
      return { type, ...envelope, round: get(0) }
    case 'snapshot': {
      const { membership } = decodeMembership(view, headerBytes + 16, one)
      return { type, ...envelope, snapshot: { index: get(0), term: get(1), membership } }
    }
    case 'read-request':
      return { type, ...envelope, context: get(0) }
    case 'read-response':
      return { type, ...envelope, context: get(0), index: get(1) }
    case 'timeout-now':
      return { type, ...envelope }
  }
}

function bodyBytes(message: Message): number {
  switch (message.type) {
    case 'vote':
    case 'heartbeat':
    case 'read-response':
      return 16
    case 'append': {
      let bytes = 24
      for (const entry of message.entries) bytes += entryHeaderBytes + entry.data.length
      return bytes
    }
    case 'append-response':
      return 24
    case 'heartbeat-response':
    case 'read-request':
      return 8
    case 'snapshot':
      return 16 + encodedMembershipBytes(message.snapshot.membership)
    case 'vote-response':
    case 'timeout-now':
      return 0
  }
}

const isCount = (value: number): boolean => Number.isSafeInteger(value) && value >= 0

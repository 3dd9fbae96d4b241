import { Fault } from '@kiln/service'

/** What members ask the leader about a lease, and its answer: seconds, negative for an unknown lease. */
export type LeaseQuestion = { kind: 'renew' | 'remaining'; id: bigint }
export type LeaseAnswer = { ttl: number }

const formatVersion = 1
const kinds = ['renew', 'remaining'] as const

export function encodeQuestion({ kind, id }: LeaseQuestion): Uint8Array {
  const bytes = Buffer.alloc(10)
  bytes[0] = formatVersion
  bytes[1] = kinds.indexOf(kind)
  bytes.writeBigInt64LE(id, 2)
  return bytes
}

export function decodeQuestion(body: Uint8Array): LeaseQuestion {
  const bytes = Buffer.from(body.buffer, body.byteOffset, body.byteLength)
  const kind = kinds[bytes[1] ?? -1]
  if (bytes[0] !== formatVersion || kind === undefined || bytes.length !== 10) {
    throw new Fault('STORE_FORMAT_UNKNOWN', 'a member asked about a lease in an unknown format')
  }
  return { kind, id: bytes.readBigInt64LE(2) }
}

export function encodeAnswer({ ttl }: LeaseAnswer): Uint8Array {
  const bytes = Buffer.alloc(9)
  bytes[0] = formatVersion
  bytes.writeDoubleLE(ttl, 1)
  return bytes
}

export function decodeAnswer(body: Uint8Array): LeaseAnswer {
  const bytes = Buffer.from(body.buffer, body.byteOffset, body.byteLength)
  if (bytes[0] !== formatVersion || bytes.length !== 9) {
    throw new Fault('STORE_FORMAT_UNKNOWN', 'the leader answered about a lease in an unknown format')
  }
  return { ttl: bytes.readDoubleLE(1) }
}

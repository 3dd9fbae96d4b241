import type { Identity } from '@kiln/mvcc'

/**
 * Who proposed an entry while auth was on: a client that said who it is, or a member for itself. Entries from when auth
 * was off have none.
 */
export type Proposer = Identity | 'member'

/** Version of entries with a proposer between kind and body. */
export const authoredFormatVersion = 2

const headBytes = 14
const memberFlag = 1
const clientFlag = 2

/**
 * An entry with who proposed it: format version u8, kind u8, flag u8, reserved u8, auth revision u48 (little endian), length of
 * the name u32, name, body as without proposer.
 */
export const withProposer = (entry: Uint8Array, proposer: Proposer): Uint8Array =>
  encodeAuthored(entry[1]!, entry.subarray(2), proposer)

/** Such an entry from its parts. */
export function encodeAuthored(kind: number, body: Uint8Array, proposer: Proposer): Uint8Array {
  const name = nameBytesOf(proposer === 'member' ? '' : proposer.name)
  const bytes = Buffer.allocUnsafe(headBytes + name.length + body.length)
  bytes[0] = authoredFormatVersion
  bytes[1] = kind
  bytes[2] = proposer === 'member' ? memberFlag : clientFlag
  bytes[3] = 0
  bytes.writeUIntLE(proposer === 'member' ? 0 : proposer.revision, 4, 6)
  bytes.writeUInt32LE(name.length, 10)
  bytes.set(name, headBytes)
  bytes.set(body, headBytes + name.length)
  return bytes
}

/** Where the body of an entry with a proposer begins. */
export const bodyOf = (entry: Buffer): number => headBytes + entry.readUInt32LE(10)

export function proposerOf(entry: Uint8Array): Proposer | undefined {
  if (entry[0] !== authoredFormatVersion) return undefined
  if (entry[2] === memberFlag) return 'member'
  const bytes = Buffer.from(entry.buffer, entry.byteOffset, entry.byteLength)
  const end = bodyOf(bytes)
  const revision = bytes.readUIntLE(4, 6)
  // One client's entries come in rows, and whoever proposed the last one proposed most likely this one too.
  const { last } = known
  if (last.who.revision === revision && isNamed(bytes, end, last.name)) return last.who
  const name = Buffer.from(bytes.subarray(headBytes, end))
  known.last = { who: { name: name.toString(), revision }, name }
  return known.last.who
}

/** Who proposed the entry that was looked at last, and whose name was written last. */
const known = {
  last: { who: { name: '', revision: -1 } as Identity, name: Buffer.alloc(0) as Buffer },
  written: { name: '', bytes: Buffer.alloc(0) as Buffer },
}

function nameBytesOf(name: string): Buffer {
  if (known.written.name !== name) known.written = { name, bytes: Buffer.from(name) }
  return known.written.bytes
}

function isNamed(entry: Buffer, end: number, name: Buffer): boolean {
  if (end - headBytes !== name.length) return false
  for (let at = 0; at < name.length; at++) if (entry[headBytes + at] !== name[at]) return false
  return true
}

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
export function withProposer(entry: Uint8Array, proposer: Proposer): Uint8Array {
  const name = Buffer.from(proposer === 'member' ? '' : proposer.name)
  const bytes = Buffer.allocUnsafe(headBytes + name.length + entry.length - 2)
  bytes[0] = authoredFormatVersion
  bytes[1] = entry[1]!
  bytes[2] = proposer === 'member' ? memberFlag : clientFlag
  bytes[3] = 0
  bytes.writeUIntLE(proposer === 'member' ? 0 : proposer.revision, 4, 6)
  bytes.writeUInt32LE(name.length, 10)
  name.copy(bytes, headBytes)
  bytes.set(entry.subarray(2), headBytes + name.length)
  return bytes
}

/** Where the body of an entry with a proposer begins. */
export const bodyOf = (entry: Buffer): number => headBytes + entry.readUInt32LE(10)

export function proposerOf(entry: Uint8Array): Proposer | undefined {
  if (entry[0] !== authoredFormatVersion) return undefined
  if (entry[2] === memberFlag) return 'member'
  const bytes = Buffer.from(entry.buffer, entry.byteOffset, entry.byteLength)
  return { name: bytes.toString('utf8', headBytes, bodyOf(bytes)), revision: bytes.readUIntLE(4, 6) }
}

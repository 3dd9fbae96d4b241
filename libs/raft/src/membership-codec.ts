import type { Membership, MembershipChange, MembershipEntry } from './membership.ts'
import type { NodeId } from './types.ts'

/**
 * Payload of a `config` entry, little endian. Its first byte is its format:
 * - 0 to 5: one change, the byte being its operation, then id u64 and context;
 * - 64: enter a joint configuration: count u16, then for each change its length u32 and its bytes as above;
 * - 65: leave it.
 * A program from before joint configurations wrote and knows 0 to 4; the others are written only by changes of several members at
 * once and by `demote`, which it cannot have been asked for.
 */
const ops: readonly MembershipChange['op'][] = ['add', 'add-learner', 'promote', 'remove', 'update', 'demote']
const enterFormat = 64
const leaveFormat = 65

export function encodeChange(change: MembershipChange): Uint8Array {
  const bytes = new Uint8Array(9 + change.context.length)
  bytes[0] = ops.indexOf(change.op)
  new DataView(bytes.buffer).setBigUint64(1, change.id, true)
  bytes.set(change.context, 9)
  return bytes
}

export function encodeMembershipEntry(entry: MembershipEntry): Uint8Array {
  switch (entry.kind) {
    case 'change':
      return encodeChange(entry.change)
    case 'enter': {
      const parts = entry.changes.map(encodeChange)
      const bytes = new Uint8Array(3 + parts.reduce((sum, part) => sum + 4 + part.length, 0))
      const view = new DataView(bytes.buffer)
      bytes[0] = enterFormat
      view.setUint16(1, parts.length, true)
      let at = 3
      for (const part of parts) {
        view.setUint32(at, part.length, true)
        bytes.set(part, at + 4)
        at += 4 + part.length
      }
      return bytes
    }
    case 'leave':
      return Uint8Array.of(leaveFormat)
  }
}

/** Throws on anything malformed or newer: skipping a change of the members would make them disagree. */
export function decodeMembershipEntry(bytes: Uint8Array): MembershipEntry {
  if (bytes[0] === leaveFormat) return { kind: 'leave' }
  if (bytes[0] !== enterFormat) return { kind: 'change', change: decodeChange(bytes) }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const changes: MembershipChange[] = []
  let at = 3
  for (let left = view.getUint16(1, true); left > 0; left--) {
    const end = at + 4 + view.getUint32(at, true)
    if (end > bytes.length) throw new Error('a membership change is cut off')
    changes.push(decodeChange(bytes.subarray(at + 4, end)))
    at = end
  }
  return { kind: 'enter', changes }
}

function decodeChange(bytes: Uint8Array): MembershipChange {
  const op = ops[bytes[0] ?? 255]
  if (op === undefined || bytes.length < 9) throw new Error('a membership change has an unknown operation')
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  return { op, id: view.getBigUint64(1, true), context: bytes.subarray(9) }
}

/** Voters and learners, for a joint configuration the outgoing voters and the learners to be; each as u16 count and u64 ids. */
function listsOf({ voters, learners, joint }: Membership): readonly (readonly NodeId[])[] {
  return joint === undefined ? [voters, learners] : [voters, learners, joint.outgoing, joint.learnersNext]
}

export function encodedMembershipBytes(membership: Membership): number {
  return listsOf(membership).reduce((sum, ids) => sum + 2 + 8 * ids.length, 0)
}

/** Whether it is joint must be told to whoever reads it. */
export function writeMembership(view: DataView, at: number, membership: Membership): number {
  for (const ids of listsOf(membership)) {
    view.setUint16(at, ids.length, true)
    at += 2
    for (const id of ids) {
      view.setBigUint64(at, id, true)
      at += 8
    }
  }
  return at
}

/** Throws a RangeError if it is cut off. */
export function decodeMembership(
  view: DataView,
  at: number,
  isJoint: boolean,
): { membership: Membership; next: number } {
  const list = (): NodeId[] => {
    const count = view.getUint16(at, true)
    at += 2
    const ids: NodeId[] = []
    for (let n = 0; n < count; n++, at += 8) ids.push(view.getBigUint64(at, true))
    return ids
  }
  const membership: Membership = { voters: list(), learners: list() }
  if (isJoint) membership.joint = { outgoing: list(), learnersNext: list() }
  return { membership, next: at }
}

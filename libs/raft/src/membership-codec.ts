import type { Membership } from './membership.ts'
import type { NodeId } from './types.ts'

/** Voters and learners, each as u16 count and u64 ids, little endian. */
export function encodedMembershipBytes(membership: Membership): number {
  return 4 + 8 * (membership.voters.length + membership.learners.length)
}

export function writeMembership(view: DataView, at: number, membership: Membership): number {
  for (const ids of [membership.voters, membership.learners]) {
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
export function decodeMembership(view: DataView, at: number): { membership: Membership; next: number } {
  const lists = [0, 1].map(() => {
    const count = view.getUint16(at, true)
    at += 2
    const ids: NodeId[] = []
    for (let n = 0; n < count; n++, at += 8) ids.push(view.getBigUint64(at, true))
    return ids
  })
  return { membership: { voters: lists[0]!, learners: lists[1]! }, next: at }
}

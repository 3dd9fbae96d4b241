import type { NodeId } from './types.ts'

/** Who decides (voters) and who only listens (learners). The lists are sorted and disjoint. */
export type Membership = { voters: readonly NodeId[]; learners: readonly NodeId[] }

export type MembershipChange = {
  /** `update` changes only what `context` says about a member, not who decides. */
  op: 'add' | 'add-learner' | 'promote' | 'remove' | 'update'
  id: NodeId
  /** Opaque to consensus. */
  context: Uint8Array
}

const ops: readonly MembershipChange['op'][] = ['add', 'add-learner', 'promote', 'remove', 'update']

export const noMembers: Membership = { voters: [], learners: [] }

/** One change at a time: old and new majorities always share a member (Raft dissertation, section 4.1). */
export function applyChange(membership: Membership, change: MembershipChange): Membership {
  const without = (ids: readonly NodeId[]): NodeId[] => ids.filter((id) => id !== change.id)
  const including = (ids: readonly NodeId[]): NodeId[] => [...without(ids), change.id].sort(byId)
  switch (change.op) {
    case 'add':
      return { voters: including(membership.voters), learners: without(membership.learners) }
    case 'promote':
      return membership.learners.includes(change.id)
        ? { voters: including(membership.voters), learners: without(membership.learners) }
        : membership
    case 'add-learner':
      return membership.voters.includes(change.id)
        ? membership
        : { voters: membership.voters, learners: including(membership.learners) }
    case 'remove':
      return { voters: without(membership.voters), learners: without(membership.learners) }
    case 'update':
      return membership
  }
}

export function isMember(membership: Membership, id: NodeId): boolean {
  return membership.voters.includes(id) || membership.learners.includes(id)
}

/** Payload of a `config` entry: operation (1 byte), id (8, little endian), context. */
export function encodeChange(change: MembershipChange): Uint8Array {
  const bytes = new Uint8Array(9 + change.context.length)
  bytes[0] = ops.indexOf(change.op)
  new DataView(bytes.buffer).setBigUint64(1, change.id, true)
  bytes.set(change.context, 9)
  return bytes
}

export function decodeChange(bytes: Uint8Array): MembershipChange {
  const op = ops[bytes[0] ?? 255]
  if (op === undefined || bytes.length < 9) throw new Error('a membership change has an unknown operation')
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  return { op, id: view.getBigUint64(1, true), context: bytes.subarray(9) }
}

const byId = (a: NodeId, b: NodeId): number => (a < b ? -1 : a > b ? 1 : 0)

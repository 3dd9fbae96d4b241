import { assert } from './assert.ts'
import type { NodeId } from './types.ts'

/** Who decides (voters) and who only listens (learners). The lists are sorted and disjoint. */
export type Membership = {
  voters: readonly NodeId[]
  learners: readonly NodeId[]
  /** Only between two sets of voters: what is decided needs a majority of both (Raft dissertation, section 4.3). */
  joint?: Joint
}

/** `outgoing` are the voters as they were; those of them in `learnersNext` become learners when the change is complete. */
export type Joint = { outgoing: readonly NodeId[]; learnersNext: readonly NodeId[] }

export type MembershipChange = {
  /** `update` changes only what `context` says about a member, not who decides; `demote` makes a voter a learner. */
  op: 'add' | 'add-learner' | 'promote' | 'remove' | 'update' | 'demote'
  id: NodeId
  /** Opaque to consensus. */
  context: Uint8Array
}

/**
 * What a `config` entry does: one change at a time keeps its short form, in which old and new majorities always share a member
 * (dissertation, section 4.1); several at once enter a joint configuration, which a second entry leaves.
 */
export type MembershipEntry =
  | { kind: 'change'; change: MembershipChange }
  | { kind: 'enter'; changes: readonly MembershipChange[] }
  | { kind: 'leave' }

export const noMembers: Membership = { voters: [], learners: [] }

export function applyMembershipEntry(membership: Membership, entry: MembershipEntry): Membership {
  switch (entry.kind) {
    case 'change':
      return applyChange(membership, entry.change)
    case 'enter':
      return enterJoint(membership, entry.changes)
    case 'leave':
      return leaveJoint(membership)
  }
}

export function applyChange(membership: Membership, change: MembershipChange): Membership {
  assert(membership.joint === undefined, 'members do not change while they are between two configurations')
  const without = (ids: readonly NodeId[]): NodeId[] => ids.filter((id) => id !== change.id)
  const including = (ids: readonly NodeId[]): NodeId[] => [...without(ids), change.id].sort(byId)
  switch (change.op) {
    case 'add':
      return { voters: including(membership.voters), learners: without(membership.learners) }
    case 'promote':
      return membership.learners.includes(change.id)
        ? { voters: including(membership.voters), learners: without(membership.learners) }
        : membership
    case 'demote':
      return membership.voters.includes(change.id)
        ? { voters: without(membership.voters), learners: including(membership.learners) }
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

/** A voter that is demoted goes on deciding as one of the old voters, and only then listens. */
function enterJoint(membership: Membership, changes: readonly MembershipChange[]): Membership {
  const next = changes.reduce(applyChange, membership)
  const outgoing = membership.voters
  return {
    voters: next.voters,
    learners: next.learners.filter((id) => !outgoing.includes(id)),
    joint: { outgoing, learnersNext: next.learners.filter((id) => outgoing.includes(id)) },
  }
}

function leaveJoint({ voters, learners, joint }: Membership): Membership {
  assert(joint !== undefined, 'only a joint configuration is left')
  return { voters, learners: [...learners, ...joint.learnersNext].sort(byId) }
}

/** Each of these must agree. */
export function voterGroups({ voters, joint }: Membership): readonly (readonly NodeId[])[] {
  return joint === undefined ? [voters] : [voters, joint.outgoing]
}

/** Everybody whose vote counts somewhere. */
export function allVoters({ voters, joint }: Membership): readonly NodeId[] {
  return joint === undefined ? voters : [...new Set([...voters, ...joint.outgoing])].sort(byId)
}

export function allMembers(membership: Membership): readonly NodeId[] {
  return [...allVoters(membership), ...membership.learners]
}

export function isMember(membership: Membership, id: NodeId): boolean {
  return (
    membership.voters.includes(id) ||
    membership.learners.includes(id) ||
    membership.joint?.outgoing.includes(id) === true
  )
}

const byId = (a: NodeId, b: NodeId): number => (a < b ? -1 : a > b ? 1 : 0)

import { decodeChange, encodeChange, type Membership, type MembershipChange } from '@kiln/raft'
import type { Member, MemberId } from './types.ts'

/** All members, in the order of their ids, and the ids of those that were removed: they never come back. */
export type Roster = { members: readonly Member[]; removed: readonly MemberId[] }

/** A change of the roster, as it stands in the context of a membership entry. */
export type RosterChange = {
  op: MembershipChange['op']
  id: MemberId
  peerUrls?: string[]
  clientUrls?: string[]
  name?: string
}

export function createRoster(members: readonly Member[]): Roster {
  return { members: [...members].sort(byId), removed: [] }
}

export function membershipOf(roster: Roster): Membership {
  const ids = (learner: boolean): MemberId[] =>
    roster.members.filter((member) => member.learner === learner).map((member) => member.id)
  return { voters: ids(false), learners: ids(true) }
}

export function changeRoster(roster: Roster, change: RosterChange): Roster {
  const old = roster.members.find((member) => member.id === change.id)
  const others = roster.members.filter((member) => member.id !== change.id)
  const put = (member: Member): Roster => ({ ...roster, members: [...others, member].sort(byId) })
  switch (change.op) {
    case 'add':
    case 'add-learner':
      return put({
        id: change.id,
        name: change.name ?? '',
        peerUrls: change.peerUrls ?? [],
        clientUrls: [],
        learner: change.op === 'add-learner',
      })
    case 'promote':
      return old === undefined ? roster : put({ ...old, learner: false })
    case 'remove':
      return { members: others, removed: [...roster.removed, change.id] }
    case 'update':
      return old === undefined
        ? roster
        : put({
            ...old,
            peerUrls: change.peerUrls ?? old.peerUrls,
            clientUrls: change.clientUrls ?? old.clientUrls,
            name: change.name ?? old.name,
          })
  }
}

/**
 * Why a leader refuses a change, by the rules of etcd's strict reconfiguration check: afterwards a majority must still be
 * at work. `isActive` tells whom the leader has heard lately.
 */
export function refusalOf(
  roster: Roster,
  change: RosterChange,
  leader: { isActive(id: MemberId): boolean; isCaughtUp(id: MemberId): boolean },
): string | undefined {
  const old = roster.members.find((member) => member.id === change.id)
  const voters = roster.members.filter((member) => !member.learner)
  const active = voters.filter((member) => leader.isActive(member.id)).length
  const others = roster.members.filter((member) => member.id !== change.id)
  const urlTaken = change.peerUrls?.some((url) => others.some((member) => member.peerUrls.includes(url)))
  switch (change.op) {
    case 'add':
    case 'add-learner':
      if (old !== undefined || roster.removed.includes(change.id) || urlTaken) return 'STORE_MEMBER_EXISTS'
      if (change.op === 'add' && voters.length > 1 && active < majority(voters.length + 1))
        return 'STORE_UNHEALTHY'
      return undefined
    case 'remove': {
      if (old === undefined) return 'STORE_MEMBER_UNKNOWN'
      if (old.learner) return undefined
      const left = active - (leader.isActive(change.id) ? 1 : 0)
      return voters.length === 1 || left < majority(voters.length - 1) ? 'STORE_UNHEALTHY' : undefined
    }
    case 'promote':
      if (old === undefined) return 'STORE_MEMBER_UNKNOWN'
      return old.learner && leader.isCaughtUp(change.id) ? undefined : 'STORE_MEMBER_UNREADY'
    case 'update':
      if (old === undefined) return 'STORE_MEMBER_UNKNOWN'
      return urlTaken ? 'STORE_MEMBER_EXISTS' : undefined
  }
}

/** Entry payload of a change; `origin` and `sequence` tell the proposer that it is its own. */
export function encodeRosterChange(change: RosterChange, origin: bigint, sequence: number): Uint8Array {
  const { op, id, ...rest } = change
  const text = new TextEncoder().encode(JSON.stringify(rest))
  const context = new Uint8Array(16 + text.length)
  const view = new DataView(context.buffer)
  view.setBigUint64(0, origin, true)
  view.setFloat64(8, sequence, true)
  context.set(text, 16)
  return encodeChange({ op, id, context })
}

export function decodeRosterChange(bytes: Uint8Array): {
  change: RosterChange
  origin: bigint
  sequence: number
} {
  const { op, id, context } = decodeChange(bytes)
  const view = new DataView(context.buffer, context.byteOffset, context.length)
  const rest = JSON.parse(new TextDecoder().decode(context.subarray(16))) as Omit<RosterChange, 'op' | 'id'>
  return {
    change: { op, id, ...rest },
    origin: view.getBigUint64(0, true),
    sequence: view.getFloat64(8, true),
  }
}

/** Goes with a snapshot. */
export function encodeRoster(roster: Roster): Uint8Array {
  const members = roster.members.map((member) => ({ ...member, id: member.id.toString(16) }))
  const removed = roster.removed.map((id) => id.toString(16))
  return new TextEncoder().encode(JSON.stringify({ formatVersion: 1, members, removed }))
}

export function decodeRoster(bytes: Uint8Array): Roster {
  const { members, removed } = JSON.parse(new TextDecoder().decode(bytes)) as {
    members: (Omit<Member, 'id'> & { id: string })[]
    removed: string[]
  }
  return {
    members: members.map((member) => ({ ...member, id: BigInt(`0x${member.id}`) })),
    removed: removed.map((id) => BigInt(`0x${id}`)),
  }
}

const majority = (count: number): number => Math.floor(count / 2) + 1
const byId = (a: Member, b: Member): number => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0)

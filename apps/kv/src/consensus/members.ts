import {
  decodeMembershipEntry,
  encodeMembershipEntry,
  type Membership,
  type MembershipChange,
} from '@kiln/raft'
import { Fault } from '@kiln/service'
import type { Member, MemberId } from './types.ts'

/**
 * All members, in the order of their ids, and the ids of those that were removed: they never come back. While several change at
 * once `members` still holds those that are leaving.
 */
export type Roster = {
  members: readonly Member[]
  removed: readonly MemberId[]
  joint?: RosterJoint | undefined
}

/** The voters before the change, and what becomes of some of them when it is complete. */
type RosterJoint = {
  outgoing: readonly MemberId[]
  leaving: readonly MemberId[]
  learnersNext: readonly MemberId[]
}

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

export function membershipOf({ members, joint }: Roster): Membership {
  const learners = members.filter((member) => member.learner).map((member) => member.id)
  const others = members.filter((member) => !member.learner).map((member) => member.id)
  if (joint === undefined) return { voters: others, learners }
  const { outgoing, leaving, learnersNext } = joint
  const voters = others.filter((id) => !leaving.includes(id) && !learnersNext.includes(id))
  return { voters, learners, joint: { outgoing, learnersNext } }
}

/** What a `config` entry does to the members; the counterpart of `applyMembershipEntry` in the core. */
export function applyRosterEntry(roster: Roster, entry: RosterEntry): Roster {
  switch (entry.kind) {
    case 'change':
      return changeRoster(roster, entry.change)
    case 'enter':
      return enterJoint(roster, entry.changes)
    case 'leave':
      return leaveJoint(roster)
  }
}

function enterJoint(roster: Roster, changes: readonly RosterChange[]): Roster {
  const outgoing = membershipOf(roster).voters
  const next = changes.reduce(changeRoster, roster)
  const find = (id: MemberId): Member | undefined => next.members.find((member) => member.id === id)
  const leaving = outgoing.filter((id) => find(id) === undefined)
  const learnersNext = outgoing.filter((id) => find(id)?.learner === true)
  const staying = next.members.map((member) =>
    learnersNext.includes(member.id) ? { ...member, learner: false } : member,
  )
  return {
    members: [...staying, ...roster.members.filter((member) => leaving.includes(member.id))].sort(byId),
    removed: next.removed.filter((id) => !leaving.includes(id)),
    joint: { outgoing, leaving, learnersNext },
  }
}

function leaveJoint({ members, removed, joint }: Roster): Roster {
  if (joint === undefined) return { members, removed }
  return {
    members: members
      .filter((member) => !joint.leaving.includes(member.id))
      .map((member) => (joint.learnersNext.includes(member.id) ? { ...member, learner: true } : member)),
    removed: [...removed, ...joint.leaving],
  }
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
    case 'demote':
      return old === undefined ? roster : put({ ...old, learner: true })
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

/** Whom the leader has heard lately, and whose log is nearly as long as its own. */
type LeaderView = { isActive(id: MemberId): boolean; isCaughtUp(id: MemberId): boolean }

/**
 * Why a leader refuses a change, by the rules of etcd's strict reconfiguration check: afterwards a majority must still be
 * at work.
 */
export function refusalOf(
  roster: Roster,
  changes: readonly RosterChange[],
  leader: LeaderView,
): string | undefined {
  if (changes.length === 1) return refusalOfOne(roster, changes[0]!, leader)
  let next = roster
  for (const change of changes) {
    const refusal = refusalOfOne(next, change, leader)
    // Whether enough are at work is asked of what comes of all of them.
    if (refusal !== undefined && refusal !== 'STORE_UNHEALTHY') return refusal
    next = changeRoster(next, change)
  }
  const { voters } = membershipOf(next)
  const active = voters.filter(
    (id) => leader.isActive(id) && roster.members.some((member) => member.id === id),
  ).length
  return voters.length === 0 || active < majority(voters.length) ? 'STORE_UNHEALTHY' : undefined
}

function refusalOfOne(roster: Roster, change: RosterChange, leader: LeaderView): string | undefined {
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
    case 'remove':
    case 'demote': {
      if (old === undefined) return 'STORE_MEMBER_UNKNOWN'
      if (old.learner) return change.op === 'remove' ? undefined : 'STORE_MEMBER_UNREADY'
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

/** Entry payload of changes, each of which carries the `origin` and `sequence` by which the proposer knows its own. */
export function encodeRosterChanges(
  changes: readonly RosterChange[],
  origin: bigint,
  sequence: number,
): Uint8Array {
  const encoded = changes.map(({ op, id, ...rest }): MembershipChange => {
    const text = new TextEncoder().encode(JSON.stringify(rest))
    const context = new Uint8Array(16 + text.length)
    const view = new DataView(context.buffer)
    view.setBigUint64(0, origin, true)
    view.setFloat64(8, sequence, true)
    context.set(text, 16)
    return { op, id, context }
  })
  const [only] = encoded
  return encodeMembershipEntry(
    encoded.length === 1 && only ? { kind: 'change', change: only } : { kind: 'enter', changes: encoded },
  )
}

/** A `config` entry with what it says of members; nobody has proposed one that leaves a joint configuration. */
export type RosterEntry =
  | { kind: 'change'; change: RosterChange; origin: bigint; sequence: number }
  | { kind: 'enter'; changes: readonly RosterChange[]; origin: bigint; sequence: number }
  | { kind: 'leave' }

export function decodeRosterEntry(bytes: Uint8Array): RosterEntry {
  const entry = decodeMembershipEntry(bytes)
  switch (entry.kind) {
    case 'change': {
      const { change, ...from } = decodeRosterChange(entry.change)
      return { kind: 'change', change, ...from }
    }
    case 'enter': {
      const decoded = entry.changes.map(decodeRosterChange)
      const { origin = 0n, sequence = 0 } = decoded[0] ?? {}
      return { kind: 'enter', changes: decoded.map(({ change }) => change), origin, sequence }
    }
    case 'leave':
      return entry
  }
}

function decodeRosterChange({ op, id, context }: MembershipChange): {
  change: RosterChange
  origin: bigint
  sequence: number
} {
  const view = new DataView(context.buffer, context.byteOffset, context.length)
  const rest = JSON.parse(new TextDecoder().decode(context.subarray(16))) as Omit<RosterChange, 'op' | 'id'>
  return {
    change: { op, id, ...rest },
    origin: view.getBigUint64(0, true),
    sequence: view.getFloat64(8, true),
  }
}

type RosterDocument = {
  formatVersion: number
  members: (Omit<Member, 'id'> & { id: string })[]
  removed: string[]
  joint?: { outgoing: string[]; leaving: string[]; learnersNext: string[] }
}

/** Goes with a snapshot. Format 2 is written only between two sets of voters, 1 at all other times. */
export function encodeRoster({ members, removed, joint }: Roster): Uint8Array {
  const document: RosterDocument = {
    formatVersion: joint === undefined ? 1 : 2,
    members: members.map((member) => ({ ...member, id: member.id.toString(16) })),
    removed: toHex(removed),
  }
  if (joint !== undefined) {
    const { outgoing, leaving, learnersNext } = joint
    document.joint = {
      outgoing: toHex(outgoing),
      leaving: toHex(leaving),
      learnersNext: toHex(learnersNext),
    }
  }
  return new TextEncoder().encode(JSON.stringify(document))
}

export function decodeRoster(bytes: Uint8Array): Roster {
  const document = JSON.parse(new TextDecoder().decode(bytes)) as RosterDocument
  const { formatVersion, members, removed, joint } = document
  if (formatVersion > 2) {
    throw new Fault('STORE_FORMAT_UNKNOWN', `the members of a snapshot have format ${formatVersion}`)
  }
  return {
    members: members.map((member) => ({ ...member, id: BigInt(`0x${member.id}`) })),
    removed: fromHex(removed),
    joint: joint && {
      outgoing: fromHex(joint.outgoing),
      leaving: fromHex(joint.leaving),
      learnersNext: fromHex(joint.learnersNext),
    },
  }
}

const toHex = (ids: readonly MemberId[]): string[] => ids.map((id) => id.toString(16))
const fromHex = (ids: readonly string[]): MemberId[] => ids.map((id) => BigInt(`0x${id}`))
const majority = (count: number): number => Math.floor(count / 2) + 1
const byId = (a: Member, b: Member): number => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0)

import type { BucketEntry } from '@kiln/bbolt'
import * as auth from '@kiln/etcd-api/auth'
import { type AuthState, fromKey, type Role, toKey, type User } from '@kiln/mvcc'
import type { Member } from '../consensus/types.ts'
import type { Alarm } from '../state/alarm-book.ts'

/** The buckets of etcd 3.5's database (server/mvcc/buckets), and what stands in them beside the keys' versions. */
export const buckets = [
  'alarm',
  'auth',
  'authRoles',
  'authUsers',
  'cluster',
  'key',
  'lease',
  'members',
  'members_removed',
  'meta',
] as const
export type BucketName = (typeof buckets)[number]

const permissionTypes = {
  read: auth.Permission_Type.READ,
  write: auth.Permission_Type.WRITE,
  readwrite: auth.Permission_Type.READWRITE,
} as const

export const uint64 = (value: bigint | number): Buffer => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt.asUintN(64, BigInt(value)))
  return bytes
}

export const entry = (key: string | Uint8Array, value: string | Uint8Array): BucketEntry => {
  const bytes = Buffer.from(value)
  return { key: Buffer.from(key), valueBytes: bytes.length, value: () => bytes }
}

/** leasepb.Lease: ID, TTL, RemainingTTL; under its id. */
export function leaseEntry(lease: { id: bigint; ttl: number; remainingTtl: number }): BucketEntry {
  const fields = [lease.id, BigInt(Math.ceil(lease.ttl)), BigInt(Math.ceil(lease.remainingTtl))]
  return entry(uint64(lease.id), message(fields))
}

/** The alarms are the keys: alarmpb.AlarmMember {memberID, alarm}. */
export function alarmEntry({ member, alarm }: Alarm): BucketEntry {
  return entry(message([member, alarm === 'nospace' ? 1n : 2n]), '')
}

export function memberEntry(member: Member): BucketEntry {
  // Go writes and reads the id as a JSON number of 64 bits.
  const { peerUrls, learner, name, clientUrls } = member
  const rest = JSON.stringify({
    peerURLs: peerUrls,
    ...(learner ? { isLearner: true } : {}),
    ...(name === '' ? {} : { name }),
    ...(clientUrls.length === 0 ? {} : { clientURLs: clientUrls }),
  })
  return entry(member.id.toString(16), `{"id":${member.id},${rest.slice(1)}`)
}

/** raftpb.ConfState, as Go writes it. */
export function confState(members: readonly Member[]): string {
  const ids = (learner: boolean): string =>
    members
      .filter((member) => member.learner === learner)
      .map(({ id }) => id)
      .join(',')
  const learners = ids(true)
  return `{"voters":[${ids(false)}],${learners ? `"learners":[${learners}],` : ''}"auto_leave":false}`
}

/** authpb.User and authpb.Role by their names. */
export function authEntries(state: AuthState): Record<'auth' | 'authUsers' | 'authRoles', BucketEntry[]> {
  const authUsers = state.users.map(({ name, passwordHash, noPassword, roles }) => {
    const [password, options] = [Buffer.from(passwordHash), { noPassword }]
    const user = auth.User.fromPartial({ name: Buffer.from(name), password, roles: [...roles], options })
    return entry(name, auth.User.encode(user).finish())
  })
  const authRoles = state.roles.map(({ name, permissions }) => {
    const keyPermission = permissions.map(({ type, key, rangeEnd }) => ({
      permType: permissionTypes[type],
      key: fromKey(key),
      rangeEnd: fromKey(rangeEnd),
    }))
    const role = auth.Role.fromPartial({ name: Buffer.from(name), keyPermission })
    return entry(name, auth.Role.encode(role).finish())
  })
  return {
    auth: [
      entry('authEnabled', Buffer.from([state.enabled ? 1 : 0])),
      entry('authRevision', uint64(state.revision)),
    ],
    authUsers,
    authRoles,
  }
}

export function parseUser(value: Uint8Array): User {
  const { name, password, roles, options } = auth.User.decode(value)
  const passwordHash = Buffer.from(password).toString()
  return { name: Buffer.from(name).toString(), passwordHash, noPassword: options?.noPassword === true, roles }
}

export function parseRole(value: Uint8Array): Role {
  const { name, keyPermission } = auth.Role.decode(value)
  const permissions = keyPermission.map(({ permType, key, rangeEnd }) => {
    const type = (['read', 'write', 'readwrite'] as const).find((each) => permissionTypes[each] === permType)
    if (!type) throw new Error(`there is no permission ${permType}`)
    return { type, key: toKey(key), rangeEnd: toKey(rangeEnd) }
  })
  return { name: Buffer.from(name).toString(), permissions }
}

/** Reads an alarm's key; undefined for one that is not known here. */
export function parseAlarm(key: Uint8Array): Alarm | undefined {
  const [member = 0n, alarm = 0n] = parseMessage(key)
  const kind = alarm === 1n ? 'nospace' : alarm === 2n ? 'corrupt' : undefined
  return kind && { member, alarm: kind }
}

export function parseLease(value: Uint8Array): { id: bigint; ttl: number; remainingTtl: number } {
  const [id = 0n, ttl = 0n, remaining = 0n] = parseMessage(value)
  return { id: BigInt.asIntN(64, id), ttl: Number(ttl), remainingTtl: Number(remaining) }
}

type Field = bigint | Uint8Array

/** A protobuf message with the fields 1, 2, ...: integers or bytes. What is 0 or empty is left out. */
function message(fields: readonly Field[]): Buffer {
  const parts: Uint8Array[] = []
  const bytes = (at: number, value: Uint8Array): void =>
    void parts.push(varint(BigInt(((at + 1) << 3) | 2)), varint(BigInt(value.length)), value)
  fields.forEach((field, at) => {
    if (typeof field === 'bigint') {
      if (field !== 0n) parts.push(varint(BigInt((at + 1) << 3)), varint(BigInt.asUintN(64, field)))
    } else if (field.length > 0) bytes(at, field)
  })
  return Buffer.concat(parts)
}

function varint(value: bigint): Buffer {
  const bytes: number[] = []
  let rest = value
  for (; rest >= 0x80n; rest >>= 7n) bytes.push(Number(rest & 0x7fn) | 0x80)
  bytes.push(Number(rest))
  return Buffer.from(bytes)
}

/** The integers of a message whose fields are all integers. */
function parseMessage(bytes: Uint8Array): bigint[] {
  const fields: bigint[] = []
  for (let at = 0; at < bytes.length; ) {
    const field = (bytes[at++]! >> 3) - 1
    let value = 0n
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++]
      if (byte === undefined || shift > 63n) return fields
      value |= BigInt(byte & 0x7f) << shift
      if (byte < 0x80) break
    }
    if (field >= 0 && field < 16) fields[field] = value
  }
  return fields
}

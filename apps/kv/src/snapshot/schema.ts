import type { BucketEntry } from '@kiln/bbolt'
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

/** Users and roles as etcd stores them: authpb.User and authpb.Role. */
export type AuthExport = {
  enabled: boolean
  revision: number
  users: { name: string; password: Uint8Array; roles: string[]; noPassword: boolean }[]
  roles: {
    name: string
    permissions: { type: 'read' | 'write' | 'readwrite'; key: Uint8Array; rangeEnd: Uint8Array }[]
  }[]
}

const permissionTypes = { read: 0n, write: 1n, readwrite: 2n } as const

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

/** authpb.User {name, password, roles, options} and authpb.Role {name, keyPermission}; none of both without `found`. */
export function authEntries(
  found: AuthExport | undefined,
): Record<'auth' | 'authUsers' | 'authRoles', BucketEntry[]> {
  const users = (found?.users ?? []).map(({ name, password, roles, noPassword }) =>
    entry(
      name,
      message([
        Buffer.from(name),
        password,
        roles.map((role) => Buffer.from(role)),
        message([noPassword ? 1n : 0n]),
      ]),
    ),
  )
  const roles = (found?.roles ?? []).map(({ name, permissions }) =>
    entry(
      name,
      message([
        Buffer.from(name),
        permissions.map(({ type, key, rangeEnd }) => message([permissionTypes[type], key, rangeEnd])),
      ]),
    ),
  )
  return {
    auth: [
      entry('authEnabled', Buffer.from([found?.enabled ? 1 : 0])),
      entry('authRevision', uint64(found?.revision ?? 1)),
    ],
    authUsers: users,
    authRoles: roles,
  }
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

type Field = bigint | Uint8Array | readonly Uint8Array[]

/** A protobuf message with the fields 1, 2, ...: integers, bytes, or bytes repeated. What is 0 or empty is left out. */
function message(fields: readonly Field[]): Buffer {
  const parts: Uint8Array[] = []
  const bytes = (at: number, value: Uint8Array): void =>
    void parts.push(varint(BigInt(((at + 1) << 3) | 2)), varint(BigInt(value.length)), value)
  fields.forEach((field, at) => {
    if (typeof field === 'bigint') {
      if (field !== 0n) parts.push(varint(BigInt((at + 1) << 3)), varint(BigInt.asUintN(64, field)))
    } else if (field instanceof Uint8Array) {
      if (field.length > 0) bytes(at, field)
    } else for (const each of field) bytes(at, each)
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

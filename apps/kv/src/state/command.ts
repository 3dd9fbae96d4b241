import type { AuthChange } from '@kiln/mvcc'
import { Fault } from '@kiln/service'
import { authoredFormatVersion, bodyOf, encodeAuthored, type Proposer, withProposer } from './proposer.ts'

/** Version of the layout below; an entry with a higher one was written by a newer program. */
export const commandFormatVersion = 1

export type MinorVersion = { major: number; minor: number }

export type AlarmKind = 'nospace' | 'corrupt'

/**
 * What goes through the log. Requests of clients travel as the bytes they arrived in (etcd's protobuf messages), so that
 * proposing copies and encodes nothing.
 */
export type Command =
  | { kind: 'put' | 'delete' | 'txn' | 'compact'; request: Uint8Array }
  | { kind: 'lease-grant'; id: bigint; ttl: number }
  | { kind: 'lease-revoke'; id: bigint }
  /** Leases whose time is over, as the leader of `term` counted it. Has no effect in another term. */
  | { kind: 'lease-expire'; term: number; ids: bigint[] }
  | { kind: 'lease-checkpoint'; term: number; leases: { id: bigint; remainingTtl: number }[] }
  | { kind: 'alarm'; raise: boolean; member: bigint; alarm: AlarmKind }
  /** Without a target the one that is under way is called off. */
  | { kind: 'downgrade'; target: MinorVersion | undefined }
  | { kind: 'auth'; change: AuthChange }
  /**
   * A password was found right at that auth revision: all members take `prefix` and the place of the entry in the log as
   * token of the user.
   */
  | { kind: 'authenticate'; name: string; authRevision: number; prefix: string }
  /** Of a cluster in which every member began with an empty disk, `isNew`. From here on the log and the disks of all members may hold what came with this version of the store. */
  | { kind: 'raise-version'; version: number; isNew?: boolean }
  /** A range becomes what it was as of a revision; what that changes is found when it is applied. */
  | { kind: 'restore'; request: Uint8Array; changesMax: number; bytesMax: number }
  /** The leader's clock, in milliseconds since 1970: what is applied before was there by then. */
  | { kind: 'mark-time'; timeMs: number }

const kinds = [
  'put',
  'delete',
  'txn',
  'compact',
  'lease-grant',
  'lease-revoke',
  'lease-expire',
  'lease-checkpoint',
  'alarm',
  'downgrade',
  'auth',
  'authenticate',
  'raise-version',
  'restore',
  'mark-time',
] as const

const headBytes = 2
const alarmKinds: AlarmKind[] = ['nospace', 'corrupt']

/** A command as log entry: format version, kind, and what the kind has, little endian; what is rare as JSON. */
export function encodeCommand(command: Command): Uint8Array {
  if (command.kind === 'auth' || command.kind === 'authenticate') return encodeRare(command)
  const bytes = Buffer.allocUnsafe(headBytes + bodyBytes(command))
  bytes[0] = commandFormatVersion
  bytes[1] = kinds.indexOf(command.kind)
  switch (command.kind) {
    case 'put':
    case 'delete':
    case 'txn':
    case 'compact':
      bytes.set(command.request, headBytes)
      break
    case 'lease-grant':
      bytes.writeBigInt64LE(command.id, 2)
      bytes.writeDoubleLE(command.ttl, 10)
      break
    case 'lease-revoke':
      bytes.writeBigInt64LE(command.id, 2)
      break
    case 'lease-expire':
      bytes.writeDoubleLE(command.term, 2)
      command.ids.forEach((id, at) => void bytes.writeBigInt64LE(id, 10 + at * 8))
      break
    case 'lease-checkpoint':
      bytes.writeDoubleLE(command.term, 2)
      command.leases.forEach(({ id, remainingTtl }, at) => {
        bytes.writeBigInt64LE(id, 10 + at * 16)
        bytes.writeDoubleLE(remainingTtl, 18 + at * 16)
      })
      break
    case 'alarm':
      bytes[2] = command.raise ? 1 : 0
      bytes[3] = alarmKinds.indexOf(command.alarm)
      bytes.writeBigUInt64LE(command.member, 4)
      break
    case 'downgrade':
      bytes.writeUInt32LE(command.target?.major ?? 0, 2)
      bytes.writeUInt32LE(command.target?.minor ?? 0, 6)
      break
    case 'raise-version':
      bytes.writeUInt32LE(command.version, 2)
      bytes[6] = command.isNew ? 1 : 0
      break
    case 'restore':
      bytes.writeDoubleLE(command.changesMax, 2)
      bytes.writeDoubleLE(command.bytesMax, 10)
      bytes.set(command.request, 18)
      break
    case 'mark-time':
      bytes.writeDoubleLE(command.timeMs, 2)
      break
  }
  return bytes
}

/** The entry of a command with who proposed it; a request of a client is copied once. */
export function encodeCommandOf(command: Command, proposer: Proposer): Uint8Array {
  switch (command.kind) {
    case 'put':
    case 'delete':
    case 'txn':
    case 'compact':
      return encodeAuthored(kinds.indexOf(command.kind), command.request, proposer)
    default:
      return withProposer(encodeCommand(command), proposer)
  }
}

type Rare = Command & { kind: 'auth' | 'authenticate' }

function encodeRare({ kind, ...body }: Rare): Uint8Array {
  return Buffer.concat([
    Buffer.from([commandFormatVersion, kinds.indexOf(kind)]),
    Buffer.from(JSON.stringify(body)),
  ])
}

function bodyBytes(command: Exclude<Command, Rare>): number {
  switch (command.kind) {
    case 'put':
    case 'delete':
    case 'txn':
    case 'compact':
      return command.request.length
    case 'lease-grant':
      return 16
    case 'lease-revoke':
    case 'mark-time':
      return 8
    case 'lease-expire':
      return 8 + command.ids.length * 8
    case 'lease-checkpoint':
      return 8 + command.leases.length * 16
    case 'alarm':
      return 10
    case 'downgrade':
      return 8
    case 'raise-version':
      return 5
    case 'restore':
      return 16 + command.request.length
  }
}

/** Reads a log entry. One that this version does not know ends the member: going on would make it differ. */
export function decodeCommand(entry: Uint8Array): Command {
  const whole = Buffer.from(entry.buffer, entry.byteOffset, entry.byteLength)
  const kind = kinds[whole[1] ?? -1]
  if ((whole[0] !== commandFormatVersion && whole[0] !== authoredFormatVersion) || kind === undefined) {
    throw new Fault('STORE_FORMAT_UNKNOWN', `log entry has format ${whole[0]} and kind ${whole[1]}`, {
      remedy: 'a newer kiln-kv wrote it: run that version',
    })
  }
  // Where the body of an entry without proposer would begin, whoever proposed this one.
  const bytes = whole[0] === commandFormatVersion ? whole : whole.subarray(bodyOf(whole) - headBytes)
  switch (kind) {
    case 'put':
    case 'delete':
    case 'txn':
    case 'compact':
      return { kind, request: bytes.subarray(headBytes) }
    case 'lease-grant':
      return { kind, id: bytes.readBigInt64LE(2), ttl: bytes.readDoubleLE(10) }
    case 'lease-revoke':
      return { kind, id: bytes.readBigInt64LE(2) }
    case 'lease-expire': {
      const ids: bigint[] = []
      for (let at = 10; at < bytes.length; at += 8) ids.push(bytes.readBigInt64LE(at))
      return { kind, term: bytes.readDoubleLE(2), ids }
    }
    case 'lease-checkpoint': {
      const leases: { id: bigint; remainingTtl: number }[] = []
      for (let at = 10; at < bytes.length; at += 16) {
        leases.push({ id: bytes.readBigInt64LE(at), remainingTtl: bytes.readDoubleLE(at + 8) })
      }
      return { kind, term: bytes.readDoubleLE(2), leases }
    }
    case 'alarm':
      return { kind, raise: bytes[2] === 1, alarm: alarmKinds[bytes[3]!]!, member: bytes.readBigUInt64LE(4) }
    case 'downgrade': {
      const target = { major: bytes.readUInt32LE(2), minor: bytes.readUInt32LE(6) }
      return { kind, target: target.major > 0 ? target : undefined }
    }
    case 'raise-version':
      return { kind, version: bytes.readUInt32LE(2), isNew: bytes[6] === 1 }
    case 'restore': {
      const [changesMax, bytesMax] = [bytes.readDoubleLE(2), bytes.readDoubleLE(10)]
      return { kind, changesMax, bytesMax, request: bytes.subarray(18) }
    }
    case 'mark-time':
      return { kind, timeMs: bytes.readDoubleLE(2) }
    case 'auth':
    case 'authenticate':
      return { kind, ...JSON.parse(bytes.toString('utf8', headBytes)) } as Rare
  }
}

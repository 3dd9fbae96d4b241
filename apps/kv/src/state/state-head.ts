import type { AuthState } from '@kiln/mvcc'
import { Fault } from '@kiln/service'
import type { Alarm } from './alarm-book.ts'
import { decodeAuthState, encodeAuthState } from './auth-state.ts'
import type { AlarmKind, MinorVersion } from './command.ts'
import { firstStoreVersion, newerStore, storeVersion } from './store-version.ts'
import type { TimeMark } from './time-marks.ts'

const magic = Buffer.from('KKVS')
/**
 * Version 2 has the state of auth between alarms and keys; a store that never had any writes version 1. Version 3 has the
 * version of the store among the alarms, and is written once that was raised.
 */
const formatVersion = 3
const headBytes = 12
const alarmKinds: AlarmKind[] = ['nospace', 'corrupt']
/** A downgrade that is under way stands among the alarms of a snapshot, its target in place of the member. */
const downgradeRecord = 2
const versionRecord = 3
/** Two records for a time mark, this after the other: milliseconds and revision. */
const timeRecord = 4
const revisionRecord = 5
const packVersion = ({ major, minor }: MinorVersion): bigint => (BigInt(major) << 32n) | BigInt(minor)
const unpackVersion = (number: bigint): MinorVersion => ({
  major: Number(number >> 32n),
  minor: Number(number & 0xffff_ffffn),
})

/** What stands before the store in a snapshot of the state, and how many bytes that is. */
export type StateHead = {
  alarms: Alarm[]
  auth: AuthState
  downgrade: MinorVersion | undefined
  version: number
  times: TimeMark[]
  bytes: number
}

export function encodeStateHead(state: {
  alarms: readonly Alarm[]
  auth: AuthState
  downgrade?: MinorVersion | undefined
  version?: number
  times?: readonly TimeMark[]
}): Buffer {
  const records = state.alarms.map(({ member, alarm }) => ({
    number: member,
    kind: alarmKinds.indexOf(alarm),
  }))
  if (state.downgrade) records.push({ number: packVersion(state.downgrade), kind: downgradeRecord })
  const { version = firstStoreVersion } = state
  const isRaised = version > firstStoreVersion
  if (isRaised) records.push({ number: BigInt(version), kind: versionRecord })
  for (const { timeMs, revision } of state.times ?? []) {
    records.push({ number: BigInt(timeMs), kind: timeRecord })
    records.push({ number: BigInt(revision), kind: revisionRecord })
  }
  const auth = encodeAuthState(state.auth, isRaised)
  const head = Buffer.alloc(headBytes + records.length * 9)
  magic.copy(head)
  head.writeUInt32LE(isRaised ? formatVersion : auth.length > 0 ? 2 : 1, 4)
  head.writeUInt32LE(records.length, 8)
  records.forEach(({ number, kind }, at) => {
    head.writeBigUInt64LE(number, headBytes + at * 9)
    head[headBytes + at * 9 + 8] = kind
  })
  return Buffer.concat([head, auth])
}

/** Reads the head off the beginning of a snapshot; undefined if not all of it is there yet. */
export function decodeStateHead(bytes: Buffer): StateHead | undefined {
  const isOurs = bytes.subarray(0, 4).equals(magic.subarray(0, bytes.length))
  if (!isOurs || (bytes.length >= 8 && bytes.readUInt32LE(4) > formatVersion)) {
    throw new Fault('STORE_SNAPSHOT_BAD', 'the snapshot is none of this version of kiln-kv')
  }
  if (bytes.length < headBytes) return undefined
  const count = bytes.readUInt32LE(8)
  const authAt = headBytes + count * 9
  const hasAuth = bytes.readUInt32LE(4) > 1
  if (bytes.length < authAt + (hasAuth ? 4 : 0)) return undefined
  if (hasAuth && bytes.length < authAt + 4 + bytes.readUInt32LE(authAt)) return undefined
  const alarms: Alarm[] = []
  let downgrade: MinorVersion | undefined
  let version = firstStoreVersion
  let timeMs = 0
  const times: TimeMark[] = []
  for (let record = 0; record < count; record++) {
    const number = bytes.readBigUInt64LE(headBytes + record * 9)
    const kind = bytes[headBytes + record * 9 + 8]!
    if (kind === downgradeRecord) downgrade = unpackVersion(number)
    else if (kind === versionRecord) version = Number(number)
    else if (kind === timeRecord) timeMs = Number(number)
    else if (kind === revisionRecord) times.push({ timeMs, revision: Number(number) })
    else alarms.push({ member: number, alarm: alarmKinds[kind]! })
  }
  if (version > storeVersion) throw newerStore(version)
  const auth = decodeAuthState(bytes, hasAuth ? authAt : undefined)
  return { alarms, auth: auth.state, downgrade, version, times, bytes: authAt + auth.bytes }
}

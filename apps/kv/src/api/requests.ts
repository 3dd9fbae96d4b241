import * as rpc from '@kiln/etcd-api/rpc'
import {
  type Compare,
  type CompareResult,
  type DeleteRangeRequest,
  type PutRequest,
  type RangeRequest,
  type RequestOp,
  refusals,
  type SortOrder,
  type SortTarget,
  type TxnRequest,
  type WatchCreate,
} from '@kiln/mvcc'
import { GrpcError, grpcCode } from '@kiln/wire'
import type { AlarmKind } from '../state/command.ts'
import { fail } from './errors.ts'

/** Requests from their protobuf bytes to the store's words. Anything malformed ends the call as with Go's gRPC servers. */
export function decode<T>(codec: { decode(bytes: Uint8Array): T }, bytes: Uint8Array): T {
  try {
    return codec.decode(bytes)
  } catch (cause) {
    throw new GrpcError(grpcCode.internal, 'grpc: error unmarshalling request: these bytes are no message', {
      cause,
    })
  }
}

const sortOrders: SortOrder[] = ['none', 'ascend', 'descend']
const sortTargets: SortTarget[] = ['key', 'version', 'create', 'mod', 'value']
const results: CompareResult[] = ['equal', 'greater', 'less', 'not-equal']
const alarmKinds: (AlarmKind | undefined)[] = [undefined, 'nospace', 'corrupt']

export function decodeRange(bytes: Uint8Array): RangeRequest & { serializable: boolean } {
  const request = decode(rpc.RangeRequest, bytes)
  return { ...toRange(request), serializable: request.serializable }
}

function toRange(request: rpc.RangeRequest): RangeRequest {
  return {
    key: request.key,
    rangeEnd: request.rangeEnd,
    limit: Number(request.limit),
    revision: Number(request.revision),
    sortOrder: sortOrders[request.sortOrder] ?? fail(refusals.invalidSort),
    sortTarget: sortTargets[request.sortTarget] ?? fail(refusals.invalidSort),
    keysOnly: request.keysOnly,
    countOnly: request.countOnly,
    minModRevision: Number(request.minModRevision),
    maxModRevision: Number(request.maxModRevision),
    minCreateRevision: Number(request.minCreateRevision),
    maxCreateRevision: Number(request.maxCreateRevision),
  }
}

export const decodePut = (bytes: Uint8Array): PutRequest => decode(rpc.PutRequest, bytes)
export const decodeDelete = (bytes: Uint8Array): DeleteRangeRequest => decode(rpc.DeleteRangeRequest, bytes)
export const decodeTxn = (bytes: Uint8Array): TxnRequest => toTxn(decode(rpc.TxnRequest, bytes))

/** Whether every operation of a transaction is a read that may be answered by this member alone. */
export function isSerializableTxn(bytes: Uint8Array): boolean {
  const { success, failure } = decode(rpc.TxnRequest, bytes)
  return [...success, ...failure].every(
    ({ request }) => request?.$case === 'requestRange' && request.value.serializable,
  )
}

export function decodeCompaction(bytes: Uint8Array): { revision: number; physical: boolean } {
  const { revision, physical } = decode(rpc.CompactionRequest, bytes)
  return { revision: Number(revision), physical }
}

function toTxn(request: rpc.TxnRequest): TxnRequest {
  return {
    compare: request.compare.map(toCompare),
    success: request.success.map(toOp),
    failure: request.failure.map(toOp),
  }
}

function toOp({ request }: rpc.RequestOp): RequestOp {
  switch (request?.$case) {
    case 'requestRange':
      return { kind: 'range', request: toRange(request.value) }
    case 'requestPut':
      return { kind: 'put', request: request.value }
    case 'requestDeleteRange':
      return { kind: 'delete', request: request.value }
    case 'requestTxn':
      return { kind: 'txn', request: toTxn(request.value) }
    case undefined:
      return { kind: 'empty' }
  }
}

/** A compare whose value is left out compares with the target's zero. */
function toCompare({ key, rangeEnd, result, target, targetUnion }: rpc.Compare): Compare {
  const head = { key, rangeEnd, result: results[result] ?? 'equal' }
  const number = typeof targetUnion?.value === 'bigint' ? targetUnion.value : 0n
  switch (target) {
    case rpc.Compare_CompareTarget.VERSION:
      return { ...head, target: 'version', wanted: Number(number) }
    case rpc.Compare_CompareTarget.CREATE:
      return { ...head, target: 'create', wanted: Number(number) }
    case rpc.Compare_CompareTarget.MOD:
      return { ...head, target: 'mod', wanted: Number(number) }
    case rpc.Compare_CompareTarget.LEASE:
      return { ...head, target: 'lease', wanted: number }
    case rpc.Compare_CompareTarget.VALUE: {
      const value = targetUnion?.$case === 'value' ? targetUnion.value : new Uint8Array(0)
      return { ...head, target: 'value', wanted: value }
    }
  }
  // A number on the wire may be none of the enum's.
  fail({ code: grpcCode.invalidArgument, text: `etcdserver: unknown compare target ${target as number}` })
}

export type WatchAsk =
  | { kind: 'create'; create: WatchCreate }
  | { kind: 'cancel'; watchId: number }
  | { kind: 'progress' | 'none' }

export function decodeWatch(bytes: Uint8Array): WatchAsk {
  const { requestUnion } = decode(rpc.WatchRequest, bytes)
  switch (requestUnion?.$case) {
    case 'createRequest': {
      const { key, rangeEnd, startRevision, progressNotify, filters, prevKv, watchId, fragment } =
        requestUnion.value
      const create = {
        key,
        rangeEnd,
        startRevision: Number(startRevision),
        watchId: Number(watchId),
        prevKv,
        noPut: filters.includes(rpc.WatchCreateRequest_FilterType.NOPUT),
        noDelete: filters.includes(rpc.WatchCreateRequest_FilterType.NODELETE),
        fragment,
        progressNotify,
      }
      return { kind: 'create', create }
    }
    case 'cancelRequest':
      return { kind: 'cancel', watchId: Number(requestUnion.value.watchId) }
    case 'progressRequest':
      return { kind: 'progress' }
    case undefined:
      return { kind: 'none' }
  }
}

export function decodeLeaseGrant(bytes: Uint8Array): { id: bigint; ttl: number } {
  const { ID, TTL } = decode(rpc.LeaseGrantRequest, bytes)
  return { id: ID, ttl: Number(TTL) }
}

/** Of a revoke or keep-alive: both have just the id. */
export const decodeLeaseId = (bytes: Uint8Array): bigint => decode(rpc.LeaseRevokeRequest, bytes).ID

export function decodeTimeToLive(bytes: Uint8Array): { id: bigint; keys: boolean } {
  const { ID, keys } = decode(rpc.LeaseTimeToLiveRequest, bytes)
  return { id: ID, keys }
}

export const decodeMemberList = (bytes: Uint8Array): { linearizable: boolean } =>
  decode(rpc.MemberListRequest, bytes)

export function decodeMemberAdd(bytes: Uint8Array): { peerUrls: string[]; learner: boolean } {
  const { peerURLs, isLearner } = decode(rpc.MemberAddRequest, bytes)
  return { peerUrls: peerURLs, learner: isLearner }
}

/** Of a removal or promotion: both have just the id. */
export const decodeMemberId = (bytes: Uint8Array): bigint => decode(rpc.MemberRemoveRequest, bytes).ID

export function decodeMemberUpdate(bytes: Uint8Array): { id: bigint; peerUrls: string[] } {
  const { ID, peerURLs } = decode(rpc.MemberUpdateRequest, bytes)
  return { id: ID, peerUrls: peerURLs }
}

export type AlarmAsk = {
  action: 'get' | 'activate' | 'deactivate'
  member: bigint
  alarm: AlarmKind | undefined
}

export function decodeAlarm(bytes: Uint8Array): AlarmAsk {
  const { action, memberID, alarm } = decode(rpc.AlarmRequest, bytes)
  const name = (['get', 'activate', 'deactivate'] as const)[action] ?? 'get'
  return { action: name, member: memberID, alarm: alarmKinds[alarm] }
}

export function decodeHashKv(bytes: Uint8Array): { revision: number } {
  return { revision: Number(decode(rpc.HashKVRequest, bytes).revision) }
}

export function decodeDowngrade(bytes: Uint8Array): {
  action: 'validate' | 'enable' | 'cancel'
  version: string
} {
  const { action, version } = decode(rpc.DowngradeRequest, bytes)
  const name = (['validate', 'enable', 'cancel'] as const)[action]
  return { action: name ?? fail({ code: 2, text: 'etcdserver: unknown command' }), version }
}

export const decodeMoveLeader = (bytes: Uint8Array): bigint => decode(rpc.MoveLeaderRequest, bytes).targetID

/** A compaction that this member itself proposes. */
export const encodeCompact = (revision: number): Uint8Array =>
  rpc.CompactionRequest.encode({ revision: BigInt(revision), physical: false }).finish()

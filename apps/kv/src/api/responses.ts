import * as kv from '@kiln/etcd-api/mvcc'
import * as rpc from '@kiln/etcd-api/rpc'
import {
  type DeleteRangeResponse,
  fromKey,
  type KeyValue,
  type PutResponse,
  type RangeResponse,
  type ResponseOp,
  type StoreEvent,
  type StoreHash,
  type TxnResponse,
  type WatchMessage,
} from '@kiln/mvcc'
import type { Member } from '../consensus/types.ts'
import type { Alarm } from '../state/alarm-book.ts'
import type { ResponseHeader } from './context.ts'

/** Responses from the store's words to protobuf bytes. */

export const toHeader = ({
  clusterId,
  memberId,
  revision,
  raftTerm,
}: ResponseHeader): rpc.ResponseHeader => ({
  clusterId,
  memberId,
  revision: BigInt(revision),
  raftTerm: BigInt(raftTerm),
})

/** Within a transaction's responses only the revision is told. */
const innerHeader = (revision: number): rpc.ResponseHeader => ({
  clusterId: 0n,
  memberId: 0n,
  revision: BigInt(revision),
  raftTerm: 0n,
})

export const toKeyValue = (pair: KeyValue): kv.KeyValue => ({
  key: pair.key,
  value: pair.value,
  createRevision: BigInt(pair.createRevision),
  modRevision: BigInt(pair.modRevision),
  version: BigInt(pair.version),
  lease: pair.lease,
})

const toRange = (header: rpc.ResponseHeader, { kvs, more, count }: RangeResponse): rpc.RangeResponse => ({
  header,
  kvs: kvs.map(toKeyValue),
  more,
  count: BigInt(count),
})
const toPut = (header: rpc.ResponseHeader, { prevKv }: PutResponse): rpc.PutResponse => ({
  header,
  prevKv: prevKv && toKeyValue(prevKv),
})
const toDelete = (
  header: rpc.ResponseHeader,
  { deleted, prevKvs }: DeleteRangeResponse,
): rpc.DeleteRangeResponse => ({ header, deleted: BigInt(deleted), prevKvs: prevKvs.map(toKeyValue) })
const toTxn = (header: rpc.ResponseHeader, { succeeded, responses }: TxnResponse): rpc.TxnResponse => ({
  header,
  succeeded,
  responses: responses.map((op) => ({ response: toOp(op) })),
})

function toOp({ kind, response }: ResponseOp): rpc.ResponseOp['response'] {
  const header = innerHeader(response.revision)
  switch (kind) {
    case 'range':
      return { $case: 'responseRange', value: toRange(header, response) }
    case 'put':
      return { $case: 'responsePut', value: toPut(header, response) }
    case 'delete':
      return { $case: 'responseDeleteRange', value: toDelete(header, response) }
    case 'txn':
      return { $case: 'responseTxn', value: toTxn(header, response) }
  }
}

export const encodeRange = (header: ResponseHeader, response: RangeResponse): Uint8Array =>
  rpc.RangeResponse.encode(toRange(toHeader(header), response)).finish()
/** Pairs as part of a range answer whose rest has the other fields. */
export const encodePairs = (kvs: readonly KeyValue[]): Uint8Array =>
  rpc.RangeResponse.encode({ header: undefined, kvs: kvs.map(toKeyValue), more: false, count: 0n }).finish()
export const encodePut = (header: ResponseHeader, response: PutResponse): Uint8Array =>
  rpc.PutResponse.encode(toPut(toHeader(header), response)).finish()
export const encodeDelete = (header: ResponseHeader, response: DeleteRangeResponse): Uint8Array =>
  rpc.DeleteRangeResponse.encode(toDelete(toHeader(header), response)).finish()
export const encodeTxn = (header: ResponseHeader, response: TxnResponse): Uint8Array =>
  rpc.TxnResponse.encode(toTxn(toHeader(header), response)).finish()

/** Compactions, defragmentations and the like answer with a header and nothing else. */
export const encodeHeaderOnly = (header: ResponseHeader): Uint8Array =>
  rpc.CompactionResponse.encode({ header: toHeader(header) }).finish()

const encodedEvents = new WeakMap<readonly StoreEvent[], Uint8Array>()

/** Events as part of a watch message whose rest has the other fields; encoded once for all watchers that see the same ones. */
export function encodeEvents(events: readonly StoreEvent[]): Uint8Array {
  const found = encodedEvents.get(events)
  if (found) return found
  const list = events.map(({ type, kv: pair, prevKv }) => ({
    type: type === 'put' ? kv.Event_EventType.PUT : kv.Event_EventType.DELETE,
    kv: toKeyValue(pair),
    prevKv: prevKv && toKeyValue(prevKv),
  }))
  const encoded = rpc.WatchResponse.encode({ ...emptyWatch, events: list }).finish()
  encodedEvents.set(events, encoded)
  return encoded
}

const emptyWatch = rpc.WatchResponse.decode(new Uint8Array(0))

/** What a watch message says besides its events. */
export function encodeWatchHead(header: ResponseHeader, message: WatchMessage): Uint8Array {
  // The header of a compacted start has no revision.
  const told = { ...header, revision: message.revision }
  if (message.events.length > 0 && !message.fragment && message.watchId >= 0) {
    return eventsHead(told, message.watchId)
  }
  return rpc.WatchResponse.encode({
    header: toHeader(told),
    watchId: BigInt(message.watchId),
    created: message.created,
    canceled: message.canceled,
    compactRevision: BigInt(message.compactRevision),
    cancelReason: message.cancelReason,
    fragment: message.fragment,
    events: [],
  }).finish()
}

let lastHeader: { of: ResponseHeader; bytes: Uint8Array } | undefined

/** The usual head, for one of many watchers that are told of the same revision: the header as last time, and the id (field 2). */
function eventsHead(header: ResponseHeader, watchId: number): Uint8Array {
  if (!lastHeader || !isSameHeader(lastHeader.of, header)) {
    const bytes = rpc.WatchResponse.encode({ ...emptyWatch, header: toHeader(header) }).finish()
    lastHeader = { of: header, bytes }
  }
  const { bytes } = lastHeader
  if (watchId === 0) return bytes
  const head = Buffer.allocUnsafe(bytes.length + 9)
  head.set(bytes)
  let at = bytes.length
  head[at++] = 0x10
  let rest = watchId
  for (; rest > 0x7f; rest = Math.floor(rest / 128)) head[at++] = (rest & 0x7f) | 0x80
  head[at++] = rest
  return head.subarray(0, at)
}

const isSameHeader = (a: ResponseHeader, b: ResponseHeader): boolean =>
  a.revision === b.revision &&
  a.raftTerm === b.raftTerm &&
  a.memberId === b.memberId &&
  a.clusterId === b.clusterId

export const encodeLeaseGrant = (
  header: ResponseHeader,
  { id, ttl }: { id: bigint; ttl: number },
): Uint8Array =>
  rpc.LeaseGrantResponse.encode({ header: toHeader(header), ID: id, TTL: BigInt(ttl), error: '' }).finish()

export const encodeKeepAlive = (
  header: ResponseHeader,
  { id, ttl }: { id: bigint; ttl: number },
): Uint8Array =>
  rpc.LeaseKeepAliveResponse.encode({ header: toHeader(header), ID: id, TTL: BigInt(ttl) }).finish()

export function encodeTimeToLive(
  header: ResponseHeader,
  lease: { id: bigint; ttl: number; grantedTtl: number; keys: string[] },
): Uint8Array {
  return rpc.LeaseTimeToLiveResponse.encode({
    header: toHeader(header),
    ID: lease.id,
    TTL: BigInt(lease.ttl),
    grantedTTL: BigInt(lease.grantedTtl),
    keys: lease.keys.map(fromKey),
  }).finish()
}

export const encodeLeases = (header: ResponseHeader, ids: bigint[]): Uint8Array =>
  rpc.LeaseLeasesResponse.encode({ header: toHeader(header), leases: ids.map((ID) => ({ ID })) }).finish()

const toMember = ({ id, name, peerUrls, clientUrls, learner }: Member): rpc.Member => ({
  ID: id,
  name,
  peerURLs: peerUrls,
  clientURLs: clientUrls,
  isLearner: learner,
})

/** Lists, removals, promotions and updates all answer with the members. */
export const encodeMembers = (header: ResponseHeader, members: readonly Member[]): Uint8Array =>
  rpc.MemberListResponse.encode({ header: toHeader(header), members: members.map(toMember) }).finish()

export const encodeMemberAdd = (
  header: ResponseHeader,
  member: Member,
  members: readonly Member[],
): Uint8Array =>
  rpc.MemberAddResponse.encode({
    header: toHeader(header),
    member: toMember(member),
    members: members.map(toMember),
  }).finish()

export type StatusFields = {
  version: string
  dbSize: number
  dbSizeInUse: number
  leader: bigint
  raftIndex: number
  raftTerm: number
  raftAppliedIndex: number
  errors: string[]
  isLearner: boolean
  storageVersion: string
  quota: number
  downgrade: string | undefined
}

export function encodeStatus(header: ResponseHeader, status: StatusFields): Uint8Array {
  return rpc.StatusResponse.encode({
    header: toHeader(header),
    version: status.version,
    dbSize: BigInt(status.dbSize),
    dbSizeInUse: BigInt(status.dbSizeInUse),
    leader: status.leader,
    raftIndex: BigInt(status.raftIndex),
    raftTerm: BigInt(status.raftTerm),
    raftAppliedIndex: BigInt(status.raftAppliedIndex),
    errors: status.errors,
    isLearner: status.isLearner,
    storageVersion: status.storageVersion,
    dbSizeQuota: BigInt(Math.max(0, status.quota)),
    downgradeInfo: { enabled: status.downgrade !== undefined, targetVersion: status.downgrade ?? '' },
  }).finish()
}

export const encodeDowngrade = (header: ResponseHeader, version: string): Uint8Array =>
  rpc.DowngradeResponse.encode({ header: toHeader(header), version }).finish()

export const encodeAlarms = (header: ResponseHeader, alarms: readonly Alarm[]): Uint8Array =>
  rpc.AlarmResponse.encode({
    header: toHeader(header),
    alarms: alarms.map(({ member, alarm }) => ({
      memberID: member,
      alarm: alarm === 'nospace' ? rpc.AlarmType.NOSPACE : rpc.AlarmType.CORRUPT,
    })),
  }).finish()

export const encodeHash = (header: ResponseHeader, { hash }: StoreHash): Uint8Array =>
  rpc.HashResponse.encode({ header: toHeader(header), hash }).finish()

export function encodeHashKv(header: ResponseHeader, answer: StoreHash): Uint8Array {
  return rpc.HashKVResponse.encode({
    header: toHeader(header),
    hash: answer.hash,
    compactRevision: BigInt(answer.compactRevision),
    hashRevision: BigInt(answer.hashRevision),
  }).finish()
}

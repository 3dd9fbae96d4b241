import { type Clock, systemClock } from '@kiln/service'
import { type Bytes, prefixRange, toBytes, toText } from './bytes.ts'
import { type CallOf, type ClientTls, type ClientTlsSource, Endpoints, type StoreUser } from './endpoints.ts'
import { type StoreEntry, storeEntry } from './entry.ts'
import {
  CompactionRequest,
  DeleteRangeRequest,
  HashKVRequest,
  LeaseLeasesRequest,
  LeaseTimeToLiveRequest,
  type Member,
  MemberAddRequest,
  MemberListRequest,
  MemberPromoteRequest,
  MemberRemoveRequest,
  MoveLeaderRequest,
  RangeRequest,
  type RangeResponse,
  StatusRequest,
  TxnRequest,
} from './generated/rpc.ts'
import {
  grantLease,
  type HeldLease,
  type HoldLeaseOptions,
  holdLease,
  keepAliveOnce,
  revokeLease,
} from './lease.ts'
import { type Method, methods } from './methods.ts'
import { readSnapshot, type SnapshotPart } from './snapshot.ts'
import {
  type Comparison,
  compareOf,
  describeOperation,
  type Operation,
  type OperationResult,
  putOf,
  requestOf,
  resultOf,
} from './txn.ts'
import { openWatch, type Watch, type WatchOptions } from './watch.ts'

export type EtcdClientOptions = {
  /** `https://HOST:PORT` or `http://HOST:PORT`, in order of preference. */
  endpoints: readonly string[]
  /** A function is asked whenever a connection opens, so that a renewed certificate is used without a restart. */
  tls?: ClientTlsSource
  /** How long a call may take in all. Default 5000. */
  timeoutMs?: number
  /** Signs in with this; without it the certificate says who asks, if the cluster wants to know. */
  user?: StoreUser | undefined
  /** When a connection that went silent is pinged, and how long the answer may take; 10 s and 5 s unless told. */
  keepAlive?: { intervalMs: number; timeoutMs: number }
  clock?: Clock
}

export type GetOptions = {
  /** As of this revision; the newest by default. */
  revision?: bigint
  /** Answered by the member asked, without quorum; may be old. */
  serializable?: boolean
}

export type PrefixEntries = { entries: StoreEntry[]; revision: bigint; count: number; more: boolean }

export type StoreMember = {
  id: bigint
  /** Empty until it has started. */
  name: string
  peerUrls: string[]
  clientUrls: string[]
  isLearner: boolean
}

export type EndpointStatus = {
  endpoint: string
  clusterId: bigint
  memberId: bigint
  /** 0: it knows of none. */
  leaderId: bigint
  isLearner: boolean
  version: string
  revision: bigint
  raftTerm: bigint
  raftIndex: bigint
  raftAppliedIndex: bigint
  dbSizeBytes: bigint
  errors: string[]
}

const timeoutMsDefault = 5000

/**
 * A client of the etcd v3 API. Faults: `STORE_UNREACHABLE`, `STORE_TIMEOUT` and `STORE_NO_LEADER` mean that nothing was changed;
 * `STORE_UNKNOWN_OUTCOME` that a write may have been applied; the other `STORE_` codes that the store refused.
 */
export class EtcdClient {
  private readonly endpoints: Endpoints
  private readonly clock: Clock
  private readonly timeoutMs: number

  constructor(options: EtcdClientOptions) {
    this.timeoutMs = options.timeoutMs ?? timeoutMsDefault
    this.clock = options.clock ?? systemClock
    this.endpoints = new Endpoints(
      options.endpoints,
      options.tls,
      this.timeoutMs,
      options.user,
      options.keepAlive,
    )
  }

  /** The endpoints, the one in use first. */
  get endpointUrls(): string[] {
    return this.endpoints.urls
  }

  /** Any other method of the API, with the same fail-over and faults. */
  call<Request, Response>(
    method: Method<Request, Response>,
    request: Request,
    options: CallOf,
  ): Promise<Response> {
    return this.endpoints.call(method, request, options)
  }

  async get(key: Bytes, options: GetOptions = {}): Promise<StoreEntry | undefined> {
    const answer = await this.range({ key: toBytes(key) }, options, `get ${name(key)}`)
    return answer.kvs[0] === undefined ? undefined : storeEntry(answer.kvs[0])
  }

  /**
   * All keys that begin with `prefix`, in order, as of one revision: watch from `revision + 1n` to miss nothing. `from` leaves out what
   * comes before it; `scanPrefix` reads a large prefix page by page.
   */
  async getPrefix(
    prefix: Bytes,
    options: GetOptions & { limit?: number; keysOnly?: boolean; from?: Bytes } = {},
  ): Promise<PrefixEntries> {
    const { limit = 0, keysOnly = false, from } = options
    const start = from === undefined ? {} : { key: toBytes(from) }
    const range = { ...prefixRange(prefix), ...start, limit: BigInt(limit), keysOnly }
    const answer = await this.range(range, options, `get all of ${name(prefix)}`)
    return {
      entries: answer.kvs.map(storeEntry),
      revision: answer.header?.revision ?? 0n,
      count: Number(answer.count),
      more: answer.more,
    }
  }

  async put(key: Bytes, value: Bytes, options: { lease?: bigint } = {}): Promise<{ revision: bigint }> {
    const answer = await this.endpoints.call(methods.put, putOf(key, value, options.lease), {
      doing: `put ${name(key)}`,
    })
    return { revision: answer.header?.revision ?? 0n }
  }

  delete(key: Bytes): Promise<{ deleted: number; revision: bigint }> {
    return this.deleteRange({ key: toBytes(key) }, `delete ${name(key)}`)
  }

  deletePrefix(prefix: Bytes): Promise<{ deleted: number; revision: bigint }> {
    return this.deleteRange(prefixRange(prefix), `delete all of ${name(prefix)}`)
  }

  /** Does `success` if all comparisons hold, else `failure`, at once. */
  async txn(txn: {
    compare?: readonly Comparison[]
    success?: readonly Operation[]
    failure?: readonly Operation[]
  }): Promise<{ succeeded: boolean; revision: bigint; results: OperationResult[] }> {
    const { compare = [], success = [], failure = [] } = txn
    const request = TxnRequest.fromPartial({
      compare: compare.map(compareOf),
      success: success.map(requestOf),
      failure: failure.map(requestOf),
    })
    const doing = `transaction [${[...success, ...failure].slice(0, 4).map(describeOperation).join(', ')}]`
    const answer = await this.endpoints.call(methods.txn, request, { doing })
    return {
      succeeded: answer.succeeded,
      revision: answer.header?.revision ?? 0n,
      results: answer.responses.map(resultOf),
    }
  }

  /** Writes the value if the key is still as of `modRevision` (0: missing); else answers what it is now. */
  async compareAndSwap(
    key: Bytes,
    change: { modRevision: bigint; value: Bytes; lease?: bigint },
  ): Promise<{ swapped: true; revision: bigint } | { swapped: false; current: StoreEntry | undefined }> {
    const { modRevision, value, lease } = change
    const { succeeded, revision, results } = await this.txn({
      compare: [{ key, modRevision }],
      success: [{ kind: 'put', key, value, lease }],
      failure: [{ kind: 'get', key }],
    })
    return succeeded ? { swapped: true, revision } : { swapped: false, current: entryOf(results[0]) }
  }

  /** Writes the key if there is none; else answers what there is. */
  async createIfMissing(
    key: Bytes,
    value: Bytes,
    options: { lease?: bigint } = {},
  ): Promise<{ created: true; revision: bigint } | { created: false; current: StoreEntry | undefined }> {
    const outcome = await this.compareAndSwap(key, { modRevision: 0n, value, lease: options.lease })
    return outcome.swapped
      ? { created: true, revision: outcome.revision }
      : { created: false, current: outcome.current }
  }

  /** Deletes the key if it is still as of `modRevision`; else answers what it is now. */
  async compareAndDelete(
    key: Bytes,
    modRevision: bigint,
  ): Promise<{ deleted: true; revision: bigint } | { deleted: false; current: StoreEntry | undefined }> {
    const { succeeded, revision, results } = await this.txn({
      compare: [{ key, modRevision }],
      success: [{ kind: 'delete', key }],
      failure: [{ kind: 'get', key }],
    })
    return succeeded ? { deleted: true, revision } : { deleted: false, current: entryOf(results[0]) }
  }

  async compact(revision: bigint): Promise<void> {
    const request = CompactionRequest.fromPartial({ revision })
    await this.endpoints.call(methods.compact, request, { doing: `compact to revision ${revision}` })
  }

  /** Follows all keys that begin with `prefix` (or the one key, with `exact`). */
  watch(prefix: Bytes, options: WatchOptions = {}): Watch {
    return openWatch(this.endpoints, this.clock, this.timeoutMs, prefix, options)
  }

  leaseGrant(ttlSeconds: number, options: { id?: bigint } = {}): Promise<{ id: bigint; ttlSeconds: number }> {
    return grantLease(this.endpoints, ttlSeconds, options.id)
  }

  leaseRevoke(id: bigint): Promise<void> {
    return revokeLease(this.endpoints, id)
  }

  /** Renews a lease once; answers the seconds it has now, 0 if it is gone. */
  leaseKeepAliveOnce(id: bigint): Promise<number> {
    return keepAliveOnce(this.endpoints, this.clock, id, this.timeoutMs)
  }

  /** Seconds left, and the keys; undefined if there is no such lease. */
  async leaseTimeToLive(
    id: bigint,
  ): Promise<{ ttlSeconds: number; grantedSeconds: number; keys: string[] } | undefined> {
    const request = LeaseTimeToLiveRequest.fromPartial({ ID: id, keys: true })
    const doing = `ask for lease ${id.toString(16)}`
    const answer = await this.endpoints.call(methods.leaseTimeToLive, request, { doing })
    if (answer.TTL < 0n) return undefined
    return {
      ttlSeconds: Number(answer.TTL),
      grantedSeconds: Number(answer.grantedTTL),
      keys: answer.keys.map(toText),
    }
  }

  /** The ids of all leases. */
  async leaseList(): Promise<bigint[]> {
    const answer = await this.endpoints.call(methods.leaseLeases, LeaseLeasesRequest.fromPartial({}), {
      doing: 'list leases',
    })
    return answer.leases.map((lease) => lease.ID)
  }

  /** Grants a lease and keeps it, over leader changes and lost connections, until it is closed. */
  holdLease(options: HoldLeaseOptions): Promise<HeldLease> {
    return holdLease(this.endpoints, this.clock, this.timeoutMs, options)
  }

  async memberList(): Promise<StoreMember[]> {
    const request = MemberListRequest.fromPartial({ linearizable: true })
    const answer = await this.endpoints.call(methods.memberList, request, { doing: 'list members' })
    return answer.members.map(storeMember)
  }

  async memberAdd(options: {
    peerUrls: string[]
    isLearner?: boolean
  }): Promise<{ member: StoreMember; members: StoreMember[] }> {
    const { peerUrls, isLearner = false } = options
    const request = MemberAddRequest.fromPartial({ peerURLs: peerUrls, isLearner })
    const doing = `add member ${peerUrls.join(',')}`
    const answer = await this.endpoints.call(methods.memberAdd, request, { doing })
    return { member: storeMember(answer.member!), members: answer.members.map(storeMember) }
  }

  async memberRemove(id: bigint): Promise<StoreMember[]> {
    const request = MemberRemoveRequest.fromPartial({ ID: id })
    const doing = `remove member ${id.toString(16)}`
    const answer = await this.endpoints.call(methods.memberRemove, request, { doing })
    return answer.members.map(storeMember)
  }

  /** Makes a learner a voter. */
  async memberPromote(id: bigint): Promise<StoreMember[]> {
    const request = MemberPromoteRequest.fromPartial({ ID: id })
    const doing = `promote member ${id.toString(16)}`
    const answer = await this.endpoints.call(methods.memberPromote, request, { doing })
    return answer.members.map(storeMember)
  }

  /** Hands the leadership to another member. `endpoint` must be the leader's. */
  async moveLeader(endpoint: string, targetId: bigint): Promise<void> {
    const request = MoveLeaderRequest.fromPartial({ targetID: targetId })
    const doing = `move the leadership to ${targetId.toString(16)}`
    await this.endpoints.call(methods.moveLeader, request, { doing, only: endpoint })
  }

  /** How one endpoint (the one in use by default) is doing. */
  async status(endpoint = this.endpoints.urls[0]!): Promise<EndpointStatus> {
    const request = StatusRequest.fromPartial({})
    const answer = await this.endpoints.call(methods.status, request, {
      doing: 'ask for status',
      only: endpoint,
    })
    return {
      endpoint,
      clusterId: answer.header?.clusterId ?? 0n,
      memberId: answer.header?.memberId ?? 0n,
      leaderId: answer.leader,
      isLearner: answer.isLearner,
      version: answer.version,
      revision: answer.header?.revision ?? 0n,
      raftTerm: answer.raftTerm,
      raftIndex: answer.raftIndex,
      raftAppliedIndex: answer.raftAppliedIndex,
      dbSizeBytes: answer.dbSize,
      errors: answer.errors,
    }
  }

  /** Hash of all versions up to `revision` (the current one by default) that one member has. */
  async hashKv(
    revision = 0n,
    endpoint = this.endpoints.urls[0]!,
  ): Promise<{ hash: number; compactRevision: bigint; revision: bigint }> {
    const answer = await this.endpoints.call(methods.hashKv, HashKVRequest.fromPartial({ revision }), {
      doing: 'ask for the hash',
      only: endpoint,
    })
    return {
      hash: answer.hash,
      compactRevision: answer.compactRevision,
      revision: answer.header?.revision ?? 0n,
    }
  }

  /** The database of a member, as it comes. */
  snapshot(): AsyncGenerator<SnapshotPart, void> {
    return readSnapshot(this.endpoints)
  }

  /** Connects anew with a renewed certificate; watches and held leases go on, calls under way may fail. */
  renewTls(tls: ClientTls): void {
    this.endpoints.renewTls(tls)
  }

  /** Ends all connections. Close held leases first, for theirs to be revoked. */
  close(): void {
    this.endpoints.close()
  }

  private range(range: Partial<RangeRequest>, options: GetOptions, doing: string): Promise<RangeResponse> {
    const { revision = 0n, serializable = false } = options
    return this.endpoints.call(
      methods.range,
      RangeRequest.fromPartial({ ...range, revision, serializable }),
      { doing },
    )
  }

  private async deleteRange(
    range: Partial<DeleteRangeRequest>,
    doing: string,
  ): Promise<{ deleted: number; revision: bigint }> {
    const answer = await this.endpoints.call(methods.deleteRange, DeleteRangeRequest.fromPartial(range), {
      doing,
    })
    return { deleted: Number(answer.deleted), revision: answer.header?.revision ?? 0n }
  }
}

function entryOf(result: OperationResult | undefined): StoreEntry | undefined {
  return result?.kind === 'get' ? result.entries[0] : undefined
}

function storeMember(member: Member): StoreMember {
  return {
    id: member.ID,
    name: member.name,
    peerUrls: member.peerURLs,
    clientUrls: member.clientURLs,
    isLearner: member.isLearner,
  }
}

function name(key: Bytes): string {
  return typeof key === 'string' ? key : toText(key)
}

import {
  createWireServer,
  GrpcError,
  grpcCode,
  type StreamCall,
  type WireServer,
  type WireTls,
} from '@kiln/wire'
import { Event_EventType, KeyValue } from '../generated/mvcc.ts'
import {
  Compare_CompareTarget,
  DeleteRangeRequest,
  DeleteRangeResponse,
  LeaseGrantRequest,
  LeaseGrantResponse,
  LeaseKeepAliveRequest,
  LeaseKeepAliveResponse,
  LeaseRevokeRequest,
  LeaseRevokeResponse,
  MemberListResponse,
  PutRequest,
  PutResponse,
  RangeRequest,
  RangeResponse,
  ResponseHeader,
  StatusResponse,
  TxnRequest,
  TxnResponse,
  WatchRequest,
  WatchResponse,
} from '../generated/rpc.ts'

/** What the members of a fake cluster share. */
export type FakeState = {
  clusterId: bigint
  revision: bigint
  compacted: bigint
  keys: Map<string, KeyValue>
  history: { revision: bigint; kv: KeyValue; deleted: boolean }[]
  leases: Map<bigint, number>
  watches: Set<{ notify(): void }>
}

export function fakeState(): FakeState {
  return {
    clusterId: 7n,
    revision: 1n,
    compacted: 0n,
    keys: new Map(),
    history: [],
    leases: new Map(),
    watches: new Set(),
  }
}

/** How one member misbehaves. */
export type FakeFaults = {
  /** Unary requests that are applied and then never answered. */
  swallowAnswers: boolean
  noLeader: boolean
  calls: string[]
}

export type FakeMember = { url: string; server: WireServer; faults: FakeFaults; stop(): Promise<void> }

/** A member of a store that keeps everything in memory and knows just enough of the API to test a client. */
export async function startFakeMember(
  state: FakeState,
  memberId: bigint,
  tls?: WireTls,
): Promise<FakeMember> {
  const faults: FakeFaults = { swallowAnswers: false, noLeader: false, calls: [] }
  const server = createWireServer({ tls })
  const header = () =>
    ResponseHeader.fromPartial({
      clusterId: state.clusterId,
      memberId,
      revision: state.revision,
      raftTerm: 2n,
    })

  function change(kv: KeyValue, deleted: boolean): void {
    const key = Buffer.from(kv.key).toString()
    if (deleted) state.keys.delete(key)
    else state.keys.set(key, kv)
    state.history.push({ revision: state.revision, kv, deleted })
  }

  function put(request: PutRequest): void {
    if (request.lease !== 0n && !state.leases.has(request.lease))
      throw new GrpcError(grpcCode.notFound, 'etcdserver: requested lease not found')
    const before = state.keys.get(Buffer.from(request.key).toString())
    const { key, value, lease } = request
    const created = before?.createRevision ?? state.revision
    change(
      {
        key,
        value,
        lease,
        createRevision: created,
        modRevision: state.revision,
        version: (before?.version ?? 0n) + 1n,
      },
      false,
    )
  }

  function inRange(request: { key: Uint8Array; rangeEnd: Uint8Array }): KeyValue[] {
    const key = Buffer.from(request.key)
    const end = Buffer.from(request.rangeEnd)
    return [...state.keys.values()]
      .filter((kv) => {
        if (end.length === 0) return key.equals(kv.key)
        const toEnd = end.length === 1 && end[0] === 0
        return Buffer.compare(kv.key, key) >= 0 && (toEnd || Buffer.compare(kv.key, end) < 0)
      })
      .sort((a, b) => Buffer.compare(a.key, b.key))
  }

  function range(request: RangeRequest): RangeResponse {
    if (request.revision > 0n && request.revision < state.compacted)
      throw new GrpcError(grpcCode.outOfRange, 'etcdserver: mvcc: required revision has been compacted')
    const kvs = inRange(request)
    const limited = request.limit > 0n ? kvs.slice(0, Number(request.limit)) : kvs
    return RangeResponse.fromPartial({
      header: header(),
      kvs: limited,
      count: BigInt(kvs.length),
      more: limited.length < kvs.length,
    })
  }

  function remove(request: DeleteRangeRequest): bigint {
    const kvs = inRange(request)
    for (const kv of kvs) change(KeyValue.fromPartial({ key: kv.key, modRevision: state.revision }), true)
    return BigInt(kvs.length)
  }

  function txn(request: TxnRequest): TxnResponse {
    const succeeded = request.compare.every((compare) => {
      const kv = state.keys.get(Buffer.from(compare.key).toString())
      const union = compare.targetUnion
      if (compare.target === Compare_CompareTarget.MOD && union?.$case === 'modRevision')
        return (kv?.modRevision ?? 0n) === union.value
      if (union?.$case === 'value') return kv !== undefined && Buffer.from(kv.value).equals(union.value)
      throw new GrpcError(grpcCode.unimplemented, 'the fake compares mod revisions and values only')
    })
    const operations = succeeded ? request.success : request.failure
    if (operations.some(({ request: op }) => op?.$case !== 'requestRange')) state.revision++
    const responses = operations.map(({ request: op }) => {
      switch (op?.$case) {
        case 'requestPut':
          put(op.value)
          return { response: { $case: 'responsePut' as const, value: PutResponse.fromPartial({}) } }
        case 'requestDeleteRange': {
          const value = DeleteRangeResponse.fromPartial({ deleted: remove(op.value) })
          return { response: { $case: 'responseDeleteRange' as const, value } }
        }
        case 'requestRange':
          return { response: { $case: 'responseRange' as const, value: range(op.value) } }
        default:
          throw new GrpcError(grpcCode.unimplemented, 'the fake does not nest transactions')
      }
    })
    return TxnResponse.fromPartial({ header: header(), succeeded, responses })
  }

  function unary(path: string, answer: (bytes: Uint8Array) => Uint8Array): void {
    server.unary(`/etcdserverpb.${path}`, (bytes) => {
      faults.calls.push(path)
      if (faults.noLeader) throw new GrpcError(grpcCode.unavailable, 'etcdserver: no leader')
      const answered = answer(bytes)
      for (const watch of state.watches) watch.notify()
      return faults.swallowAnswers ? undefined : answered
    })
  }

  unary('KV/Range', (bytes) => RangeResponse.encode(range(RangeRequest.decode(bytes))).finish())
  unary('KV/Put', (bytes) => {
    state.revision++
    put(PutRequest.decode(bytes))
    return PutResponse.encode(PutResponse.fromPartial({ header: header() })).finish()
  })
  unary('KV/DeleteRange', (bytes) => {
    state.revision++
    const deleted = remove(DeleteRangeRequest.decode(bytes))
    return DeleteRangeResponse.encode(DeleteRangeResponse.fromPartial({ header: header(), deleted })).finish()
  })
  unary('KV/Txn', (bytes) => TxnResponse.encode(txn(TxnRequest.decode(bytes))).finish())
  unary('Lease/LeaseGrant', (bytes) => {
    const { TTL } = LeaseGrantRequest.decode(bytes)
    const ID = BigInt(1000 + state.leases.size + Number(state.revision))
    state.leases.set(ID, Number(TTL))
    return LeaseGrantResponse.encode(LeaseGrantResponse.fromPartial({ header: header(), ID, TTL })).finish()
  })
  unary('Lease/LeaseRevoke', (bytes) => {
    const { ID } = LeaseRevokeRequest.decode(bytes)
    if (!state.leases.delete(ID))
      throw new GrpcError(grpcCode.notFound, 'etcdserver: requested lease not found')
    return LeaseRevokeResponse.encode(LeaseRevokeResponse.fromPartial({ header: header() })).finish()
  })
  unary('Cluster/MemberList', () => {
    const members = [{ ID: memberId, name: 'fake', clientURLs: ['http://127.0.0.1:1'] }]
    return MemberListResponse.encode(MemberListResponse.fromPartial({ header: header(), members })).finish()
  })
  unary('Maintenance/Status', () =>
    StatusResponse.encode(
      StatusResponse.fromPartial({ header: header(), version: '3.5.0', leader: 1n, raftTerm: 2n }),
    ).finish(),
  )
  server.stream('/etcdserverpb.Lease/LeaseKeepAlive', (call) => ({
    onMessage(bytes) {
      faults.calls.push('Lease/LeaseKeepAlive')
      const { ID } = LeaseKeepAliveRequest.decode(bytes)
      const TTL = BigInt(state.leases.get(ID) ?? 0)
      call.send(
        LeaseKeepAliveResponse.encode(
          LeaseKeepAliveResponse.fromPartial({ header: header(), ID, TTL }),
        ).finish(),
      )
    },
    onEnd() {
      call.end()
    },
  }))
  server.stream('/etcdserverpb.Watch/Watch', (call) => watchStream(call, state, header))

  const address = await server.listen({ host: '127.0.0.1', port: 0 })
  return {
    url: `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${address.port}`,
    server,
    faults,
    stop: () => server.close({ graceMs: 0 }),
  }
}

function watchStream(call: StreamCall, state: FakeState, header: () => ResponseHeader) {
  let next = 0n
  let matches = (_key: Uint8Array): boolean => false
  const send = (response: Parameters<typeof WatchResponse.fromPartial>[0]) =>
    call.send(WatchResponse.encode(WatchResponse.fromPartial({ header: header(), ...response })).finish())
  const watch = {
    notify() {
      const due = state.history.filter(({ revision, kv }) => next > 0n && revision >= next && matches(kv.key))
      next = next > 0n && next <= state.revision ? state.revision + 1n : next
      if (due.length === 0) return
      const events = due.map(({ kv, deleted }) => ({
        type: deleted ? Event_EventType.DELETE : Event_EventType.PUT,
        kv,
      }))
      send({ events })
    },
  }
  state.watches.add(watch)
  return {
    onMessage(bytes: Uint8Array) {
      const union = WatchRequest.decode(bytes).requestUnion
      if (union?.$case !== 'createRequest') return
      const { key, rangeEnd, startRevision } = union.value
      matches = (candidate) =>
        rangeEnd.length === 0
          ? Buffer.compare(candidate, key) === 0
          : Buffer.compare(candidate, key) >= 0 && Buffer.compare(candidate, rangeEnd) < 0
      send({ created: true })
      if (startRevision > 0n && startRevision <= state.compacted) {
        send({ canceled: true, compactRevision: state.compacted + 1n })
        return
      }
      next = startRevision > 0n ? startRevision : state.revision + 1n
      watch.notify()
    },
    onClose() {
      state.watches.delete(watch)
    },
  }
}

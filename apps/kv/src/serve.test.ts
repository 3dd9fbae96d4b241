import { connect } from 'node:http2'
import * as rpc from '@kiln/etcd-api/rpc'
import { Fault } from '@kiln/service'
import { afterEach, expect, test } from 'vitest'
import { grpcCall } from './testing/grpc-call.ts'
import { type LoneServer, startLoneServer } from './testing/lone-server.ts'

let server: LoneServer | undefined
afterEach(async () => {
  await server?.close()
  server = undefined
})

async function start(...options: Parameters<typeof startLoneServer>): Promise<LoneServer> {
  server = await startLoneServer(...options)
  return server
}

const putRequest = (key: string, value: string | Buffer) =>
  rpc.PutRequest.encode(
    rpc.PutRequest.fromPartial({ key: Buffer.from(key), value: Buffer.from(value) }),
  ).finish()
const rangeRequest = (key: string, more: Partial<rpc.RangeRequest> = {}) =>
  rpc.RangeRequest.encode(rpc.RangeRequest.fromPartial({ key: Buffer.from(key), ...more })).finish()
const kv = (name: string): string => `/etcdserverpb.KV/${name}`

async function put(url: string, key: string, value: string | Buffer = '') {
  const { code, message } = await grpcCall(url, kv('Put'), [putRequest(key, value)])
  return `${code} ${message}`
}

test('the header of every answer names cluster, member, revision and term', async () => {
  const { url } = await start()
  await put(url, 'a', '1')
  const { replies } = await grpcCall(url, kv('Range'), [rangeRequest('nothing')])
  const { header, kvs } = rpc.RangeResponse.decode(replies[0]!)
  expect(header).toEqual({ clusterId: 9n, memberId: 7n, revision: 2n, raftTerm: 1n })
  expect(kvs).toEqual([])
})

test('a full store raises the alarm, refuses writes and reads on, until it is compacted and disarmed', async () => {
  const { url, context } = await start(['--quota-backend-bytes=20000'])
  for (let i = 0; i < 4; i++) expect(await put(url, 'a', Buffer.alloc(4000))).toBe('0 ')
  const noSpace = '8 etcdserver: mvcc: database space exceeded'
  expect(await put(url, 'a', Buffer.alloc(4000))).toBe(noSpace)
  expect(await put(url, 'b', '')).toBe(noSpace)
  expect((await grpcCall(url, kv('Range'), [rangeRequest('a')])).code).toBe(0)
  const health = await fetch(`${url}/health`)
  expect([health.status, await health.json()]).toEqual([503, { health: 'false', reason: 'ALARM NOSPACE' }])
  expect((await fetch(`${url}/health?exclude=NOSPACE`)).status).toBe(200)
  expect((await fetch(`${url}/readyz`)).status).toBe(200)

  const revision = BigInt(context.state.store.revision)
  const compaction = rpc.CompactionRequest.encode({ revision, physical: true }).finish()
  expect((await grpcCall(url, kv('Compact'), [compaction])).code).toBe(0)
  const disarm = rpc.AlarmRequest.encode({
    action: rpc.AlarmRequest_AlarmAction.DEACTIVATE,
    memberID: 0n,
    alarm: rpc.AlarmType.NOSPACE,
  }).finish()
  const { replies } = await grpcCall(url, '/etcdserverpb.Maintenance/Alarm', [disarm])
  expect(rpc.AlarmResponse.decode(replies[0]!).alarms).toEqual([
    { memberID: 7n, alarm: rpc.AlarmType.NOSPACE },
  ])
  expect(await put(url, 'b', '')).toBe('0 ')
})

test('requests over the limits are refused as etcd does', async () => {
  const { url } = await start(['--max-request-bytes=1000', '--max-txn-ops=1'])
  expect(await put(url, 'a', Buffer.alloc(1001))).toBe('3 etcdserver: request is too large')
  expect((await put(url, 'a', Buffer.alloc(600_000))).split(' ')[0]).toBe('8')
  const op = (key: string): rpc.RequestOp =>
    rpc.RequestOp.fromPartial({ request: { $case: 'requestPut', value: { key: Buffer.from(key) } } })
  const txn = rpc.TxnRequest.encode({ compare: [], success: [op('a'), op('b')], failure: [] }).finish()
  expect(await grpcCall(url, kv('Txn'), [txn])).toMatchObject({
    code: 3,
    message: 'etcdserver: too many operations in txn request',
  })
  expect(await grpcCall(url, kv('Put'), [Buffer.from([0x0a, 0x7f])])).toMatchObject({ code: 13 })
})

test('what the consensus cannot do is said in etcd’s words', async () => {
  const failing = (code: string) => async () => {
    throw new Fault(code, 'as the test wants')
  }
  const cases: [string, string][] = [
    ['STORE_NO_LEADER', '14 etcdserver: no leader'],
    ['STORE_TIMEOUT', '14 etcdserver: request timed out'],
    ['STORE_LEADER_CHANGED', '14 etcdserver: leader changed'],
    ['STORE_TOO_MANY_REQUESTS', '8 etcdserver: too many requests'],
    ['STORE_DISK_FULL', '8 etcdserver: mvcc: database space exceeded'],
    ['STORE_STOPPED', '14 etcdserver: server stopped'],
  ]
  for (const [code, text] of cases) {
    const { url, close } = await startLoneServer([], () => ({ propose: failing(code) }))
    expect(await put(url, 'a', '')).toBe(text)
    expect((await grpcCall(url, kv('Range'), [rangeRequest('a')])).code).toBe(0)
    await close()
  }
})

test('without a leader, calls that ask for one fail and serializable reads of others go on', async () => {
  const { url } = await start([], (lone) => ({
    leader: () => 0n,
    status: () => ({ ...lone.status(), leader: 0n, role: 'follower' }),
  }))
  const read = (headers: Record<string, string>) =>
    grpcCall(url, kv('Range'), [rangeRequest('a', { serializable: true })], headers)
  expect((await read({})).code).toBe(0)
  const noLeader = { code: 14, message: 'etcdserver: no leader' }
  expect(await read({ hasleader: 'true' })).toMatchObject(noLeader)
  for (const path of [
    '/etcdserverpb.Maintenance/Status',
    '/etcdserverpb.Cluster/MemberList',
    '/etcdserverpb.Watch/Watch',
    '/etcdserverpb.Lease/LeaseKeepAlive',
  ]) {
    const nothing = [Buffer.alloc(0)]
    expect(await grpcCall(url, path, nothing, { hasleader: 'true' }), path).toMatchObject(noLeader)
  }
  const health = await fetch(`${url}/health`)
  expect([health.status, await health.json()]).toEqual([503, { health: 'false', reason: 'RAFT NO LEADER' }])
  expect((await fetch(`${url}/readyz`)).status).toBe(503)
  expect((await fetch(`${url}/livez`)).status).toBe(200)
})

test('a learner serves serializable reads and status only', async () => {
  const { url } = await start([], (lone) => ({
    members: () => lone.members().map((member) => ({ ...member, learner: true })),
  }))
  const learner = { code: 14, message: 'etcdserver: rpc not supported for learner' }
  expect(await grpcCall(url, kv('Range'), [rangeRequest('a')])).toMatchObject(learner)
  expect(await grpcCall(url, kv('Put'), [putRequest('a', '')])).toMatchObject(learner)
  expect((await grpcCall(url, kv('Range'), [rangeRequest('a', { serializable: true })])).code).toBe(0)
  const status = await grpcCall(url, '/etcdserverpb.Maintenance/Status', [Buffer.alloc(0)])
  expect(rpc.StatusResponse.decode(status.replies[0]!).isLearner).toBe(true)
})

test('a transaction that only reads makes no log entry and is linearizable unless all its reads are not', async () => {
  let proposals = 0
  let rounds = 0
  const { url } = await start([], (lone) => ({
    propose: (data) => {
      proposals++
      return lone.propose(data)
    },
    readIndex: () => {
      rounds++
      return lone.readIndex()
    },
  }))
  const read = (serializable: boolean): rpc.RequestOp =>
    rpc.RequestOp.fromPartial({
      request: { $case: 'requestRange', value: { key: Buffer.from('a'), serializable } },
    })
  const txn = (...success: rpc.RequestOp[]) =>
    grpcCall(url, kv('Txn'), [rpc.TxnRequest.encode(rpc.TxnRequest.fromPartial({ success })).finish()])
  expect(await txn(read(true), read(true))).toMatchObject({ code: 0 })
  expect([proposals, rounds]).toEqual([0, 0])
  expect(await txn(read(true), read(false))).toMatchObject({ code: 0 })
  expect([proposals, rounds]).toEqual([0, 1])
  const future = rpc.RequestOp.fromPartial({
    request: { $case: 'requestRange', value: { key: Buffer.from('a'), revision: 99n } },
  })
  const write = rpc.RequestOp.fromPartial({
    request: { $case: 'requestPut', value: { key: Buffer.from('a') } },
  })
  expect(await txn(write, future)).toMatchObject({
    code: 11,
    message: 'etcdserver: mvcc: required revision is a future revision',
  })
  expect(await grpcCall(url, kv('Range'), [rangeRequest('a')])).toMatchObject({ code: 0 })
  const { replies } = await grpcCall(url, kv('Range'), [rangeRequest('a')])
  expect(rpc.RangeResponse.decode(replies[0]!).count).toBe(0n)
})

test('numbers that are none of an enum are refused, not taken for a bug', async () => {
  const { url } = await start()
  // A compare with target 9, and a range sorted by target 9.
  const compare = Buffer.from([0x0a, 0x05, 0x10, 0x09, 0x1a, 0x01, 0x61])
  expect(await grpcCall(url, kv('Txn'), [compare])).toMatchObject({
    code: 3,
    message: 'etcdserver: unknown compare target 9',
  })
  const sorted = Buffer.from([0x0a, 0x01, 0x61, 0x30, 0x09])
  expect(await grpcCall(url, kv('Range'), [sorted])).toMatchObject({
    code: 3,
    message: 'etcdserver: invalid sort option',
  })
})

test('slow requests are in the log with what they were', async () => {
  const warnings: unknown[] = []
  const { url } = await start(['--warning-unary-request-duration=50ms'], (lone) => ({
    readIndex: async () => {
      await new Promise((resume) => setTimeout(resume, 80))
      return lone.readIndex()
    },
  }))
  server!.context.log.warn = (fields, sentence) => void warnings.push([fields, sentence])
  await put(url, 'a')
  await grpcCall(url, kv('Range'), [rangeRequest('a')])
  const fields = {
    path: '/etcdserverpb.KV/Range',
    code: 0,
    durationMs: expect.any(Number),
    slowest: 'confirmed',
    stages: { admitted: expect.any(Number), confirmed: expect.any(Number), answered: expect.any(Number) },
  }
  expect(warnings).toEqual([[fields, 'request took long']])
})

test('a watch stream that the client ends is ended as canceled', async () => {
  const { url } = await start()
  const create = rpc.WatchRequest.encode(
    rpc.WatchRequest.fromPartial({
      requestUnion: { $case: 'createRequest', value: { key: Buffer.from('a') } },
    }),
  ).finish()
  const answer = await grpcCall(url, '/etcdserverpb.Watch/Watch', [create])
  expect(answer).toMatchObject({ code: 1, message: 'etcdserver: watch canceled' })
  expect(rpc.WatchResponse.decode(answer.replies[0]!)).toMatchObject({ created: true, watchId: 0n })
})

test('HTTP shares the port: version, checks and metrics', async () => {
  const { url } = await start(['--metrics=extensive'])
  await put(url, 'a', '1')
  expect(await (await fetch(`${url}/version`)).json()).toMatchObject({ etcdcluster: '3.5.0' })
  expect(await (await fetch(`${url}/health`)).json()).toEqual({ health: 'true', reason: '' })
  expect(await (await fetch(`${url}/readyz?verbose`)).text()).toContain('[+]linearizable_read ok')
  expect(await (await fetch(`${url}/livez/serializable_read`)).text()).toBe('ok\n')
  expect((await fetch(`${url}/v3/nothing`)).status).toBe(404)
  const metrics = await (await fetch(`${url}/metrics`)).text()
  for (const line of [
    'etcd_server_has_leader 1',
    'etcd_debugging_mvcc_keys_total 1',
    'grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 1',
  ]) {
    expect(metrics).toContain(`${line}\n`)
  }
  expect(metrics).toMatch(/grpc_server_handling_seconds_bucket\{.*le="\+Inf"\} 1/)
})

test('a client that pings more often than it may is sent away', async () => {
  const { url } = await start(['--grpc-keepalive-min-time=60s'])
  const session = connect(url)
  session.on('error', () => undefined)
  const gone = new Promise<string>((resolve) => {
    session.on('goaway', (code, _stream, data) => resolve(`${code} ${data?.toString()}`))
  })
  await new Promise<void>((resolve) => void session.once('connect', () => resolve()))
  for (let ping = 0; ping < 5; ping++) session.ping(() => undefined)
  // ENHANCE_YOUR_CALM
  expect(await gone).toBe('11 too_many_pings')
  session.destroy()
})

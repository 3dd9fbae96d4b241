import * as rpc from '@kiln/etcd-api/rpc'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { grpcCall } from '../testing/grpc-call.ts'
import { type LoneServer, startLoneServer } from '../testing/lone-server.ts'

let server: LoneServer
beforeAll(async () => {
  server = await startLoneServer(['--quota-backend-bytes=5000000'])
})
afterAll(() => server.close())

const maintenance = (name: string, request: Uint8Array = new Uint8Array(0), url = server.url) =>
  grpcCall(url, `/etcdserverpb.Maintenance/${name}`, [request])
const kv = (name: string, request: Uint8Array, url = server.url) =>
  grpcCall(url, `/etcdserverpb.KV/${name}`, [request])
const put = (key: string, url = server.url) =>
  kv('Put', rpc.PutRequest.encode(rpc.PutRequest.fromPartial({ key: Buffer.from(key) })).finish(), url)
const alarm = (action: rpc.AlarmRequest_AlarmAction, type: rpc.AlarmType, memberID = 0n) =>
  maintenance('Alarm', rpc.AlarmRequest.encode({ action, alarm: type, memberID }).finish())
const status = async () => rpc.StatusResponse.decode((await maintenance('Status')).replies[0]!)

const { VALIDATE, ENABLE, CANCEL } = rpc.DowngradeRequest_DowngradeAction
const downgrade = async (action: rpc.DowngradeRequest_DowngradeAction, version = '') => {
  const answer = await maintenance('Downgrade', rpc.DowngradeRequest.encode({ action, version }).finish())
  return answer.code === 0
    ? rpc.DowngradeResponse.decode(answer.replies[0]!).version
    : `${answer.code} ${answer.message}`
}

test('status has the fields of 3.6 too', async () => {
  expect(await status()).toMatchObject({
    version: '3.5.16',
    storageVersion: '3.5.0',
    dbSizeQuota: 5_000_000n,
    downgradeInfo: { enabled: false, targetVersion: '' },
    isLearner: false,
    errors: [],
  })
})

test('a downgrade goes one minor version back and is one at a time', async () => {
  expect(await downgrade(CANCEL)).toBe('9 etcdserver: no inflight downgrade job')
  for (const format of ['', '3', 'three.four', '3.4.0.1']) {
    expect(await downgrade(VALIDATE, format)).toBe('3 etcdserver: wrong downgrade target version format')
  }
  for (const target of ['3.5.0', '3.6.0', '3.3.0', '2.4.0']) {
    expect(await downgrade(ENABLE, target)).toBe('3 etcdserver: invalid downgrade target version')
  }
  expect(await downgrade(VALIDATE, '3.4.0')).toBe('3.5.0')
  expect((await status()).downgradeInfo).toMatchObject({ enabled: false })
  expect(await downgrade(ENABLE, '3.4.0')).toBe('3.5.0')
  expect((await status()).downgradeInfo).toEqual({ enabled: true, targetVersion: '3.4.0' })
  const underWay = '9 etcdserver: cluster has a downgrade job in progress'
  expect([await downgrade(ENABLE, '3.4.0'), await downgrade(VALIDATE, '3.4.0')]).toEqual([underWay, underWay])
  expect(await downgrade(CANCEL)).toBe('3.5.0')
  expect((await status()).downgradeInfo).toEqual({ enabled: false, targetVersion: '' })
})

test('a corrupt cluster refuses reads and writes until the alarm is ended', async () => {
  const { ACTIVATE, DEACTIVATE } = rpc.AlarmRequest_AlarmAction
  await alarm(ACTIVATE, rpc.AlarmType.CORRUPT, 7n)
  const corrupt = { code: 15, message: 'etcdserver: corrupt cluster' }
  const key = Buffer.from('a')
  const requests: [string, Uint8Array][] = [
    ['Range', rpc.RangeRequest.encode(rpc.RangeRequest.fromPartial({ key })).finish()],
    ['Range', rpc.RangeRequest.encode(rpc.RangeRequest.fromPartial({ key, serializable: true })).finish()],
    ['Put', rpc.PutRequest.encode(rpc.PutRequest.fromPartial({ key })).finish()],
    ['DeleteRange', rpc.DeleteRangeRequest.encode(rpc.DeleteRangeRequest.fromPartial({ key })).finish()],
    ['Txn', rpc.TxnRequest.encode(rpc.TxnRequest.fromPartial({})).finish()],
    ['Compact', rpc.CompactionRequest.encode({ revision: 1n, physical: false }).finish()],
  ]
  for (const [name, request] of requests) expect(await kv(name, request), name).toMatchObject(corrupt)
  const grant = rpc.LeaseGrantRequest.encode({ ID: 0n, TTL: 60n }).finish()
  expect(await grpcCall(server.url, '/etcdserverpb.Lease/LeaseGrant', [grant])).toMatchObject(corrupt)
  expect((await status()).errors).toEqual(['memberID:7 alarm:CORRUPT '])
  expect((await fetch(`${server.url}/readyz`)).status).toBe(503)
  expect(await (await fetch(`${server.url}/health`)).json()).toEqual({
    health: 'false',
    reason: 'ALARM CORRUPT',
  })
  await alarm(DEACTIVATE, rpc.AlarmType.CORRUPT)
  expect(await put('a')).toMatchObject({ code: 0 })
})

test('a hash is of all up to a revision that is to be had', async () => {
  for (const key of ['h1', 'h2', 'h3']) await put(key)
  const { store } = server.context.state
  const now = store.revision
  const hash = async (revision: number) => {
    const request = rpc.HashKVRequest.encode({ revision: BigInt(revision) }).finish()
    const answer = await maintenance('HashKV', request)
    if (answer.code !== 0) return `${answer.code} ${answer.message}`
    const { hash: value, compactRevision, hashRevision } = rpc.HashKVResponse.decode(answer.replies[0]!)
    return { value, compactRevision: Number(compactRevision), hashRevision: Number(hashRevision) }
  }
  const whole = await hash(0)
  expect(await hash(now)).toEqual(whole)
  const earlier = await hash(now - 1)
  expect(earlier).not.toMatchObject({ value: (whole as { value: number }).value })
  await put('h4')
  expect(await hash(now - 1)).toEqual(earlier)
  const compaction = rpc.CompactionRequest.encode({ revision: BigInt(now), physical: true }).finish()
  await kv('Compact', compaction)
  expect(await hash(now)).toMatchObject({ compactRevision: now, hashRevision: now })
  expect(await hash(now - 1)).toBe('11 etcdserver: mvcc: required revision has been compacted')
  expect(await hash(now + 10)).toBe('11 etcdserver: mvcc: required revision is a future revision')
})

test('a learner refuses all maintenance but its status', async () => {
  const learner = await startLoneServer([], (lone) => ({
    members: () => lone.members().map((member) => ({ ...member, learner: true })),
  }))
  for (const name of ['Alarm', 'Hash', 'HashKV', 'Defragment', 'Downgrade', 'MoveLeader']) {
    expect(await maintenance(name, new Uint8Array(0), learner.url), name).toMatchObject({
      code: 14,
      message: 'etcdserver: rpc not supported for learner',
    })
  }
  expect(await maintenance('Status', new Uint8Array(0), learner.url)).toMatchObject({ code: 0 })
  const ready = await (await fetch(`${learner.url}/readyz?verbose`)).text()
  expect(ready).toContain('[-]non_learner failed: local node is learner')
  await learner.close()
})

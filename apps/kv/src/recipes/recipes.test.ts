import * as election from '@kiln/etcd-api/election'
import * as lock from '@kiln/etcd-api/lock'
import * as rpc from '@kiln/etcd-api/rpc'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { grpcCall } from '../testing/grpc-call.ts'
import { postLines } from '../testing/json-lines.ts'
import { type LoneServer, startLoneServer } from '../testing/lone-server.ts'

let server: LoneServer
beforeAll(async () => {
  server = await startLoneServer()
  for (const id of [10n, 11n, 12n, 13n]) {
    await grpcCall(server.url, '/etcdserverpb.Lease/LeaseGrant', [
      rpc.LeaseGrantRequest.encode({ ID: id, TTL: 600n }).finish(),
    ])
  }
})
afterAll(() => server.close())

const bytes = (text: string): Buffer => Buffer.from(text)
const text = (value: Uint8Array): string => Buffer.from(value).toString()

const lockCall = (name: string, lease: bigint) =>
  grpcCall(server.url, '/v3lockpb.Lock/Lock', [
    lock.LockRequest.encode({ name: bytes(name), lease }).finish(),
  ])
const unlockCall = (key: Uint8Array) =>
  grpcCall(server.url, '/v3lockpb.Lock/Unlock', [lock.UnlockRequest.encode({ key }).finish()])
const electionCall = (method: string, request: Uint8Array) =>
  grpcCall(server.url, `/v3electionpb.Election/${method}`, [request])
const campaign = (name: string, lease: bigint, value: string) =>
  electionCall(
    'Campaign',
    election.CampaignRequest.encode({ name: bytes(name), lease, value: bytes(value) }).finish(),
  )

const isSettled = async (promise: Promise<unknown>): Promise<boolean> => {
  const tick = new Promise((resolve) => setTimeout(() => resolve('pending'), 100))
  return (await Promise.race([promise, tick])) !== 'pending'
}

test('a lock is a key named after its lease, and the next one waits until it is gone', async () => {
  const first = lock.LockResponse.decode((await lockCall('l', 10n)).replies[0]!)
  expect(text(first.key)).toBe('l/a')
  const again = lock.LockResponse.decode((await lockCall('l', 10n)).replies[0]!)
  expect(text(again.key)).toBe('l/a')
  const second = lockCall('l', 11n)
  const third = lockCall('l', 12n)
  expect(await isSettled(second)).toBe(false)
  await unlockCall(first.key)
  expect(text(lock.LockResponse.decode((await second).replies[0]!).key)).toBe('l/b')
  expect(await isSettled(third)).toBe(false)
  await unlockCall(bytes('l/b'))
  expect(text(lock.LockResponse.decode((await third).replies[0]!).key)).toBe('l/c')
  await unlockCall(bytes('l/c'))
})

test('a waiter that goes away leaves no key behind', async () => {
  await lockCall('gone', 10n)
  const waiting = new AbortController()
  const body = JSON.stringify({ name: bytes('gone').toString('base64'), lease: '11' })
  const second = fetch(`${server.url}/v3/lock/lock`, { method: 'POST', body, signal: waiting.signal })
  const held = (): boolean => server.context.state.store.get(bytes('gone/b')) !== undefined
  await expect.poll(held).toBe(true)
  waiting.abort()
  await expect(second).rejects.toThrow()
  await expect.poll(held).toBe(false)
})

test('without a lease a lock gets one of its own', async () => {
  const { key } = lock.LockResponse.decode((await lockCall('own', 0n)).replies[0]!)
  const { lease } = server.context.state.store.get(key)!
  expect(server.context.state.store.leases.get(lease)).toMatchObject({ ttl: 60 })
})

test('refusals of the store pass as unknown, with their text', async () => {
  const unknown = { code: 2, message: 'etcdserver: requested lease not found' }
  expect(await lockCall('l', 4242n)).toMatchObject(unknown)
  expect(await campaign('e', 4242n, 'x')).toMatchObject(unknown)
  expect(await unlockCall(new Uint8Array(0))).toMatchObject({
    code: 2,
    message: 'etcdserver: key is not provided',
  })
  const missing = { code: 2, message: '"leader" field must be provided' }
  const proclaimNothing = election.ProclaimRequest.encode({ leader: undefined, value: bytes('x') }).finish()
  expect(await electionCall('Proclaim', proclaimNothing)).toMatchObject(missing)
  expect(
    await electionCall('Resign', election.ResignRequest.encode({ leader: undefined }).finish()),
  ).toMatchObject(missing)
})

test('an election has one leader at a time, who proclaims and resigns', async () => {
  const leaderOf = () => electionCall('Leader', election.LeaderRequest.encode({ name: bytes('e') }).finish())
  expect(await leaderOf()).toMatchObject({ code: 2, message: 'election: no leader' })
  // Nothing is answered before there is a leader, so that this is not awaited yet.
  const observing = postLines(`${server.url}/v3/election/observe`, {
    name: bytes('e').toString('base64'),
  })
  const seen = async (): Promise<string> => {
    const { result } = (await (await observing).next()) as { result: { kv: { value: string } } }
    return Buffer.from(result.kv.value, 'base64').toString()
  }
  const { leader } = election.CampaignResponse.decode((await campaign('e', 10n, 'me')).replies[0]!)
  expect(leader).toMatchObject({ lease: 10n, rev: expect.any(BigInt) })
  expect(text(leader!.key)).toBe('e/a')
  expect(await seen()).toBe('me')

  const rival = campaign('e', 11n, 'you')
  expect(await isSettled(rival)).toBe(false)
  const proclaim = (value: string) =>
    electionCall('Proclaim', election.ProclaimRequest.encode({ leader, value: bytes(value) }).finish())
  expect(await proclaim('still me')).toMatchObject({ code: 0 })
  expect(await seen()).toBe('still me')
  await campaign('e', 10n, 'me again')
  expect(await seen()).toBe('me again')
  const { kv } = election.LeaderResponse.decode((await leaderOf()).replies[0]!)
  expect(text(kv!.value)).toBe('me again')

  expect(await electionCall('Resign', election.ResignRequest.encode({ leader }).finish())).toMatchObject({
    code: 0,
  })
  expect(await rival).toMatchObject({ code: 0 })
  expect(await seen()).toBe('you')
  expect(await proclaim('too late')).toMatchObject({ code: 2, message: 'election: not leader' })
  const observed = await observing
  observed.close()
})

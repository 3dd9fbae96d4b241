import { afterEach, expect, test } from 'vitest'
import { EtcdClient } from './client.ts'
import { type FakeMember, fakeState, startFakeMember } from './testing/fake-store.ts'

/** A clock that moves only when told to. */
function manualClock() {
  let now = 0
  let timers: { at: number; fn: () => void }[] = []
  return {
    now: () => now,
    after(ms: number, fn: () => void) {
      const timer = { at: now + ms, fn }
      timers.push(timer)
      return () => {
        timers = timers.filter((other) => other !== timer)
      }
    },
    advance(ms: number) {
      now += ms
      const due = timers.filter((timer) => timer.at <= now)
      timers = timers.filter((timer) => timer.at > now)
      for (const timer of due) timer.fn()
    },
  }
}

const open: { close(): unknown }[] = []

afterEach(async () => {
  for (const thing of open.splice(0).reverse()) await thing.close()
})

async function start(count: number) {
  const state = fakeState()
  const members: FakeMember[] = []
  for (let at = 0; at < count; at++) members.push(await startFakeMember(state, BigInt(at + 1)))
  for (const member of members) open.push({ close: () => member.stop() })
  const clock = manualClock()
  const client = new EtcdClient({ endpoints: members.map((member) => member.url), timeoutMs: 2000, clock })
  open.push(client)
  const renewals = () =>
    members.flatMap((member) => member.faults.calls).filter((call) => call.includes('KeepAlive')).length
  return { state, members, clock, client, renewals }
}

test('a held lease is renewed at a third of its life and revoked when closed', async () => {
  const { state, clock, client, renewals } = await start(1)
  const lease = await client.holdLease({ ttlSeconds: 30 })
  expect(lease.certainUntil).toBe(30_000)
  clock.advance(10_000)
  await expect.poll(renewals).toBe(1)
  await expect.poll(() => lease.certainUntil).toBe(40_000)
  clock.advance(9999)
  expect(renewals()).toBe(1)
  expect(state.leases.has(lease.id)).toBe(true)
  await lease.close()
  expect(state.leases.size).toBe(0)
})

test('a lost lease is told and replaced', async () => {
  const { state, clock, client } = await start(1)
  const told: string[] = []
  const lease = await client.holdLease({
    ttlSeconds: 30,
    onLost: (id) => told.push(`lost ${id}`),
    onGranted: (id) => told.push(`granted ${id}`),
  })
  const first = lease.id
  state.leases.delete(first)
  state.revision++
  clock.advance(10_000)
  await expect.poll(() => told.length).toBe(2)
  expect(told).toEqual([`lost ${first}`, `granted ${lease.id}`])
  expect(lease.id).not.toBe(first)
  await lease.close()
})

test('a member that goes away is trouble, not a loss', async () => {
  const { members, clock, client, renewals } = await start(2)
  const told: string[] = []
  const lease = await client.holdLease({
    ttlSeconds: 30,
    onLost: () => told.push('lost'),
    onTrouble: (fault) => told.push(fault.code),
  })
  await members[0]!.stop()
  const before = renewals()
  await expect
    .poll(
      () => {
        clock.advance(5000)
        return renewals()
      },
      { timeout: 10_000, interval: 200 },
    )
    .toBeGreaterThan(before)
  expect(told).not.toContain('lost')
  await lease.close()
})

test('time to live and a single renewal say when there is no such lease', async () => {
  const { client } = await start(1)
  const { id, ttlSeconds } = await client.leaseGrant(12)
  expect(ttlSeconds).toBe(12)
  expect(await client.leaseKeepAliveOnce(id)).toBe(12)
  await client.leaseRevoke(id)
  expect(await client.leaseKeepAliveOnce(id)).toBe(0)
})

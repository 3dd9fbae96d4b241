import { EtcdClient } from '@kiln/etcd-api'
import { type FakeMember, fakeState, startFakeMember } from '@kiln/etcd-api/fake-store'
import { storeKeys } from '@kiln/schemas'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { OverlayConfig, subnetKey } from './overlay-records.ts'
import { SubnetClaim } from './subnet-claim.ts'

const config = OverlayConfig.parse({ network: '10.88.0.0/16' })
const hourMs = 3_600_000

let member: FakeMember
let store: EtcdClient
let nowMs: number

beforeEach(async () => {
  nowMs = 0
  member = await startFakeMember(fakeState(), 1n)
  store = new EtcdClient({ endpoints: [member.url] })
})
afterEach(async () => {
  store.close()
  await member.stop()
})

const heard = async (): Promise<Map<string, string>> => {
  const { entries } = await store.getPrefix(storeKeys.network)
  return new Map(entries.map(({ key, text }) => [key, text]))
}
const open = (): SubnetClaim => new SubnetClaim(store, () => nowMs)
const hold = async (
  claim: SubnetClaim,
  machine: string,
  at: { preferred?: string; heard?: Map<string, string>; config?: OverlayConfig } = {},
): Promise<string> =>
  claim.hold({
    config: at.config ?? config,
    record: { formatVersion: 1, machine, address: '10.77.0.11' },
    preferred: [at.preferred ?? '10.88.11.0/24'],
    heard: at.heard ?? (await heard()),
  })
const ownerOf = async (subnet: string): Promise<string | undefined> => {
  const entry = await store.get(subnetKey(subnet))
  return entry && JSON.parse(entry.text).machine
}
const calls = (): string[] => member.faults.calls.splice(0)

test('of two machines that want one subnet, and have not heard of each other, one gets it', async () => {
  const none = new Map<string, string>()
  const got = await Promise.all([
    hold(open(), 'node1', { heard: none }),
    hold(open(), 'node2', { heard: none }),
  ])
  expect(new Set(got).size).toBe(2)
  expect(got).toContain('10.88.11.0/24')
  expect([await ownerOf(got[0]), await ownerOf(got[1])]).toEqual(['node1', 'node2'])
})

test('a claim that stands costs nothing until its lease is to be renewed, and the next daemon goes on with the lease', async () => {
  const claim = open()
  expect(await hold(claim, 'node1')).toBe('10.88.11.0/24')
  const { lease } = (await store.get(subnetKey('10.88.11.0/24')))!
  expect(lease).not.toBe(0n)
  const now = await heard()
  calls()
  expect(await hold(claim, 'node1', { heard: now })).toBe('10.88.11.0/24')
  expect(calls()).toEqual([])
  nowMs += hourMs
  await hold(claim, 'node1', { heard: now })
  expect(calls().join()).toContain('KeepAlive')
  // Another place that it would like better does not move it.
  expect(await hold(open(), 'node1', { preferred: '10.88.12.0/24' })).toBe('10.88.11.0/24')
  expect((await store.get(subnetKey('10.88.11.0/24')))?.lease).toBe(lease)
})

test('a lease that was revoked is replaced, and the subnet asked for again', async () => {
  const claim = open()
  await hold(claim, 'node1')
  const { lease } = (await store.get(subnetKey('10.88.11.0/24')))!
  await store.leaseRevoke(lease)
  await store.delete(subnetKey('10.88.11.0/24'))
  await expect(hold(claim, 'node1')).rejects.toMatchObject({ code: 'STORE_LEASE_NOT_FOUND' })
  expect(await hold(claim, 'node1')).toBe('10.88.11.0/24')
  expect((await store.get(subnetKey('10.88.11.0/24')))?.lease).not.toBe(lease)
})

test('subnets that a machine has too many are given back, those of others and what cannot be read stay', async () => {
  const record = (machine: string): string =>
    JSON.stringify({ formatVersion: 1, machine, address: '10.77.0.11' })
  await store.put(subnetKey('10.88.11.0/24'), 'no JSON')
  await store.put(subnetKey('10.88.12.0/24'), record('node2'))
  await store.put(subnetKey('10.88.13.0/24'), record('node1'))
  await store.put(subnetKey('10.244.13.0/24'), record('node1'))
  expect(await hold(open(), 'node1')).toBe('10.88.13.0/24')
  expect([...(await heard()).keys()]).toEqual(
    ['10.88.11.0/24', '10.88.12.0/24', '10.88.13.0/24'].map(subnetKey),
  )
})

test('a network without a free subnet says so', async () => {
  const small = OverlayConfig.parse({ network: '10.88.0.0/23' })
  await hold(open(), 'node2', { config: small })
  await expect(hold(open(), 'node1', { config: small })).rejects.toMatchObject({ code: 'OVERLAY_FULL' })
})

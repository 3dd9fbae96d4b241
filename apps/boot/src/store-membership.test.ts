import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { MachineRecord } from '@kiln/schemas'
import { createLog, Fault } from '@kiln/service'
import { expect, test } from 'vitest'
import { ClusterFile } from './cluster-file.ts'
import { planCluster } from './initial-cluster.ts'
import { type ListedMember, type MemberApi, planJoin, storeMembership } from './store-membership.ts'

const log = createLog('test', 'silent')
const at = '2026-06-01T00:00:00.000Z'
const storeGroup = (expected: number) => ({
  id: 'g',
  profile: 'p',
  metadata: {
    kiln: {
      ...{ role: 'store' as const, addresses: {}, names: {}, clusterMacs: {} },
      ...{ clusterInterface: 'eth1', prefixLength: 24, expected },
    },
  },
})
const machine = (n: number, more: Partial<MachineRecord> = {}): MachineRecord => ({
  ...{ id: `node${n}`, name: `node${n}`, mac: `52:54:00:00:00:0${n}`, uuid: '', group: 'g', role: 'store' },
  ...{ address: `10.77.0.1${n}`, state: 'assigned', firstSeenAt: at, lastSeenAt: at },
  ...more,
})

/** A store that only knows its list of members. */
function fakeStore(members: ListedMember[]): { members: ListedMember[]; calls: string[]; api: MemberApi } {
  const store = { members, calls: [] as string[] }
  return {
    ...store,
    api: {
      list: async () => store.members,
      add: async (url) => {
        store.calls.push(`add ${url}`)
        store.members.push({ id: `n${store.calls.length}`, name: '', peerUrls: [url] })
      },
      close: async () => undefined,
      remove: async (id) => {
        store.calls.push(`remove ${id}`)
        store.members.splice(0, store.members.length, ...store.members.filter((member) => member.id !== id))
      },
    },
  }
}
/** A store of which every call fails. */
function fakeFailing(fault: Fault): MemberApi {
  const fail = async (): Promise<never> => {
    throw fault
  }
  return { list: fail, add: fail, remove: fail, close: async () => undefined }
}
const listed = (n: number): ListedMember => ({
  id: `m${n}`,
  name: `node${n}`,
  peerUrls: [`https://10.77.0.1${n}:2380`],
})

async function clusterOfThree() {
  const cluster = new ClusterFile(join(mkdtempSync(join(tmpdir(), 'kiln-cluster-')), 'cluster.json'), log)
  const record = await cluster.settle([storeGroup(3)], [machine(1), machine(2), machine(3)])
  if (!record) throw new Error('no cluster')
  return { cluster, record }
}
const membershipOf = (cluster: ClusterFile, api: MemberApi | undefined) =>
  storeMembership({
    ...{ cluster, log, endpointsOf: () => ['https://10.77.0.11:2379'] },
    connect: () => api ?? fakeFailing(new Fault('STORE_UNREACHABLE', 'no endpoint answers')),
  })

test('the initial cluster waits for the expected members, discovered machines and workers do not count', () => {
  const others = [machine(4, { state: 'discovered' }), machine(5, { role: 'worker' })]
  expect(planCluster([storeGroup(3)], [machine(2), machine(1), ...others])).toEqual({
    kind: 'waiting',
    expected: 3,
    assigned: ['node1', 'node2'],
  })
  expect(planCluster([storeGroup(3)], [machine(3), machine(2), machine(1)])).toMatchObject({
    kind: 'ready',
    members: [{ name: 'node1' }, { name: 'node2' }, { name: 'node3' }],
  })
  expect(planCluster([], [machine(5, { role: 'worker' })])).toEqual({ kind: 'no-store' })
})

test('the cluster is written once: later machines do not change its members or its token', async () => {
  const { cluster, record } = await clusterOfThree()
  const again = await cluster.settle([storeGroup(4)], [machine(1), machine(2), machine(3), machine(4)])
  expect(again).toEqual(record)
})

test('a member of the initial cluster starts new, without asking anybody', async () => {
  const { cluster, record } = await clusterOfThree()
  const place = await membershipOf(cluster, undefined).place(machine(1), record, true)
  expect(place).toEqual({ members: record.members, state: 'new' })
})

test('a machine assigned later is added to the running store and starts as existing', async () => {
  const { cluster, record } = await clusterOfThree()
  const store = fakeStore([listed(1), listed(2), listed(3)])
  const membership = membershipOf(cluster, store.api)
  const place = await membership.place(machine(4), record, true)
  expect(place.state).toBe('existing')
  expect(place.members.map((member) => member.name)).toEqual(['node1', 'node2', 'node3', 'node4'])
  expect(await membership.place(machine(4), cluster.record ?? record, true)).toEqual(place)
  expect(store.calls).toEqual(['add https://10.77.0.14:2380'])
  expect(cluster.record?.joined).toEqual([{ name: 'node4', address: '10.77.0.14' }])
})

test('a reinstalled member is removed and added again', async () => {
  const { cluster, record } = await clusterOfThree()
  const store = fakeStore([listed(1), listed(2), listed(3)])
  const again = machine(2, { installedAt: at, state: 'installing' })
  const place = await membershipOf(cluster, store.api).place(again, record, true)
  expect(store.calls).toEqual(['remove m2', 'add https://10.77.0.12:2380'])
  expect(place.state).toBe('existing')
})

test('the only member begins another store when it is installed again, and asks nobody', async () => {
  const cluster = new ClusterFile(join(mkdtempSync(join(tmpdir(), 'kiln-cluster-')), 'cluster.json'), log)
  const record = (await cluster.settle([storeGroup(1)], [machine(1)]))!
  const again = machine(1, { installedAt: at, state: 'installing' })
  const place = await membershipOf(cluster, undefined).place(again, record, true)
  expect(place).toEqual({ members: record.members, state: 'new' })
  expect(cluster.record?.members).toEqual(record.members)
  expect(cluster.record?.token).not.toBe(record.token)
  const reloaded = await membershipOf(cluster, undefined).place(again, cluster.record!, false)
  expect(reloaded.state).toBe('new')
})

test('a joining member waits while the store cannot be asked', async () => {
  const { cluster, record } = await clusterOfThree()
  await expect(membershipOf(cluster, undefined).place(machine(4), record, true)).rejects.toMatchObject({
    code: 'STORE_UNREACHABLE',
  })
})

test('a member the store refuses is a fault of its own, not one to wait for', async () => {
  const { cluster, record } = await clusterOfThree()
  const refusing = fakeFailing(new Fault('STORE_UNIMPLEMENTED', 'unknown method'))
  await expect(membershipOf(cluster, refusing).place(machine(4), record, true)).rejects.toMatchObject({
    code: 'JOIN_REFUSED',
  })
  expect(cluster.record?.joined).toEqual([])
})

test('a member listed but not started is joined as it is, its former selves go', () => {
  const waiting = { id: 'w', name: '', peerUrls: ['https://10.77.0.12:2380'] }
  const wanted = { name: 'node2', address: '10.77.0.12' }
  expect(planJoin([listed(1), waiting], wanted)).toEqual({ remove: [], add: false })
  expect(planJoin([listed(1), { ...listed(2), peerUrls: ['https://10.9.9.9:2380'] }], wanted)).toEqual({
    remove: ['m2'],
    add: true,
  })
})

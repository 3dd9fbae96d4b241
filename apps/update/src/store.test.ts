import { EtcdClient } from '@kiln/etcd-api'
import { MachineFacts } from '@kiln/schemas'
import { expect, test } from 'vitest'
import { beginRollout, findVoterProblems, finishRollout, haltRollout, orderEndpoints } from './store.ts'

const facts = (storeEndpoints: string[]): MachineFacts =>
  MachineFacts.parse({
    formatVersion: 1,
    id: 'node2',
    name: 'node2',
    group: 'default',
    role: 'worker',
    address: '10.77.0.12',
    bootUrl: 'http://10.0.2.2:8080',
    bootTlsUrl: 'https://10.0.2.2:8443',
    storeEndpoints,
  })

type Member = { name: string; isLearner?: boolean; leader?: bigint; index?: bigint; applied?: bigint }

/** A store of these members; one without a leader field does not answer. */
function store(members: Member[]): EtcdClient {
  const client = {
    memberList: async () =>
      members.map(({ name, isLearner = false }) => ({ name, isLearner, clientUrls: [`https://${name}`] })),
    status: async (endpoint: string) => {
      const member = members.find(({ name }) => endpoint.endsWith(name))!
      if (member.leader === undefined) throw new Error('unreachable')
      const raftIndex = member.index ?? 1000n
      return { leaderId: member.leader, raftIndex, raftAppliedIndex: member.applied ?? raftIndex }
    },
  }
  return client as unknown as EtcdClient
}

const three: [Member, Member, Member] = [
  { name: 'node1', leader: 7n },
  { name: 'node2', leader: 7n },
  { name: 'node3', leader: 7n },
]
const withThird = (third: Member): Member[] => [three[0], three[1], third]

test('the own member is asked first, and a cluster without a store still gives a client that can be made', () => {
  const endpoints = ['https://10.77.0.11:2379', 'https://10.77.0.12:2379']
  expect(orderEndpoints(facts(endpoints))).toEqual([...endpoints].reverse())
  new EtcdClient({ endpoints: orderEndpoints(facts([])) }).close()
})

test('a member can be spared only while every voter answers, sees the one leader and is caught up', async () => {
  expect(await findVoterProblems(store(three))).toEqual([])
  const cases: [Member, string][] = [
    [{ name: 'node3' }, 'node3 does not answer'],
    [{ name: 'node3', leader: 0n }, 'node3 sees no leader'],
    [{ name: 'node3', leader: 8n }, 'the members disagree on the leader'],
    [{ name: 'node3', leader: 7n, index: 10n }, 'node3 is behind'],
    [{ name: 'node3', leader: 7n, applied: 10n }, 'node3 is behind'],
  ]
  for (const [third, problem] of cases)
    expect(await findVoterProblems(store(withThird(third)))).toContain(problem)
})

test('a learner has no vote, so it holds nobody back', async () => {
  expect(await findVoterProblems(store([...three, { name: 'node4', isLearner: true }]))).toEqual([])
})

/** One key of a store, with a hand that changes it between a read and the write that follows. */
function rolloutStore(value?: string) {
  const at = { value, revision: value === undefined ? 0n : 1n, meanwhile: [] as string[] }
  const entry = () =>
    at.value === undefined ? undefined : { key: 'k', text: at.value, modRevision: at.revision }
  const put = (next: string): void => {
    at.value = next
    at.revision += 1n
  }
  const client = {
    get: async () => entry(),
    getPrefix: async () => ({ entries: [] }),
    createIfMissing: async (_key: string, next: string) => {
      if (at.value === undefined) put(next)
    },
    compareAndSwap: async (_key: string, change: { modRevision: bigint; value: string }) => {
      const other = at.meanwhile.shift()
      if (other !== undefined) put(other)
      if (change.modRevision !== at.revision) return { swapped: false, current: entry() }
      put(change.value)
      return { swapped: true }
    },
  }
  return { store: client as unknown as EtcdClient, at, read: () => JSON.parse(at.value ?? 'null') }
}

const rollout = { group: 'default', version: '0.2.0' }
const halted = '{"formatVersion":1,"state":"halted","reason":"first","machine":"node2"}'

test('a rollout that was halted is not begun or finished by a machine that looked before', async () => {
  const begun = rolloutStore(halted)
  await beginRollout(begun.store, rollout)
  expect(begun.read()).toMatchObject({ state: 'halted', reason: 'first' })
  const finishing = rolloutStore('{"formatVersion":1,"state":"rolling"}')
  finishing.at.meanwhile.push(halted)
  await finishRollout(finishing.store, rollout)
  expect(finishing.read()).toMatchObject({ state: 'halted', reason: 'first' })
})

test('a halt wins over what another machine writes meanwhile, and the first reason stays', async () => {
  const racing = rolloutStore('{"formatVersion":1,"state":"rolling","note":"kept"}')
  racing.at.meanwhile.push('{"formatVersion":1,"state":"done","note":"kept"}')
  await haltRollout(racing.store, rollout, { reason: 'gate red', machine: 'node1' })
  expect(racing.read()).toMatchObject({ state: 'halted', reason: 'gate red', machine: 'node1', note: 'kept' })
  await haltRollout(racing.store, rollout, { reason: 'later', machine: 'node3' })
  expect(racing.read()).toMatchObject({ reason: 'gate red' })
  const busy = rolloutStore('{"formatVersion":1,"state":"rolling"}')
  busy.at.meanwhile.push(...Array(20).fill('{"formatVersion":1,"state":"rolling"}'))
  await expect(haltRollout(busy.store, rollout, { reason: 'x', machine: 'node1' })).rejects.toMatchObject({
    code: 'STORE_BUSY',
  })
})

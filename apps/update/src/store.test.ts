import { EtcdClient } from '@kiln/etcd-api'
import { MachineFacts } from '@kiln/schemas'
import { expect, test } from 'vitest'
import { findVoterProblems, orderEndpoints } from './store.ts'

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

import * as rpc from '@kiln/etcd-api/rpc'
import { Fault } from '@kiln/service'
import { afterEach, expect, test } from 'vitest'
import { grpcCall } from '../testing/grpc-call.ts'
import { type LoneServer, startLoneServer } from '../testing/lone-server.ts'

let server: LoneServer | undefined
afterEach(async () => {
  await server?.close()
  server = undefined
})

const add = (peerURLs: string[], isLearner = false) =>
  ['MemberAdd', rpc.MemberAddRequest.encode({ peerURLs, isLearner }).finish()] as const
const remove = (ID: bigint) => ['MemberRemove', rpc.MemberRemoveRequest.encode({ ID }).finish()] as const
const promote = (ID: bigint) => ['MemberPromote', rpc.MemberPromoteRequest.encode({ ID }).finish()] as const
const update = (ID: bigint, peerURLs: string[]) =>
  ['MemberUpdate', rpc.MemberUpdateRequest.encode({ ID, peerURLs }).finish()] as const

async function ask([name, request]: readonly [string, Uint8Array]): Promise<string> {
  const { code, message } = await grpcCall(server!.url, `/etcdserverpb.Cluster/${name}`, [request])
  return `${code} ${message}`
}

const ok = '0 '
const urlsInvalid = '3 etcdserver: given member URLs are invalid'
const unknown = '5 etcdserver: member not found'
const exists = '9 etcdserver: Peer URLs already exists'
const tooManyLearners = '9 etcdserver: too many learner members in cluster'
const notEnough = '9 etcdserver: re-configuration failed due to not enough started members'
const notLearner = '9 etcdserver: can only promote a learner member'

test('members are added, promoted, changed and removed, or refused in etcd’s words', async () => {
  server = await startLoneServer(['--max-learners=2'])
  const steps: [readonly [string, Uint8Array], string][] = [
    [add([]), urlsInvalid],
    [add(['10.0.0.1:2380']), urlsInvalid],
    [add(['http://10.0.0.1']), urlsInvalid],
    [add(['http://127.0.0.1:2380']), exists],
    [add(['http://10.0.0.1:2380'], true), ok],
    [add(['http://10.0.0.2:2380'], true), ok],
    [add(['http://10.0.0.3:2380'], true), tooManyLearners],
    [update(101n, ['http://10.0.0.2:2380']), exists],
    [update(101n, ['ftp://10.0.0.9:2380']), urlsInvalid],
    [update(101n, ['http://10.0.0.9:2380']), ok],
    [update(99n, ['http://10.0.0.8:2380']), unknown],
    [promote(99n), unknown],
    [promote(7n), notLearner],
    [promote(101n), ok],
    [promote(101n), notLearner],
    [add(['http://10.0.0.4:2380']), notEnough],
    [remove(7n), notEnough],
    [remove(99n), unknown],
    [remove(101n), ok],
    [remove(101n), unknown],
  ]
  for (const [at, [request, answer]] of steps.entries()) {
    expect(await ask(request), `step ${at}, ${request[0]}`).toBe(answer)
  }
  const list = await grpcCall(server.url, '/etcdserverpb.Cluster/MemberList', [
    rpc.MemberListRequest.encode({ linearizable: true }).finish(),
  ])
  expect(rpc.MemberListResponse.decode(list.replies[0]!).members).toMatchObject([
    { ID: 7n, name: 'lone', isLearner: false },
    { ID: 102n, name: '', clientURLs: [], peerURLs: ['http://10.0.0.2:2380'], isLearner: true },
  ])
})

test('a change of an address keeps a learner a learner', async () => {
  server = await startLoneServer()
  await ask(add(['http://10.0.0.1:2380'], true))
  await ask(update(101n, ['http://10.0.0.2:2380']))
  expect(server.context.consensus.members().find(({ id }) => id === 101n)).toMatchObject({
    learner: true,
    peerUrls: ['http://10.0.0.2:2380'],
  })
})

test('what the consensus refuses is told in etcd’s words', async () => {
  const fail = (code: string) => async () => {
    throw new Fault(code, 'as the test wants')
  }
  server = await startLoneServer([], (lone) => ({
    members: () => [
      ...lone.members(),
      { id: 8n, name: '', peerUrls: ['http://b:1'], clientUrls: [], learner: true },
    ],
    addMember: fail('STORE_UNHEALTHY'),
    promoteMember: fail('STORE_MEMBER_UNREADY'),
    removeMember: fail('STORE_MEMBER_UNKNOWN'),
    transferLeader: fail('STORE_TIMEOUT'),
    isLeader: () => true,
  }))
  expect(await ask(add(['http://c:1']))).toBe('14 etcdserver: unhealthy cluster')
  expect(await ask(promote(8n))).toBe(
    '9 etcdserver: can only promote a learner member which is in sync with leader',
  )
  expect(await ask(remove(8n))).toBe(unknown)
  const move = async (targetID: bigint): Promise<string> => {
    const request = rpc.MoveLeaderRequest.encode({ targetID }).finish()
    const { code, message } = await grpcCall(server!.url, '/etcdserverpb.Maintenance/MoveLeader', [request])
    return `${code} ${message}`
  }
  expect(await move(8n)).toBe('9 etcdserver: bad leader transferee')
  expect(await move(99n)).toBe('9 etcdserver: bad leader transferee')
  expect(await move(7n)).toBe('14 etcdserver: request timed out')
})

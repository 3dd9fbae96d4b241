import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as rpc from '@kiln/etcd-api/rpc'
import { createCa, issueCertificate } from '@kiln/pki'
import { afterEach, expect, test } from 'vitest'
import { type AuthCalls, authCalls, enableAuth, outcomeOf } from '../testing/auth-calls.ts'
import { grpcCall } from '../testing/grpc-call.ts'
import { type MemberCluster, startMembers } from '../testing/member-process.ts'

const ends: (() => unknown)[] = []
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

async function clusterOf(options: Parameters<typeof startMembers>[0]): Promise<MemberCluster> {
  const cluster = await startMembers(options)
  ends.push(() => cluster.stop())
  return cluster
}

const denied = '7 etcdserver: permission denied'
const invalidToken = '16 etcdserver: invalid auth token'

/** What a member knows of users and roles, as root is told. */
async function knownTo(url: string): Promise<unknown> {
  const { token } = await authCalls(url).authenticate('root', 'root')
  const { call, status } = authCalls(url, token)
  const { enabled, authRevision } = await status()
  const [users] = (await call('Auth/UserList', new Uint8Array(0))).replies
  const role = rpc.AuthRoleGetRequest.encode({ role: 'reader' }).finish()
  const [reader] = (await call('Auth/RoleGet', role)).replies
  const alice = rpc.AuthUserGetRequest.encode({ name: 'alice' }).finish()
  const [roles] = (await call('Auth/UserGet', alice)).replies
  return {
    enabled,
    authRevision,
    users: rpc.AuthUserListResponse.decode(users!).users,
    permissions: rpc.AuthRoleGetResponse.decode(reader!).perm.map(({ key, rangeEnd }) => [
      Buffer.from(key).toString(),
      Buffer.from(rangeEnd).toString(),
    ]),
    roles: rpc.AuthUserGetResponse.decode(roles!).roles,
  }
}

/** Whether the member at `at` leads, as another one says. */
async function leads(root: AuthCalls, cluster: MemberCluster, at: number): Promise<boolean> {
  const statusOf = async (calls: AuthCalls) => {
    const { replies } = await calls.call('Maintenance/Status', new Uint8Array(0))
    return rpc.StatusResponse.decode(replies[0]!)
  }
  const { leader } = await statusOf(root)
  const { token } = await authCalls(cluster.endpoints[at]!).authenticate('root', 'root')
  const { header } = await statusOf(authCalls(cluster.endpoints[at]!, token))
  return header?.memberId === leader
}

test('all members know the same users, also one that was away, and a token opens all of them until its user goes', {
  timeout: 180_000,
}, async () => {
  const cluster = await clusterOf({
    count: 3,
    flags: ['--bcrypt-cost=4', '--snapshot-count=20', '--snapshot-catchup-entries=0'],
  })
  const [first] = cluster.endpoints
  const { root, tokens } = await enableAuth(first!)
  for (const url of cluster.endpoints) {
    const alice = authCalls(url, tokens[1])
    expect(await alice.put('a/1')).toBe('0 ')
    expect(await alice.get('a/1', { serializable: true })).toBe('0 ')
    expect(await alice.put('b')).toBe(denied)
  }

  // Not the one that is talked to, nor the leader, whose end would fail what is under way.
  const away = (await leads(root, cluster, 1)) ? 2 : 1
  const third = cluster.endpoints[away]!
  await cluster.members[away]!.kill()
  expect(await root.roleGrant('reader', 'c/', 'c0')).toBe('0 ')
  for (let i = 0; i < 60; i++) expect(await root.put(`x/${i}`)).toBe('0 ')
  await cluster.members[away]!.start()
  const known = await knownTo(first!)
  expect(known).toMatchObject({
    enabled: true,
    authRevision: 9n,
    users: ['alice', 'certified', 'root'],
    roles: ['reader'],
  })
  for (const url of cluster.endpoints) expect(await knownTo(url)).toEqual(known)
  // It came back by way of a snapshot; what it knows holds for what it answers by itself.
  const back = authCalls(third, (await authCalls(third).authenticate('alice', 'alice')).token)
  expect(await back.get('c/1', { serializable: true })).toBe('0 ')
  expect(await back.get('x/1', { serializable: true })).toBe(denied)

  for (const member of cluster.members) await member.stop()
  await Promise.all(cluster.members.map((member) => member.start()))
  for (const url of cluster.endpoints) expect(await knownTo(url)).toEqual(known)

  const { token } = await authCalls(first!).authenticate('alice', 'alice')
  for (const url of cluster.endpoints) expect(await authCalls(url, token).get('a/1')).toBe('0 ')
  const admin = authCalls(third, (await authCalls(third).authenticate('root', 'root')).token)
  expect(await admin.userDelete('alice')).toBe('0 ')
  for (const url of cluster.endpoints) expect(await authCalls(url, token).get('a/1')).toBe(invalidToken)
})

test('a storm of wrong passwords does not keep others from writing', { timeout: 120_000 }, async () => {
  const cluster = await clusterOf({ count: 1 })
  const [url] = cluster.endpoints
  const { root } = await enableAuth(url!)
  let isOver = false
  const startedAt = performance.now()
  const storm = Promise.all(
    Array.from({ length: 100 }, () => authCalls(url!).authenticate('root', 'wrong')),
  ).then((answers) => {
    isOver = true
    return answers.map(({ outcome }) => outcome)
  })
  let puts = 0
  let longestMs = 0
  while (!isOver) {
    const before = performance.now()
    expect(await root.put('x')).toBe('0 ')
    longestMs = Math.max(longestMs, performance.now() - before)
    puts++
  }
  const outcomes = await storm
  const totalMs = performance.now() - startedAt
  const authFailed = '3 etcdserver: authentication failed, invalid user ID or password'
  const tooMany = '8 etcdserver: too many requests'
  expect(outcomes.filter((outcome) => outcome !== authFailed && outcome !== tooMany)).toEqual([])
  // At least those that may wait were looked at, which takes seconds; on the loop no put would come in between.
  expect(outcomes.filter((outcome) => outcome === authFailed).length).toBeGreaterThanOrEqual(60)
  expect(puts).toBeGreaterThanOrEqual(10)
  expect(longestMs).toBeLessThan(totalMs / 2)
})

test('the name in a client certificate is who asks, where there is no token', {
  timeout: 120_000,
}, async () => {
  const folder = await mkdtemp(join(tmpdir(), 'kiln-kv-cn-'))
  ends.push(() => rm(folder, { recursive: true, force: true }))
  const now = new Date()
  const subject = { names: ['127.0.0.1', 'localhost'], use: ['server', 'client'] as const, days: 1, now }
  const ca = await createCa({ name: 'test', days: 1, now })
  const pairOf = async (commonName: string) => {
    const { certificate, key } = await issueCertificate(ca, { commonName, ...subject })
    return { ca: ca.certificate, cert: certificate, key }
  }
  const member = await pairOf('member')
  const files = { ca: join(folder, 'ca.pem'), cert: join(folder, 'cert.pem'), key: join(folder, 'key.pem') }
  await writeFile(files.ca, member.ca)
  await writeFile(files.cert, member.cert)
  await writeFile(files.key, member.key)
  const cluster = await clusterOf({ count: 1, tls: files, flags: ['--bcrypt-cost=4'] })
  const [url] = cluster.endpoints
  const { tokens } = await enableAuth(url!, member)

  const by = async (commonName: string, token?: string) => authCalls(url!, token, await pairOf(commonName))
  expect(await (await by('root')).roleAdd('made')).toBe('0 ')
  expect(await (await by('alice')).put('a/1')).toBe('0 ')
  expect(await (await by('alice')).put('b')).toBe(denied)
  expect(await (await by('member')).put('a/1')).toBe(denied)
  // A token says more than the certificate of whoever brings it.
  expect(await (await by('root', tokens[1])).put('b')).toBe(denied)
  // A gateway in between shows its own certificate.
  const request = [new Uint8Array(0)]
  const headers = { 'grpcgateway-accept': '*/*' }
  const tls = await pairOf('root')
  const answer = await grpcCall(url!, '/etcdserverpb.KV/Txn', request, headers, { tls })
  expect(outcomeOf(answer)).toBe('3 etcdserver: user name is empty')
})

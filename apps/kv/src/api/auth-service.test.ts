import { generateKeyPairSync } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as rpc from '@kiln/etcd-api/rpc'
import type { Log } from '@kiln/service'
import { afterEach, expect, test } from 'vitest'
import { encodeCommand } from '../state/command.ts'
import { withProposer } from '../state/proposer.ts'
import { authCalls, enableAuth, outcomeOf } from '../testing/auth-calls.ts'
import { grpcCall } from '../testing/grpc-call.ts'
import { type LoneServer, startLoneServer } from '../testing/lone-server.ts'

const ends: (() => unknown)[] = []
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

async function start(
  flags: string[] = [],
  change?: Parameters<typeof startLoneServer>[1],
): Promise<LoneServer & { logged: object[] }> {
  const server = await startLoneServer(['--bcrypt-cost=4', ...flags], change)
  ends.push(() => server.close())
  const logged: object[] = []
  const note = (fields: object): void => void logged.push(fields)
  const log: Log = { debug: () => undefined, info: note, warn: note, error: note, child: () => log }
  server.context.log = log
  return { ...server, logged }
}

const userEmpty = '3 etcdserver: user name is empty'
const denied = '7 etcdserver: permission denied'
const invalidToken = '16 etcdserver: invalid auth token'
const oldRevision = '3 etcdserver: revision of auth store is old'
const authFailed = '3 etcdserver: authentication failed, invalid user ID or password'

/** `Service/Method` of everything that etcd's API has. */
function allMethods(): string[] {
  const proto = readFileSync(join(import.meta.dirname, '../../../../libs/etcd-api/proto/rpc.proto'), 'utf8')
  return [...proto.matchAll(/^service (\w+) \{([^}]*)\}/gm)].flatMap(([, service, body]) =>
    [...body!.matchAll(/rpc (\w+)\(/g)].map(([, method]) => `${service}/${method}`),
  )
}
/** These check the key first; it is the first field of all three. */
const bodies: Record<string, Uint8Array> = Object.fromEntries(
  ['KV/Range', 'KV/Put', 'KV/DeleteRange'].map((method) => [method, Buffer.from([10, 1, 0x6b])]),
)
const watchRequest = (key: string): Uint8Array =>
  rpc.WatchRequest.encode(
    rpc.WatchRequest.fromPartial({
      requestUnion: {
        $case: 'createRequest',
        value: rpc.WatchCreateRequest.fromPartial({ key: Buffer.from(key), watchId: 5n }),
      },
    }),
  ).finish()

test('without a token nothing is served but logging in, the list of members and keep-alives', async () => {
  const { url } = await start()
  await enableAuth(url)
  const methods = allMethods()
  expect(methods.length).toBeGreaterThan(40)
  const open = ['Auth/Authenticate', 'Cluster/MemberList', 'Lease/LeaseKeepAlive', 'Watch/Watch']
  for (const method of methods.filter((each) => !open.includes(each))) {
    const answer = await authCalls(url).call(method, bodies[method] ?? new Uint8Array(0))
    expect([method, outcomeOf(answer)]).toEqual([method, userEmpty])
    const bad = await authCalls(url, 'nonsense.1').call(method, bodies[method] ?? new Uint8Array(0))
    expect([method, outcomeOf(bad)]).toEqual([method, invalidToken])
  }
  expect((await authCalls(url).call('Cluster/MemberList', new Uint8Array(0))).code).toBe(0)
})

test('a user with rights on keys alone is no administrator', async () => {
  const { url } = await start()
  const { alice } = await enableAuth(url)
  const own = ['Authenticate', 'UserGet', 'RoleGet']
  const methods = [
    ...allMethods().filter((each) => each.startsWith('Auth/') && !own.includes(each.slice(5))),
    ...['Cluster/MemberAdd', 'Cluster/MemberRemove', 'Cluster/MemberUpdate', 'Cluster/MemberPromote'],
    ...['Maintenance/Snapshot', 'Maintenance/Defragment', 'Maintenance/Hash', 'Maintenance/HashKV'],
    ...['Maintenance/MoveLeader', 'Maintenance/Downgrade'],
  ]
  for (const method of methods) {
    expect([method, outcomeOf(await alice.call(method, new Uint8Array(0)))]).toEqual([method, denied])
  }
  const alarm = (action: rpc.AlarmRequest_AlarmAction) =>
    alice.run('Maintenance/Alarm', rpc.AlarmRequest, { action, alarm: rpc.AlarmType.NOSPACE })
  expect(await alarm(rpc.AlarmRequest_AlarmAction.ACTIVATE)).toBe(denied)
  expect(await alarm(rpc.AlarmRequest_AlarmAction.GET)).toBe('0 ')
  expect((await alice.call('Maintenance/Status', new Uint8Array(0))).code).toBe(0)
  expect(await alice.run('Auth/UserGet', rpc.AuthUserGetRequest, { name: 'alice' })).toBe('0 ')
  expect(await alice.run('Auth/UserGet', rpc.AuthUserGetRequest, { name: 'root' })).toBe(denied)
  expect(await alice.run('Auth/RoleGet', rpc.AuthRoleGetRequest, { role: 'reader' })).toBe('0 ')
  expect(await alice.run('Auth/RoleGet', rpc.AuthRoleGetRequest, { role: 'root' })).toBe(denied)
})

test('logging in has one answer for a wrong name and a wrong password, and others for what is not so', async () => {
  const { url } = await start()
  const { authenticate } = authCalls(url)
  const notEnabled = '9 etcdserver: authentication is not enabled'
  expect((await authenticate('root', 'root')).outcome).toBe(notEnabled)
  await enableAuth(url)
  expect((await authenticate('root', 'wrong')).outcome).toBe(authFailed)
  expect((await authenticate('nobody', 'root')).outcome).toBe(authFailed)
  expect((await authenticate('certified', 'x')).outcome).toBe(
    '2 auth: authentication failed, password was given for no password user',
  )
  const { token } = await authenticate('root', 'root')
  expect(token).toMatch(/^[A-Za-z]{16}\.\d+$/)
})

test('a token may stand in either header and opens what its user may', async () => {
  const { url } = await start()
  const { alice, tokens } = await enableAuth(url)
  expect(await alice.put('a/1')).toBe('0 ')
  expect(await alice.put('b')).toBe(denied)
  expect(await alice.get('b', { serializable: true })).toBe(denied)
  const request = rpc.RangeRequest.encode(rpc.RangeRequest.fromPartial({ key: Buffer.from('a/1') })).finish()
  const answer = await grpcCall(url, '/etcdserverpb.KV/Range', [request], { authorization: tokens[1]! })
  expect(answer.code).toBe(0)
})

test('the token of a user ends with the user, its password, or auth itself', async () => {
  const { url } = await start()
  const { root, alice, tokens } = await enableAuth(url)
  expect(await alice.get('a/1')).toBe('0 ')
  expect(await root.password('alice', 'new')).toBe('0 ')
  expect(await alice.get('a/1')).toBe(invalidToken)
  expect((await alice.authenticate('alice', 'alice')).outcome).toBe(authFailed)
  const again = authCalls(url, (await alice.authenticate('alice', 'new')).token)
  expect(await again.get('a/1')).toBe('0 ')
  expect(await root.userDelete('alice')).toBe('0 ')
  expect(await again.get('a/1')).toBe(invalidToken)
  expect(await root.disable()).toBe('0 ')
  expect(await authCalls(url).enable()).toBe('0 ')
  expect(await authCalls(url, tokens[0]).get('x')).toBe(invalidToken)
})

test('what cannot be asked for is refused in the words of etcd', async () => {
  const { url } = await start()
  const { root } = await enableAuth(url)
  expect(await root.userAdd('', 'x')).toBe(userEmpty)
  expect(await root.userAdd('alice', 'x')).toBe('9 etcdserver: user name already exists')
  expect(await root.userAdd('long', 'x'.repeat(73))).toBe('2 bcrypt: password length exceeds 72 bytes')
  expect(await root.roleAdd('')).toBe('3 etcdserver: role name is empty')
  expect(
    await root.run('Auth/RoleGrantPermission', rpc.AuthRoleGrantPermissionRequest, { name: 'reader' }),
  ).toBe('3 etcdserver: permission not given')
  expect(await root.roleGrant('reader', 'b', 'a')).toBe('3 etcdserver: invalid auth management')
  expect(await root.userDelete('root')).toBe('3 etcdserver: invalid auth management')
  const missing = await root.run('Auth/UserGet', rpc.AuthUserGetRequest, { name: 'none' })
  expect(missing).toBe('9 etcdserver: user name not found')
  expect((await root.status()).authRevision).toBe(8n)
})

test('a right that is revoked between proposal and apply is revoked', async () => {
  let meanwhile: (() => Promise<unknown>) | undefined
  const { url, context } = await start([], (lone) => ({
    propose: async (data) => {
      const before = meanwhile
      meanwhile = undefined
      await before?.()
      return lone.propose(data)
    },
  }))
  const { root, alice } = await enableAuth(url)
  meanwhile = () => root.roleRevoke('reader', 'a/', 'a0')
  expect(await alice.put('a/1')).toBe(oldRevision)
  expect(context.state.store.revision).toBe(1)
  expect(await alice.put('a/1')).toBe(denied)
  expect(await root.roleGrant('reader', 'a/', 'a0')).toBe('0 ')
  expect(await alice.put('a/1')).toBe('0 ')

  meanwhile = () => root.userDelete('alice')
  expect(await alice.put('a/2')).toBe(oldRevision)
  expect(context.state.store.revision).toBe(2)
})

test('what was proposed before auth was enabled, or by a member that knew of less, is checked as everything', async () => {
  const { url, context } = await start()
  await enableAuth(url)
  const { state, consensus } = context
  const request = rpc.PutRequest.encode(rpc.PutRequest.fromPartial({ key: Buffer.from('b') })).finish()
  const entry = encodeCommand({ kind: 'put', request })
  const refusalOf = async (data: Uint8Array) => (await consensus.propose(data)) as { outcome: unknown }
  expect((await refusalOf(entry)).outcome).toMatchObject({ refusal: { text: userEmpty.slice(2) } })
  const alice = { name: 'alice', revision: state.auth.revision }
  expect((await refusalOf(withProposer(entry, alice))).outcome).toMatchObject({ refusal: { code: 7 } })
  expect((await refusalOf(withProposer(entry, 'member'))).outcome).toMatchObject({ ok: true })
  expect(state.store.revision).toBe(2)
})

test('a watch that is not allowed is created and canceled in one message, and the stream goes on', async () => {
  const { url } = await start()
  const { tokens, root } = await enableAuth(url)
  await root.put('a/1')
  const watch = async (keys: string[], token?: string) => {
    const headers: Record<string, string> = token === undefined ? {} : { token }
    const path = '/etcdserverpb.Watch/Watch'
    const { replies } = await grpcCall(url, path, keys.map(watchRequest), headers, {
      repliesAwaited: keys.length,
    })
    return replies.map((reply) => {
      const { created, canceled, watchId, cancelReason } = rpc.WatchResponse.decode(reply)
      return { created, canceled, watchId, cancelReason }
    })
  }
  const canceled = (reason: string) => ({
    created: true,
    canceled: true,
    watchId: -1n,
    cancelReason: `rpc error: code = ${reason}`,
  })
  const allowed = { created: true, canceled: false, watchId: 5n, cancelReason: '' }
  const permission = 'PermissionDenied desc = etcdserver: permission denied'
  expect(await watch(['b', 'a/1'], tokens[1])).toEqual([canceled(permission), allowed])
  expect(await watch(['b'], tokens[0])).toEqual([allowed])
  expect(await watch([''], tokens[1])).toEqual([canceled(permission)])
  expect(await watch(['a/1'])).toEqual([canceled('InvalidArgument desc = etcdserver: user name is empty')])
  const bad = 'Unauthenticated desc = etcdserver: invalid auth token'
  expect(await watch(['a/1'], 'x.1')).toEqual([canceled(bad)])
})

test('a lease with keys of others can be neither taken, ended, nor looked into', async () => {
  const { url } = await start()
  const { root, alice } = await enableAuth(url)
  expect(await root.run('Lease/LeaseGrant', rpc.LeaseGrantRequest, { ID: 9n, TTL: 60n })).toBe('0 ')
  expect(await alice.put('a/1', 'v', { lease: 9n })).toBe('0 ')
  expect(await root.put('secret', 'v', { lease: 9n })).toBe('0 ')
  expect(await alice.put('a/2', 'v', { lease: 9n })).toBe(denied)
  expect(await alice.run('Lease/LeaseRevoke', rpc.LeaseRevokeRequest, { ID: 9n })).toBe(denied)
  const look = (keys: boolean) =>
    alice.run('Lease/LeaseTimeToLive', rpc.LeaseTimeToLiveRequest, { ID: 9n, keys })
  expect(await look(true)).toBe(denied)
  expect(await look(false)).toBe('0 ')
  expect(await root.run('Lease/LeaseRevoke', rpc.LeaseRevokeRequest, { ID: 9n })).toBe('0 ')
})

test('changes and logins leave a line each, and no password in it', async () => {
  const { url, logged } = await start()
  const { root, alice } = await enableAuth(url)
  logged.length = 0
  await root.password('alice', 'hush-hush')
  await alice.authenticate('alice', 'guess')
  await authCalls(url).roleAdd('x')
  await root.roleGrant('reader', 'k', 'm')
  expect(logged).toMatchObject([
    { audit: 'UserChangePassword', by: 'root', subject: 'alice', outcome: 'allowed' },
    { audit: 'Authenticate', by: 'alice', outcome: 'refused', reason: authFailed.slice(2) },
    { audit: 'RoleAdd', by: 'anonymous', outcome: 'refused', reason: userEmpty.slice(2) },
    { audit: 'RoleGrantPermission', by: 'root', subject: 'reader', detail: 'readwrite "k".."m"' },
  ])
  expect(JSON.stringify(logged)).not.toMatch(/hush|guess|\$2/)
})

test('a signed token is believed until users or roles change', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'kiln-jwt-'))
  ends.push(() => rmSync(folder, { recursive: true }))
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  writeFileSync(join(folder, 'key'), privateKey.export({ type: 'pkcs8', format: 'pem' }))
  const { url } = await start([`--auth-token=jwt,priv-key=${folder}/key,sign-method=ES256,ttl=1m`])
  const { root, alice, tokens } = await enableAuth(url)
  const claims = JSON.parse(Buffer.from(tokens[1]!.split('.')[1]!, 'base64url').toString())
  expect(claims).toEqual({ username: 'alice', revision: 8, exp: expect.any(Number) })
  expect(await alice.put('a/1')).toBe('0 ')
  expect(await alice.put('b')).toBe(denied)
  expect(await authCalls(url, `${tokens[1]}x`).put('a/1')).toBe(invalidToken)
  expect(await root.roleAdd('other')).toBe('0 ')
  expect(await alice.put('a/1')).toBe(oldRevision)
  expect(await root.roleAdd('another')).toBe(oldRevision)
  const again = authCalls(url, (await alice.authenticate('alice', 'alice')).token)
  expect(await again.put('a/1')).toBe('0 ')
})

test('a lease is kept alive for who has not logged in, as etcd does it', async () => {
  const { url, context } = await start()
  await enableAuth(url)
  context.state.store.grantLease(7n, 100)
  const answer = await fetch(`${url}/v3/lease/keepalive`, { method: 'POST', body: '{"ID":"7"}' })
  expect(await answer.text()).toMatch(/"ID":"7","TTL":"\d+"/)
})

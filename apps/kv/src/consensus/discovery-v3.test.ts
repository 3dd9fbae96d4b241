import { EtcdClient } from '@kiln/etcd-api'
import { createLog } from '@kiln/service'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type LoneServer, startLoneServer } from '../testing/lone-server.ts'
import { discoverByToken } from './discovery-v3.ts'
import { memberId } from './identity.ts'

let server: LoneServer
let client: EtcdClient
beforeAll(async () => {
  server = await startLoneServer()
  client = new EtcdClient({ endpoints: [server.url] })
})
afterAll(async () => {
  client.close()
  await server.close()
})

const log = createLog('test', 'silent')

function join(token: string, name: string, stopping?: AbortSignal) {
  const advertisePeerUrls = [`http://${name}.example:2380`]
  const self = memberId(advertisePeerUrls, token)
  return discoverByToken(client, { token, self, name, advertisePeerUrls }, { log, stopping })
}

test('members wait for each other, find the same cluster, and one too many is refused', async () => {
  await client.put('/_etcd/registry/t/_config/size', '3')
  const a = join('t', 'a')
  const b = join('t', 'b')
  await expect.poll(async () => (await client.getPrefix('/_etcd/registry/t/members/')).count).toBe(2)
  const found = await Promise.all([a, b, join('t', 'c')])
  for (const members of found) {
    expect(members.map(({ name }) => name).sort()).toEqual(['a', 'b', 'c'])
    expect(members.map(({ id }) => id).sort()).toEqual(found[0]!.map(({ id }) => id).sort())
  }
  // Whoever was among them is so after a restart too.
  expect((await join('t', 'b')).length).toBe(3)
  await expect(join('t', 'd')).rejects.toMatchObject({ code: 'STORE_DISCOVERY_FAILED' })
})

test('a token without a size is a fault that says how to give it one', async () => {
  await expect(join('none', 'a')).rejects.toMatchObject({
    code: 'STORE_DISCOVERY_FAILED',
    remedy: 'etcdctl put /_etcd/registry/none/_config/size 3',
  })
})

test('waiting ends with the daemon', async () => {
  await client.put('/_etcd/registry/alone/_config/size', '2')
  const stopping = new AbortController()
  const waiting = join('alone', 'a', stopping.signal)
  await expect.poll(async () => (await client.getPrefix('/_etcd/registry/alone/members/')).count).toBe(1)
  stopping.abort()
  await expect(waiting).rejects.toThrow()
})

import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { EtcdClient } from '@kiln/etcd-api'
import { createCa, issueCertificate } from '@kiln/pki'
import { afterEach, expect, test } from 'vitest'
import {
  freePorts,
  type MemberCluster,
  type MemberProcess,
  memberProcess,
  startMembers,
} from './testing/member-process.ts'

const ends: (() => unknown)[] = []
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

async function clusterOf(options: Parameters<typeof startMembers>[0]): Promise<MemberCluster> {
  const cluster = await startMembers(options)
  ends.push(() => cluster.stop())
  return cluster
}

function clientOf(endpoints: string[], tls?: { ca: string; cert: string; key: string }): EtcdClient {
  const client = new EtcdClient({ endpoints, timeoutMs: 10_000, ...(tls ? { tls } : {}) })
  ends.push(() => client.close())
  return client
}

/** Index of the member that leads, as the members themselves say. */
async function leaderOf(cluster: MemberCluster): Promise<number> {
  const client = clientOf(cluster.endpoints)
  const statuses = await Promise.all(cluster.endpoints.map((endpoint) => client.status(endpoint)))
  const at = statuses.findIndex(({ memberId, leaderId }) => memberId === leaderId)
  if (at < 0) throw new Error('no member leads')
  return at
}

test('three members take writes through any of them, and a killed leader loses nothing that was acknowledged', async () => {
  const cluster = await clusterOf({ count: 3 })
  for (const [at, endpoint] of cluster.endpoints.entries()) {
    await clientOf([endpoint]).put(`/any/${at}`, String(at))
  }
  for (const endpoint of cluster.endpoints) {
    const { entries } = await clientOf([endpoint]).getPrefix('/any/')
    expect(entries.map(({ value }) => Buffer.from(value).toString())).toEqual(['0', '1', '2'])
  }

  const victim = await leaderOf(cluster)
  const others = cluster.endpoints.filter((_endpoint, at) => at !== victim)
  const seen: string[] = []
  const watch = clientOf(others).watch('/w/')
  const watching = (async () => {
    for await (const outcome of watch) {
      if (outcome.kind !== 'events') throw new Error('compacted')
      for (const event of outcome.events) if (event.kind === 'put') seen.push(event.entry.key)
    }
  })()

  const acknowledged: string[] = []
  const writer = clientOf(others)
  const write = async (from: number, to: number): Promise<void> => {
    for (let i = from; i < to; i++) {
      const key = `/w/${String(i).padStart(5, '0')}`
      try {
        await writer.put(key, 'x')
        acknowledged.push(key)
      } catch {
        // Not acknowledged: it may be there or not.
      }
    }
  }
  await write(0, 50)
  await cluster.members[victim]!.kill()
  await write(50, 100)
  await cluster.members[victim]!.start()
  await write(100, 120)

  expect(acknowledged.length).toBeGreaterThan(100)
  for (const endpoint of cluster.endpoints) {
    const { entries } = await clientOf([endpoint]).getPrefix('/w/')
    const keys = new Set(entries.map(({ key }) => key))
    expect(acknowledged.filter((key) => !keys.has(key))).toEqual([])
  }
  await expect.poll(() => acknowledged.filter((key) => !seen.includes(key)), { timeout: 10_000 }).toEqual([])
  expect(new Set(seen).size).toBe(seen.length)
  watch.close()
  await watching
})

test('all members killed at once come back with everything that was acknowledged, with leases for reads', async () => {
  const cluster = await clusterOf({ count: 3, flags: ['--lease-reads'] })
  const client = clientOf(cluster.endpoints)
  for (let i = 0; i < 30; i++) await client.put(`/k/${i}`, 'x')
  const { id } = await client.leaseGrant(600)
  await client.put('/leased', 'x', { lease: id })
  await Promise.all(cluster.members.map((member) => member.kill()))
  await Promise.all(cluster.members.map((member) => member.start()))
  expect((await client.getPrefix('/k/')).count).toBe(30)
  expect(await client.leaseTimeToLive(id)).toMatchObject({ grantedSeconds: 600, keys: ['/leased'] })
})

test('a leader that is asked to stop hands its place over, so that nobody waits for an election', async () => {
  const cluster = await clusterOf({
    count: 3,
    flags: ['--heartbeat-interval=500', '--election-timeout=15000'],
  })
  const leader = await leaderOf(cluster)
  const others = cluster.endpoints.filter((_endpoint, at) => at !== leader)
  const began = performance.now()
  expect(await cluster.members[leader]!.stop()).toBe(0)
  await clientOf(others).put('/after', '1')
  // An election would have had to wait for at least the election timeout.
  expect(performance.now() - began).toBeLessThan(12_000)
})

/** Index of the newest snapshot that a member says it has saved, 0 without one: what is older has left its log. */
function savedSnapshot(member: MemberProcess): number {
  const saved = member
    .output()
    .split('\n')
    .filter((line) => line.includes('"msg":"snapshot saved"'))
    .map((line) => Number(/"index":(\d+)/.exec(line)?.[1] ?? 0))
  return Math.max(0, ...saved)
}

test('a member that was away longer than the log catches up, and its watchers with it', async () => {
  const cluster = await clusterOf({
    count: 3,
    flags: ['--snapshot-count=50', '--snapshot-catchup-entries=20'],
  })
  const away = ((await leaderOf(cluster)) + 1) % 3
  const client = clientOf(cluster.endpoints.filter((_endpoint, at) => at !== away))
  await client.put('/before', '1')
  await cluster.members[away]!.kill()
  const value = 'v'.repeat(2000)
  for (let round = 0; round < 20; round++) {
    await Promise.all(Array.from({ length: 20 }, (_, i) => client.put(`/s/${round}/${i}`, value)))
  }
  // The others drop their log only once their snapshot is on the disk, which a busy host may delay.
  const present = cluster.members.filter((_member, at) => at !== away)
  await expect.poll(() => Math.min(...present.map(savedSnapshot)), { timeout: 60_000 }).toBeGreaterThan(350)
  await cluster.members[away]!.start()
  const late = clientOf([cluster.endpoints[away]!])
  expect((await late.getPrefix('/s/', { keysOnly: true })).count).toBe(400)
  expect(cluster.members[away]!.output()).toContain('"msg":"installing a snapshot"')

  // Its history is whole: a watch from the beginning replays all of it.
  const keys: string[] = []
  for await (const outcome of late.watch('/s/', { startRevision: 1n })) {
    if (outcome.kind !== 'events') throw new Error('compacted')
    for (const event of outcome.events) if (event.kind === 'put') keys.push(event.entry.key)
    if (keys.length >= 400) break
  }
  expect(new Set(keys).size).toBe(400)
}, 120_000)

test('a lease holds its keys for its time and not much longer, whoever leads', async () => {
  const cluster = await clusterOf({ count: 3 })
  const leader = await leaderOf(cluster)
  const client = clientOf(cluster.endpoints.filter((_endpoint, at) => at !== leader))
  const { id } = await client.leaseGrant(4)
  const kept = await client.leaseGrant(4)
  await client.put('/short', 'x', { lease: id })
  await client.put('/kept', 'x', { lease: kept.id })
  const grantedAt = Date.now()
  await cluster.members[leader]!.kill()
  let goneAt = 0
  while (goneAt === 0 && Date.now() - grantedAt < 40_000) {
    await client.leaseKeepAliveOnce(kept.id).catch(() => undefined)
    const entry = await client.get('/short').catch(() => 'unknown' as const)
    if (entry === undefined) goneAt = Date.now()
    await new Promise((resume) => setTimeout(resume, 200))
  }
  expect(goneAt - grantedAt).toBeGreaterThanOrEqual(4000)
  expect(await client.get('/kept')).toBeDefined()
  expect(await client.leaseTimeToLive(id)).toBeUndefined()
})

test('an added member joins, learns everything and serves; a removed one stops by itself', async () => {
  const cluster = await clusterOf({ count: 3 })
  const client = clientOf(cluster.endpoints)
  for (let i = 0; i < 20; i++) await client.put(`/k/${i}`, 'x')
  const [clientPort, peerPort] = await freePorts(2)
  const peerUrl = `http://127.0.0.1:${peerPort}`
  const added = await client.memberAdd({ peerUrls: [peerUrl] })
  const urls = (await client.memberList()).map((member) => `${member.name || 'm4'}=${member.peerUrls[0]}`)
  const member = memberProcess('m4', `http://127.0.0.1:${clientPort}`, peerUrl, join(cluster.folder, 'm4'), [
    `--initial-cluster=${urls.join(',')}`,
    '--initial-cluster-state=existing',
  ])
  ends.push(() => member.stop())
  await member.start()
  expect((await clientOf([member.endpoint]).getPrefix('/k/')).count).toBe(20)
  expect((await client.memberList()).map(({ name }) => name).sort()).toEqual(['m1', 'm2', 'm3', 'm4'])

  await member.kill()
  await member.start()
  expect((await clientOf([member.endpoint]).getPrefix('/k/')).count).toBe(20)

  await client.memberRemove(added.member.id)
  await expect.poll(() => member.running, { timeout: 20_000 }).toBe(false)
  expect((await client.memberList()).length).toBe(3)
})

test('a member whose cluster lost its majority for good goes on alone with everything, and the others are turned away', async () => {
  const cluster = await clusterOf({ count: 3 })
  const [survivor, lost] = cluster.members as [MemberProcess, MemberProcess]
  const client = clientOf([survivor.endpoint])
  for (let i = 0; i < 30; i++) await client.put(`/k/${i}`, 'x')
  await Promise.all(cluster.members.map((member) => member.kill()))
  await survivor.start(['--force-new-cluster'])
  const alone = clientOf([survivor.endpoint])
  expect((await alone.getPrefix('/k/')).count).toBe(30)
  expect((await alone.memberList()).map(({ name }) => name)).toEqual([survivor.name])
  await alone.put('/k/30', 'x')
  await expect(lost.start()).rejects.toThrow('STORE_MEMBER_REMOVED')
  expect(lost.running).toBe(false)
  // The flag may stay, or go.
  for (const flags of [['--force-new-cluster'], []]) {
    await survivor.kill()
    await survivor.start(flags)
    expect((await clientOf([survivor.endpoint]).getPrefix('/k/')).count).toBe(31)
  }
})

test('with certificates on both sides members and clients need one of the CA', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'kiln-kv-tls-'))
  ends.push(() => rm(folder, { recursive: true, force: true }))
  const now = new Date()
  const ca = await createCa({ name: 'test', days: 2, now })
  const subject = { names: ['127.0.0.1', 'localhost'], use: ['server', 'client'] as const, days: 1, now }
  const pair = await issueCertificate(ca, { commonName: 'member', ...subject })
  const files = { ca: join(folder, 'ca.pem'), cert: join(folder, 'cert.pem'), key: join(folder, 'key.pem') }
  await writeFile(files.ca, ca.certificate)
  await writeFile(files.cert, pair.certificate)
  await writeFile(files.key, pair.key)

  const cluster = await clusterOf({ count: 3, tls: files })
  const tls = { ca: ca.certificate, cert: pair.certificate, key: pair.key }
  const client = clientOf(cluster.endpoints, tls)
  await client.put('/tls', 'x')
  expect(await client.get('/tls')).toMatchObject({ key: '/tls' })
  const stranger = new EtcdClient({
    endpoints: cluster.endpoints,
    tls: { ca: ca.certificate },
    timeoutMs: 2000,
  })
  ends.push(() => stranger.close())
  await expect(stranger.get('/tls')).rejects.toThrow()
})

import { execFile } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { EtcdClient } from '@kiln/etcd-api'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { startEtcd } from '../testing/etcd-process.ts'
import { fetchEtcd } from '../testing/etcdctl.ts'
import { freePorts, type MemberCluster, memberProcess, startMembers } from '../testing/member-process.ts'
import { runCommand } from './commands.ts'

const run = promisify(execFile)
const hasDebian = await fetchEtcd().then(
  () => true,
  () => false,
)
/** What needs the real programs, where apt can fetch them. */
const real = test.skipIf(!hasDebian)

let folder = ''
let members: MemberCluster
let client: EtcdClient
let lease = 0n
const closers: (() => Promise<unknown>)[] = []

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kiln-snapshot-'))
  members = await startMembers({ count: 1 })
  client = new EtcdClient({ endpoints: members.endpoints, timeoutMs: 20_000 })
  await fill(client)
  lease = (await client.leaseGrant(600)).id
  await client.put('leased', 'x', { lease })
  await kiln('save', join(folder, 'ours.db'))
})
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})
afterAll(async () => {
  client?.close()
  await members?.stop()
  await rm(folder, { recursive: true, force: true })
})

/** Versions, deletions, a transaction, a large value, bytes that are no text, and compactions, one at a deletion. */
async function fill(store: EtcdClient): Promise<void> {
  for (let at = 0; at < 40; at++) await store.put(`k${at % 7}`, 'v'.repeat(at * 300))
  await store.put('large', 'x'.repeat(1_000_000))
  await store.put(Uint8Array.of(0, 255, 254), Uint8Array.of(255, 0))
  await store.txn({
    success: ['a', 'b', 'c'].map((key) => ({ kind: 'put' as const, key: `txn/${key}`, value: key })),
  })
  await store.compact(20n)
  await store.deletePrefix('txn/')
  const { revision } = await store.delete('k1')
  await store.compact(revision)
  await store.put('k1', 'again')
}

async function kiln(...argv: string[]): Promise<string> {
  const lines: string[] = []
  const ports = {
    print: (line: string) => void lines.push(line),
    note: () => undefined,
    stopping: new AbortController().signal,
  }
  const more = argv[0] === 'save' ? [`--endpoints=${members.endpoints}`] : []
  const code = await runCommand(['snapshot', ...argv, ...more], ports)
  if (code !== 0) throw new Error(`kiln-kv snapshot ${argv.join(' ')} ended with ${code}`)
  return lines.join('\n')
}

async function contentOf(store: EtcdClient) {
  const { entries, revision } = await store.getPrefix('')
  const facts = entries.map(({ keyBytes, value, createRevision, modRevision, version, lease: held }) =>
    [
      Buffer.from(keyBytes).toString('hex'),
      Buffer.from(value).toString('base64'),
      createRevision,
      modRevision,
      version,
      held,
    ].join(),
  )
  return { facts, revision, hash: await store.hashKv(revision) }
}

/** Starts a member of ours on a restored directory. */
async function startOn(dataDir: string, peerUrl: string): Promise<EtcdClient> {
  const [port] = await freePorts(1)
  const endpoint = `http://127.0.0.1:${port}`
  const member = memberProcess('default', endpoint, peerUrl, dataDir, [
    `--initial-cluster=default=${peerUrl}`,
  ])
  closers.push(() => member.stop())
  await member.start()
  const store = new EtcdClient({ endpoints: [endpoint], timeoutMs: 20_000 })
  closers.push(async () => store.close())
  return store
}

const peerUrlOf = async (): Promise<string> => `http://127.0.0.1:${(await freePorts(1))[0]}`

real('etcdutl finds in our snapshot what we say is in it', async () => {
  const { etcdutl } = await fetchEtcd()
  const ours = join(folder, 'ours.db')
  for (const format of ['simple', 'table', 'json']) {
    const { stdout } = await run(etcdutl, ['snapshot', 'status', ours, '-w', format])
    expect((await kiln('status', ours, '-w', format)).trim()).toBe(stdout.trim())
  }
})

real('a real etcd starts on our snapshot with the same keys, leases and hash', async () => {
  const { etcdutl } = await fetchEtcd()
  const dataDir = join(folder, 'etcd-restored')
  await run(etcdutl, ['snapshot', 'restore', join(folder, 'ours.db'), '--data-dir', dataDir])
  const etcd = await startEtcd(dataDir)
  closers.push(etcd.stop)
  const theirs = await contentOf(etcd.client)
  const ours = await contentOf(client)
  expect(theirs).toEqual(ours)
  expect(await etcd.client.leaseTimeToLive(lease)).toMatchObject({ grantedSeconds: 600, keys: ['leased'] })
  const old = ours.revision - 1n
  expect((await etcd.client.getPrefix('', { revision: old })).entries.map(({ key }) => key)).toEqual(
    (await client.getPrefix('', { revision: old })).entries.map(({ key }) => key),
  )
  expect(await etcd.client.hashKv(old)).toMatchObject({ hash: (await client.hashKv(old)).hash })
})

real("etcd's own snapshot and its db file start a member of ours", { timeout: 120_000 }, async () => {
  const dataDir = join(folder, 'etcd')
  const etcd = await startEtcd(dataDir)
  closers.push(etcd.stop)
  await fill(etcd.client)
  await etcd.client.put('after', 'x')
  const theirs = await contentOf(etcd.client)
  const file = join(folder, 'theirs.db')
  await runCommand(['snapshot', 'save', file, `--endpoints=${etcd.endpoint}`], {
    print: () => undefined,
    note: () => undefined,
    stopping: new AbortController().signal,
  })
  const { etcdutl } = await fetchEtcd()
  const { stdout } = await run(etcdutl, ['snapshot', 'status', file, '-w', 'json'])
  expect(await kiln('status', file, '--json')).toBe(stdout.trim())
  const peerUrl = await peerUrlOf()
  const place = ['--initial-advertise-peer-urls', peerUrl]
  const restored = join(folder, 'ours-from-theirs')
  await kiln('restore', file, '--data-dir', restored, ...place)
  const ours = await startOn(restored, peerUrl)
  expect(await contentOf(ours)).toEqual(theirs)

  await etcd.stop()
  closers.splice(0, 1)
  const copy = join(dataDir, 'member/snap/db')
  await expect(kiln('restore', copy, '--data-dir', join(folder, 'copy'), ...place)).rejects.toMatchObject({
    code: 'STORE_SNAPSHOT_HASH',
  })
  expect(
    await kiln('restore', copy, '--skip-hash-check', '--data-dir', join(folder, 'copy'), ...place),
  ).toContain(`restored revision ${theirs.revision}`)
})

test('a restored member goes on at the same revision, under the ids of its new place', {
  timeout: 120_000,
}, async () => {
  const peerUrl = await peerUrlOf()
  const dataDir = join(folder, 'restored')
  const file = join(folder, 'ours.db')
  await kiln('restore', file, '--data-dir', dataDir, '--initial-advertise-peer-urls', peerUrl)
  await expect(kiln('restore', file, '--data-dir', dataDir)).rejects.toMatchObject({
    code: 'STORE_DATA_DIR_USED',
  })
  const store = await startOn(dataDir, peerUrl)
  const before = await contentOf(client)
  expect(await contentOf(store)).toEqual(before)
  const [ours, old] = [await store.status(), await client.status()]
  expect(ours.clusterId).not.toBe(old.clusterId)
  expect(ours.memberId).not.toBe(old.memberId)
  expect((await store.put('next', 'x')).revision).toBe(before.revision + 1n)
})

test('a bumped revision is counted as compacted', { timeout: 120_000 }, async () => {
  const peerUrl = await peerUrlOf()
  const dataDir = join(folder, 'bumped')
  const file = join(folder, 'ours.db')
  const place = ['--data-dir', dataDir, '--initial-advertise-peer-urls', peerUrl]
  await expect(kiln('restore', file, '--bump-revision', '1000', ...place)).rejects.toThrow('ended with 2')
  await kiln('restore', file, '--bump-revision', '1000', '--mark-compacted', ...place)
  const store = await startOn(dataDir, peerUrl)
  const { revision, entries } = await client.getPrefix('')
  const bumped = await store.getPrefix('')
  expect(bumped.revision).toBe(revision + 1000n)
  expect(bumped.entries.map(({ key }) => key)).toEqual(entries.map(({ key }) => key))
  await expect(store.getPrefix('', { revision })).rejects.toMatchObject({ code: 'STORE_COMPACTED' })
})

test('a file that changed by one bit or was cut off is refused', async () => {
  const whole = await readFile(join(folder, 'ours.db'))
  const path = join(folder, 'damaged.db')
  const changed = Buffer.from(whole)
  changed[5000] = changed[5000]! ^ 1
  const place = ['--data-dir', join(folder, 'never')]
  for (const bytes of [changed, whole.subarray(0, 8192 + 32), whole.subarray(0, 100)]) {
    await writeFile(path, bytes)
    await expect(kiln('restore', path, ...place)).rejects.toMatchObject({ code: 'STORE_SNAPSHOT_HASH' })
  }
  await writeFile(path, whole.subarray(0, whole.length - 4096 - 32))
  await expect(kiln('restore', path, '--skip-hash-check', ...place)).rejects.toMatchObject({
    code: 'BBOLT_DAMAGED',
  })
  expect((await readdir(folder)).filter((name) => name.startsWith('never'))).toEqual([])
})

test('a drill tells what it compared, and leaves nothing behind', { timeout: 120_000 }, async () => {
  const work = await mkdtemp(join(folder, 'work-'))
  const { hash, revision } = await client.hashKv()
  const { count } = await client.getPrefix('', { limit: 1 })
  const result = JSON.parse(await kiln('drill', join(folder, 'ours.db'), '--json', '--work-dir', work))
  expect(result).toMatchObject({ hash, revision: Number(revision), keys: count, leases: 1 })
  expect(await readdir(work)).toEqual([])
})

test('saves under the time keep the newest and touch nothing else', async () => {
  const kept = await mkdtemp(join(folder, 'kept-'))
  const old = ['snapshot-20200101T000000Z.db', 'snapshot-20210101T000000Z.db', 'mine.db']
  for (const name of [...old, 'snapshot-20200101T000001Z.db.part']) await writeFile(join(kept, name), '')
  const said = await kiln('save', '--dir', kept, '--keep', '2')
  expect(said).toContain('Snapshot deleted: snapshot-20200101T000000Z.db')
  const names = (await readdir(kept)).sort()
  expect(names).toHaveLength(3)
  expect(names.slice(0, 2)).toEqual(['mine.db', 'snapshot-20210101T000000Z.db'])
  expect(await kiln('status', join(kept, names[2]!))).toMatch(/^[0-9a-f]+, \d+, \d+, /)
})

test('the snapshot is of one moment while writes go on', async () => {
  let isWriting = true
  const writer = (async () => {
    for (let at = 0; isWriting; at++) await client.put(`load/${at % 50}`, String(at))
  })()
  const path = join(folder, 'loaded.db')
  await kiln('save', path)
  isWriting = false
  await writer
  // A drill recomputes revision, keys and hash from the file and from a member restored from it.
  const { revision } = JSON.parse(await kiln('drill', path, '--json'))
  expect(revision).toBeLessThanOrEqual(Number((await client.status()).revision))
  await client.deletePrefix('load/')
}, 120_000)

test('commands used wrongly end with 2', async () => {
  const quiet = { print: () => undefined, note: () => undefined, stopping: new AbortController().signal }
  expect(await runCommand(['snapshot', 'save'], quiet)).toBe(2)
  expect(await runCommand(['snapshot', 'restore'], quiet)).toBe(2)
  expect(await runCommand(['import'], quiet)).toBe(2)
})

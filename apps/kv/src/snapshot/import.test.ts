import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { EtcdClient } from '@kiln/etcd-api'
import { afterEach, expect, test } from 'vitest'
import { type EtcdProcess, startEtcd } from '../testing/etcd-process.ts'
import { fetchEtcd } from '../testing/etcdctl.ts'
import { freePorts, memberProcess } from '../testing/member-process.ts'
import { runCommand } from './commands.ts'

const hasDebian = await fetchEtcd().then(
  () => true,
  () => false,
)
/** What needs a real etcd, where apt can fetch one. */
const real = test.skipIf(!hasDebian)
const closers: (() => Promise<unknown>)[] = []

afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})

async function startSource(): Promise<{ folder: string; etcd: EtcdProcess }> {
  const folder = await mkdtemp(join(tmpdir(), 'kiln-import-'))
  closers.push(() => rm(folder, { recursive: true, force: true }))
  const etcd = await startEtcd(join(folder, 'etcd'), ['--max-txn-ops=1000'])
  closers.push(etcd.stop)
  return { folder, etcd }
}

const pairsOf = async (store: EtcdClient) => {
  const { entries, revision } = await store.getPrefix('')
  return {
    revision,
    entries: entries.map((entry) => [
      Buffer.from(entry.keyBytes).toString('hex'),
      entry.text,
      entry.createRevision,
      entry.modRevision,
      entry.version,
      entry.lease,
    ]),
  }
}

real(
  'an import follows a live etcd and ends with the same revisions and hash',
  { timeout: 180_000 },
  async () => {
    const { folder, etcd } = await startSource()
    const source = etcd.client
    for (let at = 0; at < 30; at++) await source.put(`k${at % 9}`, String(at))
    await source.delete('k3')
    const held = await source.leaseGrant(600)
    await source.put('held', 'x', { lease: held.id })
    await source.compact(12n)

    const [client, peer] = await freePorts(2)
    const peerUrl = `http://127.0.0.1:${peer}`
    const dataDir = join(folder, 'mirror')
    const stopping = new AbortController()
    const started = Promise.withResolvers<void>()
    const lines: string[] = []
    const importing = runCommand(
      [
        'import',
        `--from-endpoint=${etcd.endpoint}`,
        `--data-dir=${dataDir}`,
        `--initial-advertise-peer-urls=${peerUrl}`,
        '--follow',
      ],
      {
        print: (line) => void lines.push(line),
        note: () => started.resolve(),
        stopping: stopping.signal,
      },
    )
    await started.promise
    // What an import must repeat in place: transactions, deletions of many, leases that come, end and never had a key.
    const more = await source.leaseGrant(500)
    await source.txn({
      success: Array.from({ length: 300 }, (_, at) => ({
        kind: 'put' as const,
        key: `txn/${at}`,
        value: String(at),
        lease: more.id,
      })),
    })
    await source.put(Uint8Array.of(255, 0, 1), 'no text')
    await source.leaseRevoke(more.id)
    await source.deletePrefix('k')
    await source.put('k1', 'again')
    const idle = await source.leaseGrant(400)
    const { revision } = await source.put('last', 'x')
    await source.compact(revision - 2n)
    stopping.abort()
    expect(await importing).toBe(0)
    expect(lines.join()).toContain(`imported revision ${revision} with 2 leases`)

    const endpoint = `http://127.0.0.1:${client}`
    const member = memberProcess('default', endpoint, peerUrl, dataDir, [
      `--initial-cluster=default=${peerUrl}`,
    ])
    closers.push(() => member.stop())
    await member.start()
    const store = new EtcdClient({ endpoints: [endpoint], timeoutMs: 20_000 })
    closers.push(async () => store.close())
    expect(await pairsOf(store)).toEqual(await pairsOf(source))
    expect(await store.hashKv(revision)).toEqual(await source.hashKv(revision))
    expect(await store.leaseTimeToLive(held.id)).toMatchObject({ grantedSeconds: 600, keys: ['held'] })
    expect(await store.leaseTimeToLive(idle.id)).toMatchObject({ grantedSeconds: 400, keys: [] })
    expect(await store.leaseTimeToLive(more.id)).toBeUndefined()
    // A watcher of the old cluster goes on here from where it was.
    const watch = store.watch('', { startRevision: revision })
    for await (const outcome of watch) {
      expect(outcome).toMatchObject({ kind: 'events', events: [{ kind: 'put', entry: { key: 'last' } }] })
      break
    }
    watch.close()
  },
)

real('an import from nowhere leaves nothing behind', { timeout: 120_000 }, async () => {
  const { folder } = await startSource()
  const [port] = await freePorts(1)
  const place = join(folder, 'mirror')
  await expect(
    runCommand(['import', `--from-endpoint=127.0.0.1:${port}`, `--data-dir=${place}`], {
      print: () => undefined,
      note: () => undefined,
      stopping: new AbortController().signal,
    }),
  ).rejects.toMatchObject({ code: 'STORE_UNREACHABLE' })
  expect((await readdir(folder)).sort()).toEqual(['etcd'])
})

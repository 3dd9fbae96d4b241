import net from 'node:net'
import { createCa, issueCertificate } from '@kiln/pki'
import { Fault } from '@kiln/service'
import { afterEach, expect, test } from 'vitest'
import { toBytes, toText } from './bytes.ts'
import { EtcdClient } from './client.ts'
import { scanPrefix } from './scan.ts'
import { type FakeMember, type FakeState, fakeState, startFakeMember } from './testing/fake-store.ts'
import type { WatchOutcome } from './watch.ts'

const open: { close(): unknown }[] = []

afterEach(async () => {
  for (const thing of open.splice(0).reverse()) await thing.close()
})

async function members(count: number): Promise<{ state: FakeState; members: FakeMember[] }> {
  const state = fakeState()
  const started: FakeMember[] = []
  for (let at = 0; at < count; at++) {
    const member = await startFakeMember(state, BigInt(at + 1))
    open.push({ close: () => member.stop() })
    started.push(member)
  }
  return { state, members: started }
}

function clientOf(started: FakeMember[], timeoutMs = 3000): EtcdClient {
  const client = new EtcdClient({ endpoints: started.map((member) => member.url), timeoutMs })
  open.push(client)
  return client
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  return error instanceof Fault ? error.code : `no fault: ${String(error)}`
}

test('what is put is there to get, as text and as bytes', async () => {
  const client = clientOf((await members(1)).members)
  const { revision } = await client.put('/a', 'välue')
  await client.put(Buffer.from('/b'), Buffer.from([0, 255]))
  const entry = await client.get('/a')
  expect(entry).toMatchObject({ key: '/a', text: 'välue', modRevision: revision, version: 1n, lease: 0n })
  expect([...(await client.get('/b'))!.value]).toEqual([0, 255])
  expect(await client.get('/c')).toBeUndefined()
})

test('a prefix has its keys in order and no others', async () => {
  const client = clientOf((await members(1)).members)
  for (const key of ['/p/2', '/p/1', '/q', '/o']) await client.put(key, key)
  const found = await client.getPrefix('/p/')
  expect(found.entries.map((entry) => entry.key)).toEqual(['/p/1', '/p/2'])
  expect(found).toMatchObject({ count: 2, more: false })
  expect(await client.getPrefix('', { limit: 3 })).toMatchObject({ count: 4, more: true })
  expect(await client.deletePrefix('/p/')).toMatchObject({ deleted: 2 })
  expect(await client.delete('/none')).toMatchObject({ deleted: 0 })
})

test('a large prefix is read in pages of one revision', async () => {
  const client = clientOf((await members(1)).members)
  const keys = Array.from({ length: 7 }, (_, index) => `/p/${index}`)
  for (const key of [...keys, '/q']) await client.put(key, key)
  const asked: unknown[] = []
  const pages: Pick<EtcdClient, 'getPrefix'> = {
    getPrefix: (prefix, options) => {
      asked.push([options?.from && toText(toBytes(options.from)), options?.revision])
      return client.getPrefix(prefix, options)
    },
  }
  const { revision } = await client.getPrefix('/p/', { limit: 1 })
  const scanned = await scanPrefix(pages, '/p/', { pageKeys: 3 })
  expect(scanned.map((entry) => entry.key)).toEqual(keys)
  expect(asked).toEqual([
    [undefined, undefined],
    ['/p/2\0', revision],
    ['/p/5\0', revision],
  ])
  expect(await scanPrefix(client, '/nothing/')).toEqual([])
})

test('a key is swapped, created and deleted only if it is as expected', async () => {
  const client = clientOf((await members(1)).members)
  const created = await client.createIfMissing('/k', 'one')
  expect(created.created).toBe(true)
  const again = await client.createIfMissing('/k', 'two')
  expect(again.created || again.current?.text).toBe('one')
  const entry = (await client.get('/k'))!
  const swapped = await client.compareAndSwap('/k', { modRevision: entry.modRevision, value: 'two' })
  expect(swapped.swapped).toBe(true)
  const stale = await client.compareAndDelete('/k', entry.modRevision)
  expect(stale.deleted || stale.current?.text).toBe('two')
  expect(await client.compareAndDelete('/k', stale.deleted ? 0n : stale.current!.modRevision)).toMatchObject({
    deleted: true,
  })
})

test('a transaction answers each of its operations', async () => {
  const client = clientOf((await members(1)).members)
  await client.put('/t/1', 'x')
  const outcome = await client.txn({
    compare: [{ key: '/t/1', value: 'x' }],
    success: [
      { kind: 'put', key: '/t/2', value: 'y' },
      { kind: 'get-prefix', prefix: '/t/' },
      { kind: 'delete-prefix', prefix: '/t/' },
    ],
  })
  expect(outcome.succeeded).toBe(true)
  expect(outcome.results.map((result) => result.kind)).toEqual(['put', 'get', 'delete'])
  expect(outcome.results[2]).toEqual({ kind: 'delete', deleted: 2 })
})

test('a dead endpoint is passed over, for reads and for writes', async () => {
  const { members: started } = await members(2)
  await started[0]!.stop()
  const client = clientOf(started)
  await client.put('/k', 'v')
  expect((await client.get('/k'))?.text).toBe('v')
  expect(client.endpointUrls).toHaveLength(2)
})

test('a member without a leader has applied nothing, so that another is asked', async () => {
  const { members: started } = await members(2)
  const client = clientOf(started, 800)
  await client.get('/k')
  started[0]!.faults.noLeader = true
  await client.put('/k', 'v')
  expect(started[1]!.faults.calls).toEqual(['KV/Put'])
  started[1]!.faults.noLeader = true
  expect(await codeOf(client.put('/k', 'v'))).toBe('STORE_NO_LEADER')
})

test('a write without an answer has an unknown outcome and is not repeated', async () => {
  const { members: started, state } = await members(2)
  const client = clientOf(started, 600)
  await client.get('/k')
  started[0]!.faults.swallowAnswers = true
  expect(await codeOf(client.put('/k', 'v'))).toBe('STORE_UNKNOWN_OUTCOME')
  expect(state.keys.get('/k')?.version).toBe(1n)
})

test('a read without an answer is repeated elsewhere', async () => {
  const { members: started } = await members(2)
  const client = clientOf(started, 1500)
  await client.put('/k', 'v')
  started[0]!.faults.swallowAnswers = true
  expect((await client.get('/k'))?.text).toBe('v')
  started[1]!.faults.swallowAnswers = true
  expect(await codeOf(client.get('/k'))).toBe('STORE_TIMEOUT')
})

test('refusals carry their codes', async () => {
  const { members: started, state } = await members(1)
  const client = clientOf(started)
  expect(await codeOf(client.put('/k', 'v', { lease: 99n }))).toBe('STORE_LEASE_NOT_FOUND')
  state.compacted = 5n
  expect(await codeOf(client.get('/k', { revision: 2n }))).toBe('STORE_COMPACTED')
  expect(await codeOf(client.memberRemove(1n))).toBe('STORE_UNSUPPORTED')
  await started[0]!.stop()
  const nobody = clientOf(started, 400)
  expect(await codeOf(nobody.get('/k'))).toBe('STORE_UNREACHABLE')
  nobody.close()
  expect(await codeOf(nobody.get('/k'))).toBe('STORE_CLOSED')
})

test('an endpoint must be a URL', () => {
  expect(() => new EtcdClient({ endpoints: ['127.0.0.1:2379'] })).toThrow(/is not http/)
})

test('status and members come from where they are asked', async () => {
  const client = clientOf((await members(2)).members)
  const second = client.endpointUrls[1]!
  expect(await client.status(second)).toMatchObject({ endpoint: second, memberId: 2n, leaderId: 1n })
  expect((await client.memberList())[0]).toMatchObject({ name: 'fake', isLearner: false })
})

test('a watch goes on without a gap or a repeat when its member goes away', async () => {
  const { members: started, state } = await members(2)
  const client = clientOf(started)
  await client.put('/w/0', 'before')
  const watch = client.watch('/w/', { startRevision: 2n })
  const seen: string[] = []
  const reader = (async () => {
    for await (const outcome of watch) {
      if (outcome.kind !== 'events') continue
      for (const event of outcome.events) seen.push(event.kind === 'put' ? event.entry.key : `-${event.key}`)
      if (seen.length >= 4) return
    }
  })()
  await client.put('/w/1', '')
  await expect.poll(() => seen.length, { timeout: 5000 }).toBe(2)
  const watched = started.findIndex((member) => member.server.stats().streams > 0)
  await started[watched]!.stop()
  await client.delete('/w/1')
  await client.put('/w/2', '')
  await reader
  expect(seen).toEqual(['/w/0', '/w/1', '-/w/1', '/w/2'])
  expect(state.watches.size).toBeLessThanOrEqual(1)
})

test('a watch from now on sees nothing older, and ends when it is closed', async () => {
  const client = clientOf((await members(1)).members)
  await client.put('/k', 'old')
  const watch = client.watch('/k', { exact: true })
  const outcomes: WatchOutcome[] = []
  const reader = (async () => {
    for await (const outcome of watch) outcomes.push(outcome)
  })()
  await expect
    .poll(async () => {
      await client.put('/k', 'new')
      return outcomes.length
    })
    .toBeGreaterThan(0)
  watch.close()
  await reader
  const [first] = outcomes
  expect(first?.kind === 'events' && first.events[0]?.kind === 'put' && first.events[0].entry.text).toBe(
    'new',
  )
})

test('a watch that starts before the compaction says so and ends', async () => {
  const { members: started, state } = await members(1)
  const client = clientOf(started)
  state.compacted = 10n
  const outcomes: WatchOutcome[] = []
  for await (const outcome of client.watch('/k', { startRevision: 3n })) outcomes.push(outcome)
  expect(outcomes).toEqual([{ kind: 'compacted', compactRevision: 11n }])
})

test('a watch refuses to go on with another cluster', async () => {
  const { members: started, state } = await members(1)
  const client = clientOf(started)
  const watch = client.watch('/k', { startRevision: 1n })
  const end = codeOf(
    (async () => {
      for await (const _ of watch);
    })(),
  )
  await expect.poll(() => state.watches.size).toBe(1)
  state.clusterId = 8n
  await client.put('/k', 'v')
  expect(await end).toBe('STORE_CLUSTER_CHANGED')
})

test('a slow reader of a watch gets everything in order', async () => {
  const { members: started } = await members(1)
  const client = clientOf(started)
  await client.put('/w', 'first')
  const watch = client.watch('/w', { startRevision: 2n })
  const iterator = watch[Symbol.asyncIterator]()
  await iterator.next()
  for (let at = 0; at < 600; at++) await client.put('/w', String(at))
  for (let at = 0; at < 600; ) {
    const { value } = await iterator.next()
    if (value?.kind !== 'events') throw new Error('events expected')
    for (const event of value.events) expect(event.kind === 'put' && event.entry.text).toBe(String(at++))
  }
  watch.close()
  expect((await iterator.next()).done).toBe(true)
})

test('a client shows its certificate, also a renewed one, and trusts its CA only', async () => {
  const now = new Date()
  const ca = await createCa({ name: 'test', days: 1, now })
  const subject = { names: ['127.0.0.1'], days: 1, now }
  const server = await issueCertificate(ca, { ...subject, commonName: 'store', use: ['server'] })
  const own = async () => {
    const pair = await issueCertificate(ca, { ...subject, commonName: 'node1', use: ['client'] })
    return { ca: ca.certificate, cert: pair.certificate, key: pair.key }
  }
  const member = await startFakeMember(fakeState(), 1n, {
    cert: server.certificate,
    key: server.key,
    ca: ca.certificate,
    clientCertificate: 'require',
  })
  open.push({ close: () => member.stop() })
  const client = new EtcdClient({ endpoints: [member.url], tls: await own(), timeoutMs: 3000 })
  open.push(client)
  await client.put('/k', 'v')
  client.renewTls(await own())
  expect((await client.get('/k'))?.text).toBe('v')
  const elsewhere = await issueCertificate(ca, {
    ...subject,
    names: ['10.0.0.1'],
    commonName: 'x',
    use: ['server'],
  })
  const other = await startFakeMember(fakeState(), 2n, { cert: elsewhere.certificate, key: elsewhere.key })
  open.push({ close: () => other.stop() })
  const misled = new EtcdClient({ endpoints: [other.url], tls: await own(), timeoutMs: 500 })
  open.push(misled)
  expect(await codeOf(misled.get('/k'))).toBe('STORE_UNREACHABLE')
  const stranger = new EtcdClient({ endpoints: [member.url], tls: { ca: ca.certificate }, timeoutMs: 500 })
  open.push(stranger)
  expect(await codeOf(stranger.get('/k'))).toMatch(/^STORE_(UNREACHABLE|TIMEOUT)$/)
})

test('closing ends a connection whose handshake stalls', async () => {
  const sockets: net.Socket[] = []
  const silent = net.createServer((socket) => {
    socket.on('error', () => {})
    sockets.push(socket)
  })
  await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve))
  open.push({
    close() {
      for (const socket of sockets) socket.destroy()
      silent.close()
    },
  })
  const { port } = silent.address() as net.AddressInfo
  const ca = await createCa({ name: 'cluster', days: 1, now: new Date() })
  const client = new EtcdClient({
    endpoints: [`https://127.0.0.1:${port}`],
    tls: { ca: ca.certificate },
    timeoutMs: 30_000,
  })
  const call = codeOf(client.get('/k'))
  await expect.poll(() => sockets.length).toBe(1)
  const ended = new Promise<void>((resolve) => sockets[0]!.once('close', () => resolve()))
  sockets[0]!.resume()
  client.close()
  expect(await call).toBe('STORE_CLOSED')
  await ended
})

test('certificates given by a function are asked for whenever a connection opens', async () => {
  const ca = await createCa({ name: 'cluster', days: 1, now: new Date() })
  const pair = await issueCertificate(ca, {
    commonName: 'store',
    names: ['127.0.0.1'],
    days: 1,
    now: new Date(),
    use: ['server'],
  })
  const member = await startFakeMember(fakeState(), 1n, { cert: pair.certificate, key: pair.key })
  open.push({ close: () => member.stop() })
  const stranger = await createCa({ name: 'other', days: 1, now: new Date() })
  let trusted = stranger.certificate
  const client = new EtcdClient({
    endpoints: [member.url],
    tls: () => ({ ca: trusted }),
    timeoutMs: 600,
  })
  open.push(client)
  expect(await codeOf(client.get('/k'))).toBe('STORE_UNREACHABLE')
  trusted = ca.certificate
  // The next attempt to connect comes after a pause.
  await expect.poll(() => codeOf(client.get('/k')), { timeout: 20_000 }).toBe('no fault: undefined')
})

test('a certificate given as a function is asked for at each new connection, and one that cannot be read is an absence', async () => {
  const now = new Date()
  const [ca, otherCa] = await Promise.all(['a', 'b'].map((name) => createCa({ name, days: 1, now })))
  const subject = { names: ['127.0.0.1'], days: 1, now }
  const server = await issueCertificate(ca!, { ...subject, commonName: 'store', use: ['server'] })
  const ownBy = async (by: typeof ca) => {
    const pair = await issueCertificate(by!, { ...subject, commonName: 'node1', use: ['client'] })
    return { ca: ca!.certificate, cert: pair.certificate, key: pair.key }
  }
  const member = await startFakeMember(fakeState(), 1n, {
    cert: server.certificate,
    key: server.key,
    ca: ca!.certificate,
    clientCertificate: 'require',
  })
  open.push({ close: () => member.stop() })
  const good = await ownBy(ca)
  let present: () => typeof good = () => {
    throw new Error('ENOENT')
  }
  const client = new EtcdClient({ endpoints: [member.url], tls: () => present(), timeoutMs: 1000 })
  open.push(client)
  expect(await codeOf(client.put('/k', 'v'))).toBe('STORE_UNREACHABLE')
  const refused = await ownBy(otherCa)
  present = () => refused
  expect(await codeOf(client.put('/k', 'v'))).toMatch(/^STORE_(UNREACHABLE|TIMEOUT|UNKNOWN_OUTCOME)$/)
  present = () => good
  // The next attempt to connect comes after a pause.
  await expect.poll(() => codeOf(client.put('/k', 'v')), { timeout: 20_000 }).toBe('no fault: undefined')
  present = () => {
    throw new Error('not asked while the connection holds')
  }
  expect((await client.get('/k'))?.text).toBe('v')
})

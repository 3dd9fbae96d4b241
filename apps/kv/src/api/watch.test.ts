import { afterAll, beforeAll, expect, test } from 'vitest'
import { type JsonLines, postLines } from '../testing/json-lines.ts'
import { type LoneServer, startLoneServer } from '../testing/lone-server.ts'

let server: LoneServer
beforeAll(async () => {
  server = await startLoneServer(['--watch-progress-notify-interval=100ms', '--election-timeout=500'])
})
afterAll(() => server.close())

const b64 = (text: string): string => Buffer.from(text).toString('base64')
const post = (path: string, body: unknown) =>
  fetch(server.url + path, { method: 'POST', body: JSON.stringify(body) }).then((response) => response.json())
const put = (key: string, value = '') => post('/v3/kv/put', { key: b64(key), value: b64(value) })

type Result = {
  header: { revision?: string }
  watch_id?: string
  created?: boolean
  canceled?: boolean
  fragment?: boolean
  compact_revision?: string
  cancel_reason?: string
  events?: { kv: { key: string; mod_revision: string } }[]
}
const watch = (...requests: unknown[]): Promise<JsonLines> =>
  postLines(`${server.url}/v3/watch`, requests.map((each) => JSON.stringify(each)).join('\n'))
const next = async (lines: JsonLines): Promise<Result> => (await lines.next())['result'] as Result

test('an idle watcher that asks for it is told how far it is; a busy one and others are not', async () => {
  await put('p', '0')
  const lines = await watch(
    { create_request: { key: b64('p'), watch_id: 1, progress_notify: true } },
    { create_request: { key: b64('p'), watch_id: 2 } },
    { create_request: { key: b64('p'), watch_id: 3, progress_notify: true, start_revision: '999999' } },
  )
  for (let created = 0; created < 3; created++) expect(await next(lines)).toMatchObject({ created: true })
  const told: Result[] = []
  while (told.length < 3) told.push(await next(lines))
  const revision = String(server.context.state.store.revision)
  for (const result of told) expect(result).toMatchObject({ watch_id: '1', header: { revision } })
  expect(told.every(({ events }) => events === undefined)).toBe(true)
  lines.close()
})

test('a progress request is answered for the whole stream, after the events', async () => {
  const lines = await watch(
    { create_request: { key: b64('q'), start_revision: '1' } },
    { progress_request: {} },
  )
  await put('q')
  let last = await next(lines)
  const seen: string[] = []
  for (; last.watch_id !== '-1'; last = await next(lines)) {
    for (const { kv } of last.events ?? []) seen.push(kv.mod_revision)
  }
  expect(last.events).toBeUndefined()
  for (const revision of seen) expect(Number(revision)).toBeLessThanOrEqual(Number(last.header.revision))
  lines.close()
})

test('an id in use is refused for the new watcher, and an unknown one is canceled without a word', async () => {
  const create = { create_request: { key: b64('i'), watch_id: 9 } }
  const lines = await watch(
    create,
    create,
    { cancel_request: { watch_id: 8 } },
    { cancel_request: { watch_id: 9 } },
  )
  expect(await next(lines)).toMatchObject({ watch_id: '9', created: true })
  expect(await next(lines)).toMatchObject({
    watch_id: '-1',
    created: true,
    canceled: true,
    cancel_reason: 'mvcc: duplicate watch ID provided on the WatchStream',
  })
  expect(await next(lines)).toMatchObject({ watch_id: '9', canceled: true })
  lines.close()
})

test('a range that holds no key is refused', async () => {
  const lines = await watch({ create_request: { key: b64('b'), range_end: b64('b') } })
  expect(await next(lines)).toMatchObject({
    watch_id: '-1',
    created: true,
    canceled: true,
    cancel_reason: 'mvcc: watcher range is empty',
  })
  lines.close()
})

test('a compacted start is created, then canceled with where to begin', async () => {
  for (const value of ['1', '2', '3']) await put('c', value)
  const { revision } = server.context.state.store
  await post('/v3/kv/compaction', { revision: String(revision) })
  const lines = await watch({ create_request: { key: b64('c'), start_revision: '1' } })
  expect(await next(lines)).toMatchObject({ created: true })
  const end = await next(lines)
  expect(end).toMatchObject({ canceled: true, compact_revision: String(revision) })
  expect(end.header.revision).toBeUndefined()
  lines.close()
})

test('a revision too large for one message comes in pieces to those that ask, whole to others', async () => {
  const keys = ['f1', 'f2', 'f3', 'f4']
  const success = keys.map((key) => ({ request_put: { key: b64(key), value: b64('x'.repeat(300_000)) } }))
  // With the previous values the second one is larger than a message may be.
  for (let round = 0; round < 2; round++) await post('/v3/kv/txn', { success })
  const start_revision = String(server.context.state.store.revision)
  const pieces = async (fragment: boolean): Promise<Result[]> => {
    const range = { key: b64('f'), range_end: b64('g'), start_revision, prev_kv: true, fragment }
    const lines = await watch({ create_request: range })
    await next(lines)
    const all = [await next(lines)]
    while (all.at(-1)!.fragment) all.push(await next(lines))
    lines.close()
    return all
  }
  expect((await pieces(false)).map(({ events }) => events!.length)).toEqual([4])
  const fragments = await pieces(true)
  expect(fragments.length).toBeGreaterThan(1)
  expect(fragments.flatMap(({ events }) => events!).map(({ kv }) => kv.key)).toEqual(keys.map(b64))
})

test('a stream that asks for a leader ends when there is none for three election timeouts', async () => {
  let leader = 7n
  const lost = await startLoneServer(['--election-timeout=500'], () => ({ leader: () => leader }))
  const response = await fetch(`${lost.url}/v3/watch`, {
    method: 'POST',
    headers: { 'grpc-metadata-hasleader': 'true' },
    body: JSON.stringify({ create_request: { key: b64('a') } }),
  })
  leader = 0n
  const startedAt = Date.now()
  const last = (await response.text()).trim().split('\n').at(-1)!
  expect(JSON.parse(last)).toMatchObject({
    error: { grpc_code: 14, message: 'etcdserver: no leader', http_code: 503 },
  })
  expect(Date.now() - startedAt).toBeGreaterThanOrEqual(1400)
  await lost.close()
})

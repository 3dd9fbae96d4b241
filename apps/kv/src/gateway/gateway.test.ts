import { afterAll, beforeAll, expect, test } from 'vitest'
import { postLines } from '../testing/json-lines.ts'
import { type LoneServer, startLoneServer } from '../testing/lone-server.ts'

let server: LoneServer
beforeAll(async () => {
  server = await startLoneServer(['--max-request-bytes=1000'])
})
afterAll(() => server.close())

const b64 = (text: string): string => Buffer.from(text).toString('base64')

async function post(path: string, body: unknown, headers: Record<string, string> = {}) {
  const text = typeof body === 'string' ? body : JSON.stringify(body)
  const response = await fetch(server.url + path, { method: 'POST', body: text, headers })
  return { status: response.status, json: (await response.json()) as Record<string, never> }
}

test('64-bit integers are text, bytes base64, and defaults are left out', async () => {
  const put = await post('/v3/kv/put', { key: b64('form'), value: b64('1') })
  expect(put).toMatchObject({ status: 200, json: { header: { cluster_id: '9', member_id: '7' } } })
  const { json } = await post('/v3/kv/range', { key: b64('form') })
  expect(json).toEqual({
    header: expect.objectContaining({ raft_term: '1' }),
    kvs: [
      {
        key: b64('form'),
        value: b64('1'),
        create_revision: expect.any(String),
        mod_revision: expect.any(String),
        version: '1',
      },
    ],
    count: '1',
  })
})

test('both forms of names, numbers as text or not, and enums by name or number are taken', async () => {
  for (const key of ['n1', 'n2']) await post('/v3/kv/put', { key: b64(key), value: b64('x') })
  const forms = [
    { range_end: b64('n9'), sort_order: 'DESCEND', sort_target: 'KEY', limit: '1' },
    { rangeEnd: b64('n9'), sortOrder: 2, sortTarget: 0, limit: 1 },
    { rangeEnd: b64('n9'), sortOrder: 'DESCEND', limit: 1, keysOnly: null, unheardOf: true },
  ]
  for (const form of forms) {
    const { status, json } = await post('/v3/kv/range', { key: b64('n'), ...form })
    expect([status, json], JSON.stringify(form)).toMatchObject([
      200,
      { kvs: [{ key: b64('n2') }], more: true },
    ])
  }
})

test('an id beyond what a number holds survives in both directions', async () => {
  const { json } = await post('/v3/lease/grant', '{"ID": 9223372036854775807, "TTL": 60}')
  expect(json).toMatchObject({ ID: '9223372036854775807', TTL: '60' })
  const left = await post('/v3/kv/lease/timetolive', { ID: '9223372036854775807' })
  expect(left.json).toMatchObject({ ID: '9223372036854775807', grantedTTL: '60' })
})

test('an empty body is a request of defaults', async () => {
  expect((await post('/v3/maintenance/status', '')).json).toMatchObject({ version: '3.5.16', leader: '7' })
})

test('refusals have the code of gRPC and the status that goes with it', async () => {
  const cases: [string, unknown, number, number, string][] = [
    ['/v3/kv/range', {}, 400, 3, 'etcdserver: key is not provided'],
    ['/v3/kv/put', { key: b64('a'), lease: '4242' }, 404, 5, 'etcdserver: requested lease not found'],
    [
      '/v3/kv/range',
      { key: 'YQ==', revision: '999' },
      400,
      11,
      'etcdserver: mvcc: required revision is a future revision',
    ],
    ['/v3/maintenance/transfer-leadership', { targetID: '1' }, 400, 9, 'etcdserver: bad leader transferee'],
    ['/v3/election/leader', { name: b64('nobody') }, 500, 2, 'election: no leader'],
    [
      '/v3/kv/put',
      { key: b64('a'), value: b64('x'.repeat(1100)) },
      400,
      3,
      'etcdserver: request is too large',
    ],
  ]
  for (const [path, body, status, code, message] of cases) {
    const answer = await post(path, body)
    expect(answer, path).toEqual({ status, json: { error: message, code, message } })
  }
})

test('what is no request is refused as such', async () => {
  for (const body of ['{', '[]', '{"key": 5}', '{"sort_order": "SIDEWAYS"}', '{"limit": "many"}']) {
    expect(await post('/v3/kv/range', body), body).toMatchObject({ status: 400, json: { code: 3 } })
  }
  const large = `{"key":"${'A'.repeat(2 * (1000 + 512 * 1024))}"}`
  expect(await post('/v3/kv/range', large)).toMatchObject({ status: 429, json: { code: 8 } })
})

test('only POST is served, and only paths that there are', async () => {
  const get = await fetch(`${server.url}/v3/kv/range`)
  expect([get.status, get.headers.get('allow')]).toEqual([501, 'POST'])
  expect((await fetch(`${server.url}/v3/kv/nothing`, { method: 'POST', body: '{}' })).status).toBe(404)
})

test('a watch answers with a line a message and goes on after its request', async () => {
  const watch = await postLines(`${server.url}/v3/watch`, {
    create_request: { key: b64('w'), filters: ['NOPUT'], prev_kv: true },
  })
  expect(await watch.next()).toMatchObject({ result: { created: true, header: { cluster_id: '9' } } })
  await post('/v3/kv/put', { key: b64('w'), value: b64('1') })
  await post('/v3/kv/deleterange', { key: b64('w') })
  const { result } = (await watch.next()) as { result: { events: unknown[] } }
  expect(result.events).toMatchObject([
    { type: 'DELETE', kv: { key: b64('w') }, prev_kv: { value: b64('1') } },
  ])
  watch.close()
})

test('a body may hold several requests of one stream', async () => {
  const create = (id: number) => ({ create_request: { key: b64('s'), watch_id: id } })
  const watch = await postLines(
    `${server.url}/v3/watch`,
    [create(5), create(6), { cancel_request: { watch_id: 5 } }]
      .map((each) => JSON.stringify(each))
      .join('\n'),
  )
  expect(await watch.next()).toMatchObject({ result: { watch_id: '5', created: true } })
  expect(await watch.next()).toMatchObject({ result: { watch_id: '6', created: true } })
  expect(await watch.next()).toMatchObject({ result: { watch_id: '5', canceled: true } })
  watch.close()
})

test('a keep-alive ends with its body, and an unknown lease has no TTL', async () => {
  await post('/v3/lease/grant', { ID: '801', TTL: '60' })
  const answers = await postLines(`${server.url}/v3/lease/keepalive`, '{"ID":"801"}{"ID":"802"}')
  expect(await answers.rest()).toMatchObject([
    { result: { ID: '801', TTL: '60' } },
    { result: { ID: '802' } },
  ])
})

test('a stream that is refused says so in its line and its status', async () => {
  const refused = await postLines(`${server.url}/v3/watch`, '{"create_request":')
  expect([refused.status, await refused.rest()]).toMatchObject([
    400,
    [{ error: { grpc_code: 3, http_code: 400, http_status: 'Bad Request' } }],
  ])
})

test('a token reaches the handler as it is, and a client certificate’s name does not', async () => {
  const { MethodTable } = await import('../api/method-table.ts')
  const { serveGateway } = await import('./gateway.ts')
  const { createServer } = await import('node:http')
  const methods = new MethodTable({ now: () => 0 })
  const seen: unknown[] = []
  methods.unary('/etcdserverpb.Auth/UserList', (_request, call) => {
    seen.push([call.token, call.hasLeader, call.peer.commonName])
    return new Uint8Array(0)
  })
  const http = createServer((request, response) => {
    serveGateway({ methods, messageBytesMax: 1000 }, request, response)
  })
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve))
  const { port } = http.address() as { port: number }
  const url = `http://127.0.0.1:${port}/v3/auth/user/list`
  const headers = { authorization: 'abc.1', 'grpc-metadata-hasleader': 'true' }
  expect((await fetch(url, { method: 'POST', headers })).status).toBe(200)
  expect(seen).toEqual([['abc.1', true, undefined]])
  http.closeAllConnections()
  await new Promise((resolve) => http.close(resolve))
})

test('the gateway can be switched off', async () => {
  const off = await startLoneServer(['--enable-grpc-gateway=false'])
  expect((await fetch(`${off.url}/v3/kv/range`, { method: 'POST', body: '{}' })).status).toBe(404)
  expect((await fetch(`${off.url}/version`)).status).toBe(200)
  await off.close()
})

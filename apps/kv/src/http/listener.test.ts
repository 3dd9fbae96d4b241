import { request } from 'node:http'
import { createWireClient } from '@kiln/wire'
import { afterEach, expect, test } from 'vitest'
import { type LoneServer, startLoneServer } from '../testing/lone-server.ts'

let server: LoneServer | undefined
afterEach(async () => {
  await server?.close()
  server = undefined
})

/** With a Host header of choice, which fetch does not let one set. */
function ask(url: string, headers: Record<string, string>, method = 'GET') {
  return new Promise<{ status: number; headers: Record<string, unknown>; body: string }>(
    (resolve, reject) => {
      request(url, { method, headers }, (response) => {
        let body = ''
        response.on('data', (chunk: Buffer) => {
          body += chunk.toString()
        })
        response.on('end', () => resolve({ status: response.statusCode!, headers: response.headers, body }))
      })
        .on('error', reject)
        .end()
    },
  )
}

test('every page may be asked from everywhere unless it is said otherwise', async () => {
  server = await startLoneServer()
  const answer = await ask(`${server.url}/health`, { host: 'evil.example', origin: 'http://a.example' })
  expect(answer).toMatchObject({ status: 200, headers: { 'access-control-allow-origin': '*' } })
  expect(await ask(`${server.url}/v3/kv/range`, {}, 'OPTIONS')).toMatchObject({
    status: 200,
    headers: {
      'access-control-allow-methods': 'POST, GET, OPTIONS, PUT, DELETE',
      'access-control-allow-headers': 'accept, content-type, authorization',
    },
  })
})

test('only origins of the list are allowed to browsers', async () => {
  server = await startLoneServer(['--cors=http://a.example,http://b.example'])
  const allowed = async (origin: string) =>
    (await ask(`${server!.url}/version`, { origin })).headers['access-control-allow-origin']
  expect(await allowed('http://b.example')).toBe('http://b.example')
  expect(await allowed('http://c.example')).toBeUndefined()
})

test('a foreign host name is refused without TLS', async () => {
  server = await startLoneServer(['--host-whitelist=localhost,127.0.0.1'])
  expect((await ask(`${server.url}/version`, {})).status).toBe(200)
  expect((await ask(`${server.url}/version`, { host: 'localhost:99' })).status).toBe(200)
  const refused = await ask(`${server.url}/v3/kv/range`, { host: 'rebound.example:2379' }, 'POST')
  expect(refused.status).toBe(421)
  expect(refused.body).toContain('--host-whitelist "rebound.example"')
})

test('settings are shown, profiles only when they are asked for', async () => {
  server = await startLoneServer()
  const config = await (await fetch(`${server.url}/config`)).json()
  expect(config).toMatchObject({ name: 'default', txnOpsMax: 128, cors: ['*'] })
  expect((await fetch(`${server.url}/debug/pprof/profile?seconds=1`)).status).toBe(404)
  await server.close()
  server = await startLoneServer(['--enable-pprof'])
  expect((await fetch(`${server.url}/debug/pprof/profile?seconds=0`)).status).toBe(400)
  const profile = await fetch(`${server.url}/debug/pprof/profile?seconds=0.1`)
  expect(await profile.json()).toMatchObject({ nodes: expect.any(Array), samples: expect.any(Array) })
  const heap = await fetch(`${server.url}/debug/pprof/heap?seconds=0.1`)
  expect(await heap.json()).toMatchObject({ head: expect.any(Object) })
})

test('HTTP can have addresses of its own, and the client’s are then for gRPC', async () => {
  const { freePorts } = await import('../testing/member-process.ts')
  const [port] = await freePorts(1)
  server = await startLoneServer([`--listen-client-http-urls=http://127.0.0.1:${port}`])
  expect((await fetch(`http://127.0.0.1:${port}/version`)).status).toBe(200)
  const range = { method: 'POST', body: '{"key":"YQ=="}' }
  expect((await fetch(`http://127.0.0.1:${port}/v3/kv/range`, range)).status).toBe(200)
  expect((await fetch(`${server.url}/version`)).status).toBe(404)
})

test('the metrics page has each method of the API before its first call, and what clients sent and got', async () => {
  server = await startLoneServer([])
  const { url } = server
  const value = async (name: string): Promise<number> => {
    const page = await (await fetch(`${url}/metrics`)).text()
    return Number(
      page
        .split('\n')
        .find((line) => line.startsWith(`${name} `))
        ?.split(' ')[1],
    )
  }
  const calls = 'grpc_server_handled_total{grpc_code="InvalidArgument",grpc_method="Range",'
  expect(await value(`${calls}grpc_service="etcdserverpb.KV",grpc_type="unary"}`)).toBe(0)
  expect(await value('etcd_network_client_grpc_sent_bytes_total')).toBe(0)
  const { hostname: host, port } = new URL(url)
  const client = createWireClient({ host, port: Number(port) })
  await client.unary('/etcdserverpb.KV/Range', new Uint8Array([10, 1, 97])).catch(() => undefined)
  expect(await value('etcd_network_client_grpc_received_bytes_total')).toBeGreaterThan(50)
  expect(await value('etcd_network_client_grpc_sent_bytes_total')).toBeGreaterThan(50)
  expect(await value('etcd_mvcc_range_total')).toBe(1)
  client.close()
})

test('every name of etcd’s alerts is on the metrics page, histograms of calls when extensive', async () => {
  server = await startLoneServer(['--metrics=extensive'])
  server.context.measures.observeRoundTrip(8n, 0.0003)
  server.context.measures.peers = () => [
    { peer: 8n, connected: true, sent: 5, dropped: 2, bytesIn: 70, bytesOut: 90 },
  ]
  await fetch(`${server.url}/v3/kv/put`, { method: 'POST', body: '{"key":"YQ=="}' })
  await fetch(`${server.url}/v3/lease/keepalive`, { method: 'POST', body: '{"ID":"1"}' })
  const page = await (await fetch(`${server.url}/metrics`)).text()
  for (const line of [
    'etcd_server_has_leader 1',
    'etcd_server_leader_changes_seen_total ',
    'etcd_server_proposals_pending 0',
    'etcd_server_proposals_failed_total 0',
    'etcd_server_quota_backend_bytes ',
    'etcd_mvcc_db_total_size_in_bytes ',
    'etcd_mvcc_db_total_size_in_use_in_bytes ',
    'etcd_disk_wal_fsync_duration_seconds_bucket{le="0.001"} ',
    'etcd_disk_backend_commit_duration_seconds_bucket{le="+Inf"} ',
    'etcd_network_peer_round_trip_time_seconds_bucket{To="8",le="0.0002"} 0',
    'etcd_network_peer_round_trip_time_seconds_bucket{To="8",le="0.0004"} 1',
    'etcd_network_peer_sent_failures_total{To="8"} 2',
    'etcd_network_peer_sent_bytes_total{To="8"} 90',
    'etcd_network_peer_received_bytes_total{From="8"} 70',
    'etcd_mvcc_put_total 1',
    'etcd_mvcc_delete_total 0',
    'process_max_fds ',
    'grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 1',
    'grpc_server_handled_total{grpc_code="OK",grpc_method="LeaseKeepAlive",grpc_service="etcdserverpb.Lease",grpc_type="bidi_stream"} 1',
    'grpc_server_handling_seconds_bucket{grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary",le="+Inf"} 1',
  ]) {
    expect(page).toContain(`\n${line}`)
  }
})

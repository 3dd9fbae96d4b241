import { Client, credentials, Metadata, type ServiceError } from '@grpc/grpc-js'
import * as rpc from '@kiln/etcd-api/rpc'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type LoneServer, startLoneServer } from './testing/lone-server.ts'

/** The same calls, in the same order, to the same services on our engine and on that of @grpc/grpc-js. */
const wires = ['kiln', 'grpc-js'] as const
const servers: LoneServer[] = []
const clients: Client[] = []
beforeAll(async () => {
  for (const wire of wires) {
    const server = await startLoneServer([`--wire=${wire}`])
    servers.push(server)
    clients.push(
      new Client(new URL(server.url).host, credentials.createInsecure(), {
        'grpc.max_receive_message_length': -1,
      }),
    )
  }
})
afterAll(async () => {
  for (const client of clients) client.close()
  await Promise.all(servers.map((server) => server.close()))
})

const identity = (bytes: Buffer): Buffer => bytes
const bytes = (text: string): Buffer => Buffer.from(text)
type Outcome = { code: number; details: string; answers: string[] }

function unary(client: Client, path: string, request: Uint8Array, headers: Record<string, string> = {}) {
  const metadata = new Metadata()
  for (const [name, value] of Object.entries(headers)) metadata.set(name, value)
  return new Promise<Outcome>((resolve) => {
    client.makeUnaryRequest(path, identity, identity, Buffer.from(request), metadata, (error, answer) => {
      const { code = 0, details = '' } = (error ?? {}) as Partial<ServiceError>
      resolve({ code, details, answers: answer ? [answer.toString('hex')] : [] })
    })
  })
}

/** Sends all requests, and ends when so many answers came, or the server ended. */
function stream(client: Client, path: string, requests: Uint8Array[], answersMax: number): Promise<Outcome> {
  return new Promise((resolve) => {
    const call = client.makeBidiStreamRequest(path, identity, identity)
    const answers: string[] = []
    call.on('data', (answer: Buffer) => {
      answers.push(answer.toString('hex'))
      if (answers.length === answersMax) call.end()
    })
    call.on('error', ({ code, details }: ServiceError) => resolve({ code, details, answers }))
    call.on('end', () => resolve({ code: 0, details: '', answers }))
    for (const request of requests) call.write(Buffer.from(request))
  })
}

const put = (key: string, value: string | Buffer, more: Partial<rpc.PutRequest> = {}): Uint8Array =>
  rpc.PutRequest.encode(
    rpc.PutRequest.fromPartial({ key: bytes(key), value: Buffer.from(value), ...more }),
  ).finish()
const range = (more: Partial<rpc.RangeRequest>): Uint8Array =>
  rpc.RangeRequest.encode(rpc.RangeRequest.fromPartial(more)).finish()
const watch = (more: Partial<rpc.WatchCreateRequest>): Uint8Array =>
  rpc.WatchRequest.encode(
    rpc.WatchRequest.fromPartial({ requestUnion: { $case: 'createRequest', value: more } }),
  ).finish()
const everything = { key: Buffer.alloc(1), rangeEnd: Buffer.alloc(1) }

const calls: [name: string, run: (client: Client) => Promise<Outcome>][] = [
  ['a put', (client) => unary(client, '/etcdserverpb.KV/Put', put('a', '1'))],
  ['a large put', (client) => unary(client, '/etcdserverpb.KV/Put', put('b', Buffer.alloc(1_000_000, 7)))],
  ['a put of too much', (client) => unary(client, '/etcdserverpb.KV/Put', put('c', Buffer.alloc(1_600_000)))],
  ['a put without a key', (client) => unary(client, '/etcdserverpb.KV/Put', put('', ''))],
  [
    'a put with a lease of nobody',
    (client) => unary(client, '/etcdserverpb.KV/Put', put('d', '', { lease: 99n })),
  ],
  ['a range of all', (client) => unary(client, '/etcdserverpb.KV/Range', range(everything))],
  [
    'a future revision',
    (client) => unary(client, '/etcdserverpb.KV/Range', range({ ...everything, revision: 99n })),
  ],
  [
    'a deletion with what was there',
    (client) =>
      unary(
        client,
        '/etcdserverpb.KV/DeleteRange',
        rpc.DeleteRangeRequest.encode({ key: bytes('a'), rangeEnd: Buffer.alloc(0), prevKv: true }).finish(),
      ),
  ],
  ['bytes that are no message', (client) => unary(client, '/etcdserverpb.KV/Put', Buffer.of(0xff, 0xff))],
  [
    'a lease',
    (client) =>
      unary(
        client,
        '/etcdserverpb.Lease/LeaseGrant',
        rpc.LeaseGrantRequest.encode({ ID: 7n, TTL: 60n }).finish(),
      ),
  ],
  [
    'the same lease again',
    (client) =>
      unary(
        client,
        '/etcdserverpb.Lease/LeaseGrant',
        rpc.LeaseGrantRequest.encode({ ID: 7n, TTL: 60n }).finish(),
      ),
  ],
  ['members', (client) => unary(client, '/etcdserverpb.Cluster/MemberList', Buffer.alloc(0))],
  [
    'a token that is none',
    (client) => unary(client, '/etcdserverpb.Auth/UserList', Buffer.alloc(0), { token: 'x' }),
  ],
  [
    'a leader asked for',
    (client) => unary(client, '/etcdserverpb.KV/Range', range(everything), { hasleader: 'true' }),
  ],
  [
    'keep-alives',
    (client) =>
      stream(
        client,
        '/etcdserverpb.Lease/LeaseKeepAlive',
        [7n, 8n].map((ID) => rpc.LeaseKeepAliveRequest.encode({ ID }).finish()),
        2,
      ),
  ],
  [
    'a watch from the beginning',
    (client) =>
      stream(
        client,
        '/etcdserverpb.Watch/Watch',
        [watch({ ...everything, startRevision: 2n, prevKv: true })],
        2,
      ),
  ],
  [
    'a snapshot',
    async (client) => {
      const { code, details, answers } = await stream(
        client,
        '/etcdserverpb.Maintenance/Snapshot',
        [Buffer.alloc(0)],
        1e9,
      )
      // The file has times of its own.
      return { code, details, answers: [String(answers.length > 0)] }
    },
  ],
]

for (const [name, run] of calls) {
  test(`${name}: both engines answer alike`, async () => {
    const [ours, theirs] = [await run(clients[0]!), await run(clients[1]!)]
    expect(theirs).toEqual(ours)
  })
}

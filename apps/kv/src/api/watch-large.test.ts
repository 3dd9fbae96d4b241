import { Client, credentials } from '@grpc/grpc-js'
import * as rpc from '@kiln/etcd-api/rpc'
import { fromKey } from '@kiln/mvcc'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { measureGap } from '../bench/gap-meter.ts'
import { postLines } from '../testing/json-lines.ts'
import { type LoneServer, startLoneServer } from '../testing/lone-server.ts'

const keys = 20_000
const keyOf = (at: number): string => `large/${String(at).padStart(7, '0')}`
const patience = { timeout: 20_000 }
const identity = (bytes: Buffer): Buffer => bytes

let server: LoneServer
let client: Client
beforeAll(async () => {
  server = await startLoneServer()
  client = new Client(new URL(server.url).host, credentials.createInsecure(), {
    'grpc.max_receive_message_length': -1,
  })
  for (let at = 0; at < keys; at++) {
    server.context.state.store.put({ key: Buffer.from(keyOf(at)), value: Buffer.from('v') })
  }
  // What goes by the log from here on tells the watchers.
  await call('KV/Put', rpc.PutRequest.encode(rpc.PutRequest.fromPartial({ key: Buffer.from('x') })).finish())
})
afterAll(async () => {
  client.close()
  await server.close()
})

function call(method: string, request: Uint8Array): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const path = `/etcdserverpb.${method}`
    client.makeUnaryRequest(path, identity, identity, Buffer.from(request), (error, answer) =>
      error ? reject(error) : resolve(answer!),
    )
  })
}

type Watch = { messages: rpc.WatchResponse[]; close(): void }

async function watch(create: Partial<rpc.WatchCreateRequest>): Promise<Watch> {
  const stream = client.makeBidiStreamRequest('/etcdserverpb.Watch/Watch', identity, identity)
  const messages: rpc.WatchResponse[] = []
  stream.on('data', (bytes: Buffer) => messages.push(rpc.WatchResponse.decode(bytes)))
  stream.on('error', () => undefined)
  const request = rpc.WatchRequest.fromPartial({ requestUnion: { $case: 'createRequest', value: create } })
  stream.write(Buffer.from(rpc.WatchRequest.encode(request).finish()))
  await expect.poll(() => messages[0]?.created, patience).toBe(true)
  return { messages, close: () => stream.cancel() }
}

const prefix = { key: Buffer.from('large/'), rangeEnd: Buffer.from('large0') }

test('a deletion of very many keys reaches every watcher whole, and no turn of the loop is long', async () => {
  const whole = await watch(prefix)
  const fragments = await watch({ ...prefix, fragment: true, prevKv: true })
  const one = await watch({ key: fromKey(keyOf(7)) })
  const json = await postLines(
    `${server.url}/v3/watch`,
    JSON.stringify({
      create_request: {
        key: Buffer.from('large/').toString('base64'),
        range_end: Buffer.from('large0').toString('base64'),
      },
    }),
  )
  await json.next()
  const { gap } = await measureGap(async () => {
    await call(
      'KV/DeleteRange',
      rpc.DeleteRangeRequest.encode(rpc.DeleteRangeRequest.fromPartial(prefix)).finish(),
    )
    await expect.poll(() => one.messages.length, patience).toBe(2)
  })
  await expect.poll(() => whole.messages.length, patience).toBe(2)
  const { events } = whole.messages[1]!
  expect(events).toHaveLength(keys)
  expect(events.map(({ kv }) => Buffer.from(kv!.key).toString())).toEqual(
    Array.from({ length: keys }, (_, at) => keyOf(at)),
  )
  await expect.poll(() => fragments.messages.flatMap((message) => message.events).length, patience).toBe(keys)
  const parts = fragments.messages.slice(1)
  expect(parts.length).toBeGreaterThan(10)
  expect(parts.map(({ fragment }) => fragment)).toEqual([...new Array(parts.length - 1).fill(true), false])
  expect(parts.every(({ events: part }) => part.every(({ prevKv }) => prevKv !== undefined))).toBe(true)
  const line = (await json.next())['result'] as { events: unknown[] }
  expect(line.events).toHaveLength(keys)
  // The client is in this thread too, so the bound is a wide one; in one piece it was several times as much.
  expect(gap.cpuMs).toBeLessThan(400)
  json.close()
  for (const each of [whole, fragments, one]) each.close()
})

import { Client, credentials } from '@grpc/grpc-js'
import { afterEach, expect, test } from 'vitest'
import type { StreamCall } from './grpc/call.ts'
import { frameFlag, frameType, setting } from './http2/frames.ts'
import { createWireServer } from './server.ts'
import { grpcMessage, grpcRequest, rawClient } from './testing/raw-client.ts'

const open: { close(): unknown }[] = []
afterEach(async () => {
  for (const thing of open.splice(0).reverse()) await thing.close()
})

async function start(responseBytesMax?: number) {
  const server = createWireServer(responseBytesMax ? { limits: { responseBytesMax } } : {})
  const { port } = await server.listen({ host: '127.0.0.1', port: 0 })
  open.push({ close: () => server.close({ graceMs: 0 }) })
  return { server, port }
}

const patience = { timeout: 20_000 }
const identity = (bytes: Buffer): Buffer => bytes

test('a message begun is made from its parts as there is room, and is one to its reader', async () => {
  const { server, port } = await start()
  const total = 5_000_000
  let most = 0
  server.stream('/t.T/Long', (call) => {
    let left = total
    const fill = (): void => {
      while (left > 0 && call.writable) {
        const bytes = Buffer.alloc(Math.min(left, 10_007), left)
        left -= bytes.length
        call.sendPart(bytes)
        most = Math.max(most, call.bufferedBytes)
        if (left === 0) call.end()
      }
    }
    call.send(Buffer.from('first'))
    call.beginMessage(total)
    fill()
    return { onDrain: fill }
  })
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure(), {
    'grpc.max_receive_message_length': -1,
  })
  open.push(client)
  const messages: Buffer[] = []
  const call = client.makeServerStreamRequest('/t.T/Long', identity, identity, Buffer.alloc(0))
  call.on('data', (message: Buffer) => messages.push(message))
  await new Promise((resolve, reject) => call.on('end', resolve).on('error', reject))
  expect(messages.map(({ length }) => length)).toEqual([5, total])
  for (let left = total, at = 0; left > 0; left -= 10_007, at += 10_007)
    expect(messages[1]![at]).toBe(left & 255)
  expect(most).toBeLessThan(300_000)
})

test('a message broken off fails its call and nothing else', async () => {
  const { server, port } = await start()
  server.stream('/t.T/Broken', (call) => {
    call.beginMessage(100)
    call.sendPart(Buffer.alloc(10))
    call.end({ code: 14, message: 'gone' })
    return {}
  })
  server.unary('/t.T/Echo', (message) => message)
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure())
  open.push(client)
  const call = client.makeServerStreamRequest('/t.T/Broken', identity, identity, Buffer.alloc(0))
  const messages: Buffer[] = []
  call.on('data', (message: Buffer) => messages.push(message))
  await new Promise((resolve) => call.on('error', resolve))
  expect(messages).toEqual([])
  const echoed = await new Promise((resolve) =>
    client.makeUnaryRequest('/t.T/Echo', identity, identity, Buffer.from('x'), (_error, answer) =>
      resolve(answer?.toString()),
    ),
  )
  expect(echoed).toBe('x')
})

test('streams that nobody reads keep a bounded part of the memory, and their neighbour goes on', async () => {
  const { server, port } = await start(1_000_000)
  const floods: { sent: number }[] = []
  server.stream('/t.T/Flood', (call: StreamCall) => {
    const flood = { sent: 0 }
    floods.push(flood)
    const fill = (): void => {
      while (call.writable) {
        call.send(Buffer.alloc(1000))
        flood.sent += 1000
      }
    }
    fill()
    return { onDrain: fill }
  })
  const client = await rawClient(port)
  open.push({ close: () => client.socket.destroy() })
  // Nothing is read but of one stream, which gets its window, as the connection does.
  client.settings([[setting.initialWindowSize, 0]])
  const stalled = 200
  for (let at = 0; at < stalled; at++) {
    client.headers(2 * at + 1, grpcRequest('/t.T/Flood'))
    client.frame(frameType.data, frameFlag.endStream, 2 * at + 1, grpcMessage(Buffer.alloc(0)))
  }
  await expect.poll(() => floods.length, patience).toBeGreaterThan(40)
  await expect.poll(() => server.stats().bufferedBytes, patience).toBeGreaterThan(900_000)
  const reader = 1
  const credit = Buffer.alloc(4)
  credit.writeUInt32BE(1_000_000)
  const before = floods[0]!.sent
  for (let round = 0; round < 10; round++) {
    client.frame(frameType.windowUpdate, 0, reader, credit)
    client.frame(frameType.windowUpdate, 0, 0, credit)
    let received = 0
    while (received < 1_000_000) {
      const { payload } = await client.next(frameType.data)
      received += payload.length
    }
  }
  expect(floods[0]!.sent - before).toBeGreaterThan(9_000_000)
  expect(server.stats().bufferedBytes).toBeLessThan(1_100_000)
})

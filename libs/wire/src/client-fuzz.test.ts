import http2 from 'node:http2'
import net from 'node:net'
import fc from 'fast-check'
import { afterEach, expect, test } from 'vitest'
import { createWireClient } from './client.ts'
import { CallError } from './grpc/status.ts'
import { grpcHead, grpcOkTrailers, HpackEncoder } from './http2/hpack-encoder.ts'
import { OutBuffer } from './http2/out-buffer.ts'
import { grpcMessage } from './testing/raw-client.ts'

const open: { close(): unknown }[] = []

afterEach(async () => {
  for (const thing of open.splice(0).reverse()) await thing.close()
})

/** What we may send in a header, spaces only within. */
const headerValue = fc
  .array(fc.integer({ min: 0x21, max: 0x7e }), { maxLength: 80 })
  .map((codes) => String.fromCharCode(...codes))

test('what we encode, nghttp2 decodes, and the other way round', async () => {
  const { constants } = http2
  await fc.assert(
    fc.asyncProperty(
      fc.array(headerValue, { minLength: 1, maxLength: 40 }),
      fc.constantFrom(constants.PADDING_STRATEGY_NONE, constants.PADDING_STRATEGY_MAX),
      fc.constantFrom(0, 64, 120, 4096, 65_536),
      fc.constantFrom(65_535, 1, 1000, 1_000_000),
      fc.nat(100_000),
      async (values, paddingStrategy, headerTableSize, initialWindowSize, size) => {
        const server = http2.createServer({
          paddingStrategy,
          settings: { headerTableSize, initialWindowSize },
        })
        server.on('stream', (stream, headers) => {
          const value = String(headers['x-fuzz'] ?? '')
          stream.on('error', () => {})
          stream.respond(
            { ':status': 200, 'content-type': 'application/grpc', 'x-fuzz': value },
            { waitForTrailers: true },
          )
          stream.on('wantTrailers', () =>
            stream.sendTrailers({ 'grpc-status': '5', 'grpc-message': encodeURIComponent(value) }),
          )
          stream.pipe(stream)
        })
        await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
        const client = createWireClient({
          host: '127.0.0.1',
          port: (server.address() as net.AddressInfo).port,
        })
        try {
          // Byte by byte a large message would take all day.
          const message = Buffer.alloc(initialWindowSize < 65_535 ? size % 300 : size, 'm')
          for (const value of values) {
            const heard: Uint8Array[] = []
            const error = await new Promise<CallError | undefined>((resolve) => {
              const stream = client.stream(
                '/t.T/Any',
                { onMessage: (bytes) => heard.push(bytes), onClose: resolve },
                { headers: [['x-fuzz', value]], timeoutMs: 20_000 },
              )
              stream.send(message)
              stream.end()
            })
            expect(error).toMatchObject({ code: 5, message: value, effect: 'answered' })
            expect(heard.map((bytes) => Buffer.compare(bytes, message))).toEqual([0])
          }
        } finally {
          client.close()
          await new Promise((resolve) => server.close(resolve))
        }
      },
    ),
    { numRuns: 25 },
  )
}, 120_000)

/** What a well-behaved server sends to three calls, to be spoiled. */
function goodBytes(): Buffer {
  const out = new OutBuffer()
  const encoder = new HpackEncoder()
  const frame = (type: number, flags: number, streamId: number, write: () => void) => {
    const at = out.length
    out.frameHeader(0, type, flags, streamId)
    write()
    out.closeFrame(at)
  }
  for (const streamId of [1, 3, 5]) {
    frame(1, 4, streamId, () => encoder.encode(out, grpcHead))
    frame(0, 0, streamId, () => out.append(grpcMessage(Buffer.from(`answer ${streamId}`))))
    if (streamId === 3) {
      frame(8, 0, streamId, () => out.uint32(1000))
      frame(6, 0, 0, () => out.append(Buffer.alloc(8)))
    }
    frame(1, 5, streamId, () => encoder.encode(out, streamId === 5 ? [['grpc-status', '5']] : grpcOkTrailers))
  }
  frame(7, 0, 0, () => out.append(Buffer.alloc(8)))
  return Buffer.from(out.pending())
}

test('no bytes of a server bring the client down, and every call comes to its end', async () => {
  const good = goodBytes()
  let reply: (socket: net.Socket) => void = () => {}
  const server = net.createServer((socket) => {
    socket.on('error', () => {})
    // SETTINGS without content; the rest when the calls are there.
    socket.write(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]))
    let heard = 0
    socket.on('data', (chunk: Buffer) => {
      const before = heard
      heard += chunk.length
      if (before < 200 && heard >= 200) reply(socket)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  open.push(server)
  const { port } = server.address() as net.AddressInfo
  let answered = 0
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 6 }),
      fc.nat(good.length),
      fc.integer({ min: 1, max: good.length }),
      async (changes, length, cut) => {
        const bytes = Buffer.from(good.subarray(0, length))
        for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value
        reply = (socket) => {
          for (let at = 0; at < bytes.length; at += cut) socket.write(bytes.subarray(at, at + cut))
          setImmediate(() => socket.end())
        }
        const client = createWireClient({ host: '127.0.0.1', port })
        const calls = [1, 2, 3].map((at) =>
          client.unary('/t.T/Echo', Buffer.alloc(60, at), { timeoutMs: 5000 }),
        )
        for (const result of await Promise.allSettled(calls)) {
          if (result.status === 'fulfilled') answered++
          else expect(result.reason).toBeInstanceOf(CallError)
        }
        expect(client.stats()).toMatchObject({ streams: 0, waiting: 0 })
        client.close()
        await expect.poll(() => client.stats().connections, { interval: 1 }).toBe(0)
      },
    ),
    { numRuns: 300 },
  )
  expect(answered).toBeGreaterThan(50)
}, 120_000)

import http2 from 'node:http2'
import net from 'node:net'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createWireServer, type WireServer } from './server.ts'
import { grpcMessage, grpcRequest, rawClient } from './testing/raw-client.ts'

let server: WireServer
let port: number
const bugs: unknown[] = []

beforeAll(async () => {
  server = createWireServer({
    http: (request, response) => {
      response.setHeader('content-type', 'application/json')
      response.end(JSON.stringify(request.headers))
    },
    onHandlerError: (error) => bugs.push(error),
    limits: { resetsBurst: 1e6 },
  })
  server.unary('/t.T/Echo', (message) => message)
  server.unary('/t.T/Headers', (_message, call) => Buffer.from(call.header('x-fuzz') ?? '', 'latin1'))
  server.stream('/t.T/Chat', (call) => ({
    onMessage: (message) => void call.send(message),
    onEnd: () => call.end(),
  }))
  ;({ port } = await server.listen({ host: '127.0.0.1', port: 0 }))
})

afterAll(() => server.close({ graceMs: 0 }))

function exchange(
  session: http2.ClientHttp2Session,
  headers: http2.OutgoingHttpHeaders,
  body: Buffer[],
): Promise<{ headers: http2.IncomingHttpHeaders; trailers: http2.IncomingHttpHeaders; body: Buffer }> {
  return new Promise((resolve, reject) => {
    const request = session.request(headers)
    const chunks: Buffer[] = []
    let head: http2.IncomingHttpHeaders = {}
    let trailers: http2.IncomingHttpHeaders = {}
    request.on('response', (response) => {
      head = response
    })
    request.on('trailers', (received) => {
      trailers = received
    })
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => resolve({ headers: head, trailers, body: Buffer.concat(chunks) }))
    request.on('error', reject)
    for (const chunk of body) request.write(chunk)
    request.end()
  })
}

const grpc = { ':method': 'POST', 'content-type': 'application/grpc', te: 'trailers' }
/** What an HTTP header may carry: visible ASCII and all of the upper half, as Huffman code has it. */
const headerValue = fc
  .array(fc.oneof(fc.integer({ min: 0x21, max: 0x7e }), fc.integer({ min: 0x80, max: 0xff })), {
    maxLength: 80,
  })
  .map((codes) => String.fromCharCode(...codes))

test('what nghttp2 encodes, we decode: headers, Huffman code, evictions, padding, settings', async () => {
  const { constants } = http2
  await fc.assert(
    fc.asyncProperty(
      fc.array(headerValue, { minLength: 1, maxLength: 60 }),
      fc.constantFrom(
        constants.PADDING_STRATEGY_NONE,
        constants.PADDING_STRATEGY_MAX,
        constants.PADDING_STRATEGY_CALLBACK,
      ),
      fc.constantFrom(0, 64, 120, 4096, 65_536),
      fc.constantFrom(65_535, 1, 1000, 1_000_000),
      async (values, paddingStrategy, headerTableSize, initialWindowSize) => {
        const session = http2.connect(`http://127.0.0.1:${port}`, {
          paddingStrategy,
          settings: { headerTableSize, initialWindowSize },
        })
        try {
          for (const value of values) {
            const answer = await exchange(
              session,
              { ...grpc, ':path': '/t.T/Headers', 'x-fuzz': value, 'grpc-timeout': '5S' },
              [grpcMessage(Buffer.from('x'))],
            )
            expect(answer.trailers['grpc-status']).toBe('0')
            expect(answer.body.toString('latin1', 5)).toBe(value)
          }
        } finally {
          session.close()
        }
      },
    ),
    { numRuns: 25 },
  )
})

test('messages of any size and cut come back from unary calls and streams', async () => {
  const session = http2.connect(`http://127.0.0.1:${port}`)
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 0, max: 100_000 }), { minLength: 1, maxLength: 5 }),
      fc.integer({ min: 1, max: 50_000 }),
      async (sizes, cut) => {
        const messages = sizes.map((size) => grpcMessage(Buffer.alloc(size, size & 0xff)))
        const bytes = Buffer.concat(messages)
        const chunks: Buffer[] = []
        for (let at = 0; at < bytes.length; at += cut) chunks.push(bytes.subarray(at, at + cut))
        const [streamed, unary] = await Promise.all([
          exchange(session, { ...grpc, ':path': '/t.T/Chat' }, chunks),
          exchange(session, { ...grpc, ':path': '/t.T/Echo' }, [messages[0]!]),
        ])
        expect(streamed.body.equals(bytes)).toBe(true)
        expect(unary.body.equals(messages[0]!)).toBe(true)
      },
    ),
    { numRuns: 30 },
  )
  session.close()
})

test('headers reach an HTTP handler as they were sent', async () => {
  const session = http2.connect(`http://127.0.0.1:${port}`)
  await fc.assert(
    fc.asyncProperty(headerValue, async (value) => {
      const { headers, body } = await exchange(session, { ':path': '/', 'x-fuzz': value }, [])
      expect(headers[':status']).toBe(200)
      expect(JSON.parse(String(body))['x-fuzz']).toBe(value)
    }),
    { numRuns: 30 },
  )
  session.close()
})

/** The bytes of a well-behaved connection, to be spoiled. */
async function recording(): Promise<Buffer> {
  const sent: Buffer[] = []
  const client = await rawClient(port)
  const write = client.socket.write.bind(client.socket)
  client.socket.write = (bytes: Uint8Array | string) => {
    sent.push(Buffer.from(bytes as Uint8Array))
    return write(bytes)
  }
  client.bytes(Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'))
  client.settings([[4, 100_000]])
  for (const [at, path] of ['/t.T/Echo', '/t.T/Chat', '/t.T/Headers', '/nothing'].entries()) {
    client.headers(2 * at + 1, grpcRequest(path, [['x-fuzz', 'value']]))
    client.frame(0, 1, 2 * at + 1, grpcMessage(Buffer.from(`message ${at}`)))
  }
  client.frame(6, 0, 0, Buffer.alloc(8))
  client.socket.destroy()
  return Buffer.concat(sent)
}

test('no bytes bring the server down', async () => {
  const good = await recording()
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 6 }),
      fc.nat(good.length),
      fc.integer({ min: 1, max: good.length }),
      async (changes, length, cut) => {
        const bytes = Buffer.from(good.subarray(0, Math.max(24, length)))
        for (const [at, value] of changes) {
          if (at >= 24 && at < bytes.length) bytes[at] = value
        }
        const socket = net.connect(port, '127.0.0.1')
        socket.on('error', () => {})
        socket.resume()
        for (let at = 0; at < bytes.length; at += cut) socket.write(bytes.subarray(at, at + cut))
        await new Promise(setImmediate)
        socket.end()
        await new Promise((resolve) => socket.once('close', resolve))
      },
    ),
    { numRuns: 300 },
  )
  expect(bugs).toEqual([])
  await expect.poll(() => server.stats().connections).toBe(0)
  expect(server.stats()).toMatchObject({ streams: 0, bufferedBytes: 0 })
}, 120_000)

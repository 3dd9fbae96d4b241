import http2 from 'node:http2'
import https from 'node:https'
import net from 'node:net'
import {
  type ChannelCredentials,
  Client,
  type ClientDuplexStream,
  credentials,
  Metadata,
  type ServiceError,
} from '@grpc/grpc-js'
import { createCa, issueCertificate, type KeyPair } from '@kiln/pki'
import { afterEach, expect, test } from 'vitest'
import { GrpcError, grpcCode } from './grpc/status.ts'
import { createWireServer, type WireServer, type WireServerOptions } from './server.ts'

const open: { close(): unknown }[] = []

afterEach(async () => {
  for (const thing of open.splice(0).reverse()) await thing.close()
})

async function start(options: WireServerOptions = {}): Promise<{ server: WireServer; port: number }> {
  const server = createWireServer(options)
  server.unary('/t.T/Echo', (message) => message)
  server.stream('/t.T/Chat', (call) => ({
    onMessage: (message) => void call.send(message),
    onEnd: () => call.end(),
  }))
  const { port } = await server.listen({ host: '127.0.0.1', port: 0 })
  open.push({ close: () => server.close({ graceMs: 0 }) })
  return { server, port }
}

const unlimited = { 'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1 }

function grpcClient(port: number, creds: ChannelCredentials = credentials.createInsecure()): Client {
  const client = new Client(`localhost:${port}`, creds, unlimited)
  open.push(client)
  return client
}

const identity = (bytes: Buffer) => bytes

function unary(
  client: Client,
  path: string,
  message: Buffer,
  { metadata = {}, deadlineMs = 30_000 }: { metadata?: Record<string, string>; deadlineMs?: number } = {},
): Promise<Buffer> {
  const headers = new Metadata()
  for (const [name, value] of Object.entries(metadata)) headers.set(name, value)
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      path,
      identity,
      identity,
      message,
      headers,
      { deadline: Date.now() + deadlineMs },
      (error, answer) => (error ? reject(error) : resolve(answer!)),
    )
  })
}

function failureOf(promise: Promise<unknown>): Promise<{ code: number; details: string }> {
  return promise.then(
    () => ({ code: 0, details: '' }),
    ({ code, details }: ServiceError) => ({ code, details }),
  )
}

function chat(client: Client): ClientDuplexStream<Buffer, Buffer> {
  return client.makeBidiStreamRequest('/t.T/Chat', identity, identity)
}

test('unary calls answer at once, later, or with a promise', async () => {
  const { server, port } = await start()
  server.unary('/t.T/Later', (message, call) => {
    setTimeout(() => call.reply(message), 5)
    return undefined
  })
  server.unary('/t.T/Promise', async (message) => {
    await new Promise(setImmediate)
    return Buffer.concat([message, message])
  })
  const client = grpcClient(port)
  expect(String(await unary(client, '/t.T/Echo', Buffer.from('a')))).toBe('a')
  expect(String(await unary(client, '/t.T/Later', Buffer.from('b')))).toBe('b')
  expect(String(await unary(client, '/t.T/Promise', Buffer.from('c')))).toBe('cc')
  expect((await unary(client, '/t.T/Echo', Buffer.alloc(0))).length).toBe(0)
})

test('a call knows its metadata, deadline and peer', async () => {
  const { server, port } = await start()
  server.unary('/t.T/About', (_message, call) =>
    Buffer.from(
      JSON.stringify({
        token: call.token,
        hasLeader: call.hasLeader,
        deadline: call.deadline !== undefined,
        own: call.header('x-own'),
        missing: call.header('x-missing') === undefined,
        address: call.peer.address,
      }),
    ),
  )
  const client = grpcClient(port)
  const about = async (metadata: Record<string, string>) =>
    JSON.parse(String(await unary(client, '/t.T/About', Buffer.alloc(0), { metadata })))
  expect(await about({ token: 'secret.1', hasleader: 'true', 'x-own': 'mine' })).toMatchObject({
    token: 'secret.1',
    own: 'mine',
    hasLeader: true,
    deadline: true,
    missing: true,
    address: '127.0.0.1',
  })
  expect(await about({ authorization: 'other.2' })).toMatchObject({ token: 'other.2', hasLeader: false })
})

test('failures keep their code and every character of their message', async () => {
  const errors: unknown[] = []
  const { server, port } = await start({ onHandlerError: (error) => errors.push(error) })
  server.unary('/t.T/Refuse', () => {
    throw new GrpcError(grpcCode.invalidArgument, 'etcdserver: 100% “wrong”\n')
  })
  server.unary('/t.T/Reject', () => Promise.reject(new GrpcError(grpcCode.notFound, 'not here')))
  server.unary('/t.T/Bug', () => {
    throw new TypeError('secret detail')
  })
  const client = grpcClient(port)
  const refused = await failureOf(unary(client, '/t.T/Refuse', Buffer.alloc(0)))
  expect(refused).toEqual({ code: 3, details: 'etcdserver: 100% “wrong”\n' })
  expect(await failureOf(unary(client, '/t.T/Reject', Buffer.alloc(0)))).toEqual({
    code: 5,
    details: 'not here',
  })
  expect(await failureOf(unary(client, '/t.T/Bug', Buffer.alloc(0)))).toEqual({
    code: 2,
    details: 'internal error',
  })
  expect(errors).toHaveLength(1)
})

test('unknown methods and services are unimplemented, in the words of the Go server', async () => {
  const client = grpcClient((await start()).port)
  expect(await failureOf(unary(client, '/t.T/Nope', Buffer.alloc(0)))).toEqual({
    code: 12,
    details: 'unknown method Nope for service t.T',
  })
  expect((await failureOf(unary(client, '/x.X/Nope', Buffer.alloc(0)))).details).toBe('unknown service x.X')
})

test('a request over the limit is refused, one of 8 MiB within it goes both ways', async () => {
  const { port } = await start({ limits: { messageBytesMax: 8 * 1024 * 1024 } })
  const client = grpcClient(port)
  const big = Buffer.alloc(8 * 1024 * 1024, 'x')
  expect((await unary(client, '/t.T/Echo', big)).equals(big)).toBe(true)
  expect(await failureOf(unary(client, '/t.T/Echo', Buffer.alloc(big.length + 1)))).toEqual({
    code: 8,
    details: 'grpc: received message larger than max (8388609 vs. 8388608)',
  })
  const both = chat(client)
  both.write(big)
  both.write(big)
  both.end()
  let received = 0
  for await (const message of both) {
    expect(big.equals(message as Buffer)).toBe(true)
    received++
  }
  expect(received).toBe(2)
})

test('a deadline ends the call on both sides', async () => {
  const ended: string[] = []
  const { server, port } = await start()
  server.unary('/t.T/Never', (_message, call) => {
    call.onAbandoned = (reason) => ended.push(reason)
    return undefined
  })
  const client = grpcClient(port)
  expect((await failureOf(unary(client, '/t.T/Never', Buffer.alloc(0), { deadlineMs: 150 }))).code).toBe(4)
  await expect.poll(() => ended.length).toBe(1)
  expect(['deadline', 'cancelled']).toContain(ended[0])
  expect(server.stats().streams).toBe(0)
})

test('a cancelled or disconnected stream is told why it closed, once', async () => {
  const closed: string[] = []
  const { server, port } = await start()
  server.stream('/t.T/Watch', (call) => {
    call.send(Buffer.from('created'))
    return { onClose: (reason) => void closed.push(reason) }
  })
  const watch = async () => {
    const client = grpcClient(port)
    const stream = client.makeBidiStreamRequest('/t.T/Watch', identity, identity)
    stream.on('error', () => {})
    await new Promise((resolve) => stream.once('data', resolve))
    return { client, stream }
  }
  const first = await watch()
  first.stream.cancel()
  await expect.poll(() => closed).toEqual(['cancelled'])
  const socket = net.connect(port, '127.0.0.1')
  const session = http2.connect(`http://127.0.0.1:${port}`, { createConnection: () => socket })
  session.on('error', () => {})
  const request = session.request({
    ':method': 'POST',
    ':path': '/t.T/Watch',
    'content-type': 'application/grpc',
    te: 'trailers',
  })
  request.on('error', () => {})
  await new Promise((resolve) => request.once('data', resolve))
  socket.destroy()
  await expect.poll(() => closed).toEqual(['cancelled', 'disconnected'])
})

test('a server stream ends with a status of its own', async () => {
  const { server, port } = await start()
  server.stream('/t.T/Count', (call) => ({
    onMessage(message) {
      for (let at = 0; at < message[0]!; at++) call.send(Buffer.from([at]), Buffer.from('shared'))
      call.end({ code: grpcCode.outOfRange, message: 'no more' })
    },
  }))
  const stream = grpcClient(port).makeServerStreamRequest('/t.T/Count', identity, identity, Buffer.from([3]))
  const received: string[] = []
  stream.on('data', (message: Buffer) => received.push(message.toString('latin1')))
  const error = await new Promise<ServiceError>((resolve) => stream.once('error', resolve))
  expect(received).toEqual(['\0shared', '\x01shared', '\x02shared'])
  expect([error.code, error.details]).toEqual([11, 'no more'])
})

test('a thousand streams live on one connection', async () => {
  const { server, port } = await start()
  const client = grpcClient(port)
  const streams = Array.from({ length: 1000 }, () => chat(client))
  const answers = streams.map((stream) => new Promise<Buffer>((resolve) => stream.once('data', resolve)))
  for (const [at, stream] of streams.entries()) stream.write(Buffer.from(String(at)))
  expect((await Promise.all(answers)).map(String)).toEqual(streams.map((_, at) => String(at)))
  expect(server.stats()).toMatchObject({ streams: 1000, connections: 1 })
  for (const stream of streams) stream.end()
  await expect.poll(() => server.stats().streams).toBe(0)
})

test('a paused call holds the sender back and loses nothing', async () => {
  const { server, port } = await start({ limits: { streamWindowBytes: 65_536 } })
  const received: number[] = []
  let resume = () => {}
  server.stream('/t.T/Upload', (call) => {
    call.pause()
    resume = () => call.resume()
    return { onMessage: (message) => void received.push(message.length), onEnd: () => call.end() }
  })
  const client = grpcClient(port)
  const upload = client.makeBidiStreamRequest('/t.T/Upload', identity, identity)
  upload.resume()
  const done = new Promise((resolve) => upload.once('end', resolve))
  for (let at = 0; at < 40; at++) upload.write(Buffer.alloc(10_000))
  upload.end()
  await expect.poll(() => server.stats().bytesIn).toBeGreaterThan(60_000)
  expect(server.stats().bytesIn).toBeLessThan(80_000)
  expect(received).toEqual([])
  resume()
  await done
  expect(received).toEqual(Array.from({ length: 40 }, () => 10_000))
})

test('a slow reader fills its stream, not the memory, and others go on', async () => {
  const { server, port } = await start({ limits: { streamHighWaterBytes: 100_000 } })
  let sent = 0
  let drained = 0
  server.stream('/t.T/Flood', (call) => {
    const fill = () => {
      while (call.writable) {
        call.send(Buffer.alloc(10_000))
        sent += 10_000
      }
    }
    fill()
    return {
      onDrain() {
        drained++
        fill()
      },
    }
  })
  const client = grpcClient(port)
  const flood = client.makeServerStreamRequest('/t.T/Flood', identity, identity, Buffer.alloc(0))
  flood.on('error', () => {})
  flood.pause()
  await expect.poll(() => server.stats().bufferedBytes).toBeGreaterThan(90_000)
  for (let at = 0; at < 20; at++) expect((await unary(client, '/t.T/Echo', Buffer.from('x'))).length).toBe(1)
  expect(server.stats().bufferedBytes).toBeLessThan(120_000)
  const before = sent
  let received = 0
  flood.on('data', (message: Buffer) => {
    received += message.length
  })
  flood.resume()
  await expect.poll(() => received).toBeGreaterThan(before + 1_000_000)
  expect(drained).toBeGreaterThan(0)
  flood.cancel()
  await expect.poll(() => server.stats().bufferedBytes).toBe(0)
})

test('a connection with too many unread answers gets no new ones', async () => {
  const { server, port } = await start({
    limits: { responseBytesMax: 500_000 },
    overloadMessage: 'etcdserver: too many requests',
  })
  server.unary('/t.T/Big', () => Buffer.alloc(1_000_000))
  const session = http2.connect(`http://127.0.0.1:${port}`, { settings: { initialWindowSize: 0 } })
  open.push(session)
  const request = () =>
    session.request({
      ':method': 'POST',
      ':path': '/t.T/Big',
      'content-type': 'application/grpc',
      te: 'trailers',
    })
  request().end(Buffer.alloc(5))
  await expect.poll(() => server.stats().bufferedBytes).toBeGreaterThan(900_000)
  const refused = request()
  refused.end(Buffer.alloc(5))
  const headers = await new Promise<http2.IncomingHttpHeaders>((resolve) => refused.once('response', resolve))
  expect(headers['grpc-status']).toBe('8')
  expect(headers['grpc-message']).toBe('etcdserver: too many requests')
})

test('calls are counted from start to end', async () => {
  const ends: [string, number][] = []
  const { port } = await start({ onCallEnd: ({ path, code }) => ends.push([path, code]) })
  const client = grpcClient(port)
  await unary(client, '/t.T/Echo', Buffer.from('a'))
  const stream = chat(client)
  stream.resume()
  stream.end()
  await new Promise((resolve) => stream.once('end', resolve))
  await expect
    .poll(() => ends)
    .toEqual([
      ['/t.T/Echo', 0],
      ['/t.T/Chat', 0],
    ])
})

const httpEcho: WireServerOptions['http'] = (request, response) => {
  const chunks: Buffer[] = []
  request.on('data', (chunk: Buffer) => chunks.push(chunk))
  request.on('end', () => {
    response.setHeader('content-type', 'text/plain')
    response.statusCode = request.url === '/teapot' ? 418 : 200
    response.end(`${request.method} ${request.url} ${Buffer.concat(chunks).length}`)
  })
}

test('HTTP/1.1 on the same port goes to the HTTP server', async () => {
  const { port } = await start({ http: httpEcho })
  const base = `http://127.0.0.1:${port}`
  expect(await (await fetch(`${base}/health?x=1`)).text()).toBe('GET /health?x=1 0')
  const posted = await fetch(`${base}/v3/kv/put`, { method: 'POST', body: Buffer.alloc(300_000) })
  expect(await posted.text()).toBe('POST /v3/kv/put 300000')
  expect((await fetch(`${base}/teapot`)).status).toBe(418)
  // A request that comes in pieces, the first as short as a preface can begin.
  const socket = net.connect(port, '127.0.0.1')
  socket.write('P')
  await new Promise((resolve) => setTimeout(resolve, 20))
  socket.write('UT /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 1\r\n\r\nz')
  const answer: Buffer[] = []
  for await (const chunk of socket) answer.push(chunk as Buffer)
  expect(String(Buffer.concat(answer))).toMatch(/^HTTP\/1.1 200 OK[\s\S]*PUT \/x 1/)
})

function h2Request(
  session: http2.ClientHttp2Session,
  headers: http2.OutgoingHttpHeaders,
  body?: Buffer,
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const request = session.request(headers, { endStream: body === undefined })
    let status = 0
    const chunks: Buffer[] = []
    request.on('response', (response) => {
      status = response[':status'] ?? 0
    })
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => resolve({ status, text: String(Buffer.concat(chunks)) }))
    request.on('error', reject)
    if (body !== undefined) request.end(body)
  })
}

test('HTTP/2 that is not gRPC goes to the same HTTP server', async () => {
  const { port } = await start({ http: httpEcho })
  const session = http2.connect(`http://127.0.0.1:${port}`)
  open.push(session)
  expect(await h2Request(session, { ':path': '/metrics' })).toEqual({ status: 200, text: 'GET /metrics 0' })
  expect((await h2Request(session, { ':path': '/teapot' })).status).toBe(418)
  const body = Buffer.alloc(1_000_000)
  const post = { ':method': 'POST', ':path': '/v3/kv/range' }
  expect((await h2Request(session, post, body)).text).toBe('POST /v3/kv/range 1000000')
  const declared = { ...post, 'content-length': String(body.length) }
  expect((await h2Request(session, declared, body)).text).toBe('POST /v3/kv/range 1000000')
  expect((await h2Request(session, post, Buffer.alloc(3_000_000))).status).toBe(413)
})

test('a large HTTP/2 answer waits for its reader', async () => {
  const { server, port } = await start({
    http: (_request, response) => {
      response.end(Buffer.alloc(20_000_000))
    },
  })
  const session = http2.connect(`http://127.0.0.1:${port}`)
  open.push(session)
  const request = session.request({ ':path': '/' })
  await new Promise((resolve) => request.once('response', resolve))
  request.pause()
  await new Promise((resolve) => setTimeout(resolve, 100))
  expect(server.stats().bytesOut).toBeLessThan(1_000_000)
  let received = 0
  for await (const chunk of request) received += (chunk as Buffer).length
  expect(received).toBe(20_000_000)
})

test('without an HTTP server there is nothing to find', async () => {
  const { port } = await start()
  expect((await fetch(`http://127.0.0.1:${port}/health`)).status).toBe(404)
  const session = http2.connect(`http://127.0.0.1:${port}`)
  open.push(session)
  expect((await h2Request(session, { ':path': '/health' })).status).toBe(404)
})

type Pki = { ca: KeyPair; server: KeyPair; client: KeyPair }

async function pki(): Promise<Pki> {
  const now = new Date()
  const ca = await createCa({ name: 'test', days: 1, now })
  const subject = { names: ['localhost'], days: 1, now }
  return {
    ca,
    server: await issueCertificate(ca, { ...subject, commonName: 'server', use: ['server'] }),
    client: await issueCertificate(ca, { ...subject, commonName: 'node1', use: ['client'] }),
  }
}

function serverTls(keys: Pki, clientCertificate: 'none' | 'request' | 'require') {
  return { cert: keys.server.certificate, key: keys.server.key, ca: keys.ca.certificate, clientCertificate }
}

test('TLS offers h2 and http/1.1, and the client certificate has a name', async () => {
  const keys = await pki()
  const { server, port } = await start({ tls: serverTls(keys, 'request'), http: httpEcho })
  server.unary('/t.T/Who', (_message, call) => Buffer.from(call.peer.commonName ?? 'nobody'))
  const ca = Buffer.from(keys.ca.certificate)
  const mutual = credentials.createSsl(ca, Buffer.from(keys.client.key), Buffer.from(keys.client.certificate))
  expect(String(await unary(grpcClient(port, mutual), '/t.T/Who', Buffer.alloc(0)))).toBe('node1')
  const anonymous = grpcClient(port, credentials.createSsl(ca))
  expect(String(await unary(anonymous, '/t.T/Who', Buffer.alloc(0)))).toBe('nobody')
  const text = await new Promise<string>((resolve, reject) => {
    https
      .get({ host: 'localhost', port, path: '/health', ca }, (response) => {
        response.setEncoding('utf8').on('data', resolve)
      })
      .on('error', reject)
  })
  expect(text).toBe('GET /health 0')
  const session = http2.connect(`https://localhost:${port}`, { ca })
  open.push(session)
  expect((await h2Request(session, { ':path': '/health' })).text).toBe('GET /health 0')
  const big = Buffer.alloc(2_000_000, 'y')
  expect((await unary(anonymous, '/t.T/Echo', big)).equals(big)).toBe(true)
})

test('a client without a certificate is turned away where one is required', async () => {
  const keys = await pki()
  const stranger = await pki()
  const { port, server } = await start({ tls: serverTls(keys, 'require'), limits: { handshakesMax: 1 } })
  const ca = Buffer.from(keys.ca.certificate)
  const attempt = (creds: ChannelCredentials) =>
    failureOf(unary(grpcClient(port, creds), '/t.T/Echo', Buffer.from('x'), { deadlineMs: 3000 }))
  expect((await attempt(credentials.createSsl(ca))).code).not.toBe(0)
  const wrong = credentials.createSsl(
    ca,
    Buffer.from(stranger.client.key),
    Buffer.from(stranger.client.certificate),
  )
  expect((await attempt(wrong)).code).not.toBe(0)
  // A handshake that never ends keeps nobody else out for long, and failed ones are not counted for ever.
  const right = credentials.createSsl(ca, Buffer.from(keys.client.key), Buffer.from(keys.client.certificate))
  expect((await attempt(right)).code).toBe(0)
  expect(server.stats().connections).toBe(1)
})

test('a renewed certificate is used for new connections', async () => {
  const [before, after] = [await pki(), await pki()]
  const { server, port } = await start({ tls: serverTls(before, 'none') })
  const trusting = (keys: Pki) => grpcClient(port, credentials.createSsl(Buffer.from(keys.ca.certificate)))
  const old = trusting(before)
  await unary(old, '/t.T/Echo', Buffer.from('x'))
  server.renewTls(serverTls(after, 'none'))
  await unary(trusting(after), '/t.T/Echo', Buffer.from('x'))
  await unary(old, '/t.T/Echo', Buffer.from('x'))
})

test('closing lets an HTTP/1.1 request finish and does not wait for idle connections', async () => {
  let finish = () => {}
  const { server, port } = await start({
    http: (request, response) => {
      if (request.url === '/idle') response.end('idle')
      else finish = () => response.end('finished')
    },
  })
  await (await fetch(`http://127.0.0.1:${port}/idle`)).text()
  const slow = fetch(`http://127.0.0.1:${port}/slow`)
  await expect.poll(() => server.stats().connections).toBe(2)
  await new Promise((resolve) => setTimeout(resolve, 20))
  const closing = server.close()
  finish()
  expect(await (await slow).text()).toBe('finished')
  await closing
})

test('a port that is taken is an error of listen', async () => {
  const { port } = await start()
  await expect(createWireServer().listen({ host: '127.0.0.1', port })).rejects.toThrow(/EADDRINUSE/)
})

test('connections beyond the limit are closed', async () => {
  const { port } = await start({ limits: { connectionsMax: 1 } })
  const client = grpcClient(port)
  await unary(client, '/t.T/Echo', Buffer.from('x'))
  const second = net.connect(port, '127.0.0.1')
  second.on('error', () => {})
  await new Promise((resolve) => second.once('close', resolve))
})

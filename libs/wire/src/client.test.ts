import {
  Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerUnaryCall,
} from '@grpc/grpc-js'
import { createCa, issueCertificate } from '@kiln/pki'
import { afterEach, expect, test } from 'vitest'
import { createWireClient } from './client.ts'
import type { WireClient, WireClientOptions } from './client-options.ts'
import { CallError, GrpcError, grpcCode } from './grpc/status.ts'
import { errorCode, frameFlag, frameType, setting } from './http2/frames.ts'
import { grpcHead } from './http2/hpack-encoder.ts'
import { createWireServer, type WireServer, type WireServerOptions } from './server.ts'
import { type RawServer, rawServer } from './testing/raw-server.ts'

const open: { close(): unknown }[] = []

afterEach(async () => {
  for (const thing of open.splice(0).reverse()) await thing.close()
})

function clientOf(port: number, options: Partial<WireClientOptions> = {}): WireClient {
  const client = createWireClient({ host: '127.0.0.1', port, ...options })
  open.push(client)
  return client
}

async function start(options: WireServerOptions = {}): Promise<{ server: WireServer; port: number }> {
  const server = createWireServer(options)
  server.unary('/t.T/Echo', (message) => message)
  server.unary('/t.T/Never', () => undefined)
  server.unary('/t.T/Fail', () => {
    throw new GrpcError(grpcCode.notFound, 'naïve ☃ 100 %')
  })
  server.stream('/t.T/Chat', (call) => ({
    onMessage: (message) => void call.send(message),
    onEnd: () => call.end(),
  }))
  const { port } = await server.listen({ host: '127.0.0.1', port: 0 })
  open.push({ close: () => server.close({ graceMs: 0 }) })
  return { server, port }
}

async function raw(options?: { settings?: boolean }): Promise<RawServer> {
  const server = await rawServer(options)
  open.push(server)
  return server
}

async function errorOf(promise: Promise<unknown>): Promise<CallError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  if (!(error instanceof CallError)) throw new Error(`no CallError: ${String(error)}`)
  return error
}

/** A stream with what it heard. */
function listen(client: WireClient, path = '/t.T/Chat') {
  const heard: Uint8Array[] = []
  let end: (error: CallError | undefined) => void = () => {}
  const closed = new Promise<CallError | undefined>((resolve) => {
    end = resolve
  })
  let drained = 0
  const stream = client.stream(path, {
    onMessage: (message) => heard.push(message),
    onDrain: () => drained++,
    onClose: (error) => end(error),
  })
  return { stream, heard, closed, drains: () => drained }
}

async function grpcJs(): Promise<number> {
  const identity = (bytes: Buffer) => bytes
  const method = (path: string, streams: boolean) => ({
    path,
    requestStream: streams,
    responseStream: streams,
    requestSerialize: identity,
    requestDeserialize: identity,
    responseSerialize: identity,
    responseDeserialize: identity,
  })
  const server = new Server({ 'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1 })
  server.addService(
    {
      Echo: method('/t.T/Echo', false),
      About: method('/t.T/About', false),
      Fail: method('/t.T/Fail', false),
      Never: method('/t.T/Never', false),
      Chat: method('/t.T/Chat', true),
    },
    {
      Echo: (call: ServerUnaryCall<Buffer, Buffer>, done: (e: null, answer: Buffer) => void) =>
        done(null, call.request),
      About: (call: ServerUnaryCall<Buffer, Buffer>, done: (e: null, answer: Buffer) => void) =>
        done(
          null,
          Buffer.from(
            JSON.stringify({ ...call.metadata.getMap(), deadline: Number(call.getDeadline()) - Date.now() }),
          ),
        ),
      Fail: (_call: unknown, done: (e: object) => void) => {
        const metadata = new Metadata()
        metadata.set('x-more', 'y'.repeat(3000))
        done({ code: grpcCode.notFound, details: 'naïve ☃ 100 %', metadata })
      },
      Never: () => {},
      Chat: (call: ServerDuplexStream<Buffer, Buffer>) => {
        call.on('data', (message) => call.write(message))
        call.on('end', () => call.end())
        call.on('error', () => {})
      },
    },
  )
  open.push({ close: () => server.forceShutdown() })
  return new Promise((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) =>
      error ? reject(error) : resolve(port),
    ),
  )
}

const text = (bytes: Uint8Array | undefined) => Buffer.from(bytes ?? []).toString()

for (const [name, serve] of [
  ['grpc-js', grpcJs],
  ['our server', async () => (await start()).port],
] as const) {
  test(`with ${name}: unary calls, one after the other and many at once`, async () => {
    const client = clientOf(await serve())
    for (let at = 0; at < 20; at++)
      expect(text(await client.unary('/t.T/Echo', Buffer.from(`m${at}`)))).toBe(`m${at}`)
    const answers = await Promise.all(
      Array.from({ length: 500 }, (_, at) => client.unary('/t.T/Echo', Buffer.from(String(at)))),
    )
    expect(answers.map(text)).toEqual(answers.map((_, at) => String(at)))
    expect((await client.unary('/t.T/Echo', Buffer.alloc(0))).length).toBe(0)
    expect(client.stats()).toMatchObject({ connections: 1, streams: 0, waiting: 0 })
  })

  test(`with ${name}: messages far beyond all windows, both ways`, async () => {
    const client = clientOf(await serve(), { limits: { messageBytesMax: 32 * 1024 * 1024 } })
    const big = Buffer.alloc(name === 'grpc-js' ? 20_000_000 : 2_000_000, 'kiln')
    expect(Buffer.compare(await client.unary('/t.T/Echo', big), big)).toBe(0)
    const { stream, heard, closed, drains } = listen(client)
    const part = Buffer.alloc(300_000, 'x')
    for (let at = 0; at < 30; at++) stream.send(part)
    expect(stream.writable).toBe(false)
    stream.end()
    expect(await closed).toBeUndefined()
    expect(heard.map((message) => message.length)).toEqual(Array.from({ length: 30 }, () => 300_000))
    expect(drains()).toBe(0)
  })

  test(`with ${name}: a status comes with its text`, async () => {
    const error = await errorOf(clientOf(await serve()).unary('/t.T/Fail', Buffer.from('x')))
    expect(error).toMatchObject({ code: grpcCode.notFound, message: 'naïve ☃ 100 %', effect: 'answered' })
    const missing = await errorOf(clientOf(await serve()).unary('/t.T/Missing', Buffer.from('x')))
    expect(missing).toMatchObject({ code: grpcCode.unimplemented, effect: 'answered' })
  })

  test(`with ${name}: a deadline, a cancelled call and a cancelled stream`, async () => {
    const client = clientOf(await serve())
    const late = await errorOf(client.unary('/t.T/Never', Buffer.from('x'), { timeoutMs: 150 }))
    expect(late.code).toBe(grpcCode.deadlineExceeded)
    expect(late.effect).not.toBe('none')
    const { stream, heard, closed } = listen(client)
    stream.send(Buffer.from('one'))
    await expect.poll(() => heard.length).toBe(1)
    stream.cancel()
    expect(await closed).toMatchObject({ code: grpcCode.cancelled, effect: 'unknown' })
    expect(stream.open).toBe(false)
    const error = await new Promise<CallError | undefined>((resolve) => {
      const giveUp = client.request('/t.T/Never', Buffer.from('x'), resolve)
      setImmediate(giveUp)
    })
    expect(error?.code).toBe(grpcCode.cancelled)
    expect(client.stats().streams).toBe(0)
    expect(text(await client.unary('/t.T/Echo', Buffer.from('still there')))).toBe('still there')
  })
}

test('grpc-js hears the headers and the deadline', async () => {
  const client = clientOf(await grpcJs())
  for (let at = 0; at < 3; at++) {
    const headers = [
      ['token', 'secret.1'],
      ['x-own', `mine ${at}`],
    ] as const
    const about = JSON.parse(
      text(await client.unary('/t.T/About', Buffer.from('x'), { timeoutMs: 20_000, headers })),
    )
    expect(about).toMatchObject({ token: 'secret.1', 'x-own': `mine ${at}` })
    expect(about.deadline).toBeGreaterThan(10_000)
    expect(about.deadline).toBeLessThanOrEqual(20_000)
  }
  expect(() => client.stream('no path', { onMessage() {}, onClose() {} })).toThrow(/path/)
})

test('over TLS the certificate is checked against the host, and material is asked for at each connection', async () => {
  const ca = await createCa({ name: 'cluster', days: 1, now: new Date() })
  const subject = { days: 1, now: new Date(), commonName: 'store' }
  const pair = await issueCertificate(ca, { ...subject, names: ['127.0.0.1'], use: ['server'] })
  const { server, port } = await start({ tls: { cert: pair.certificate, key: pair.key } })
  let asked = 0
  const client = clientOf(port, { tls: () => ({ ca: asked++ === 0 ? 'no certificate' : ca.certificate }) })
  const refused = await errorOf(client.unary('/t.T/Echo', Buffer.from('x')))
  expect(refused).toMatchObject({ code: grpcCode.unavailable, effect: 'none' })
  await client.whenConnected(5000)
  expect(text(await client.unary('/t.T/Echo', Buffer.from('x')))).toBe('x')
  const other = await issueCertificate(ca, { ...subject, names: ['10.0.0.1'], use: ['server'] })
  server.renewTls({ cert: other.certificate, key: other.key })
  client.reconnect()
  const misled = await errorOf(client.unary('/t.T/Echo', Buffer.from('x')))
  expect(misled).toMatchObject({ code: grpcCode.unavailable, effect: 'none' })
  expect(misled.message).toMatch(/10\.0\.0\.1|altnames/)
  expect(asked).toBe(3)
})

test('reconnecting ends streams and lets unary calls finish', async () => {
  const { server, port } = await start()
  let answer: (message: Uint8Array) => void = () => {}
  server.unary('/t.T/Slow', () => new Promise((resolve) => (answer = resolve)))
  const client = clientOf(port)
  const slow = client.unary('/t.T/Slow', Buffer.from('x'))
  const { stream, heard, closed } = listen(client)
  stream.send(Buffer.from('x'))
  await expect.poll(() => heard.length).toBe(1)
  client.reconnect()
  expect(await closed).toMatchObject({ code: grpcCode.unavailable })
  expect(text(await client.unary('/t.T/Echo', Buffer.from('new')))).toBe('new')
  expect(client.stats().connections).toBe(2)
  answer(Buffer.from('old'))
  expect(text(await slow)).toBe('old')
  await expect.poll(() => client.stats().connections).toBe(1)
})

test('GOAWAY: calls above its number were not looked at, those below go on, new ones go elsewhere', async () => {
  const server = await raw()
  const client = clientOf(server.port)
  const first = client.unary('/t.T/Echo', Buffer.from('1'))
  const second = client.unary('/t.T/Echo', Buffer.from('2'))
  const connection = await server.connection(0)
  await connection.nextHeaders(1)
  await connection.nextHeaders(3)
  connection.goAway(1, errorCode.noError)
  expect(await errorOf(second)).toMatchObject({ code: grpcCode.unavailable, effect: 'none' })
  const third = client.unary('/t.T/Echo', Buffer.from('3'))
  const another = await server.connection(1)
  another.answer((await another.nextHeaders()).streamId, Buffer.from('third'))
  expect(text(await third)).toBe('third')
  connection.answer(1, Buffer.from('first'))
  expect(text(await first)).toBe('first')
  await connection.closed
})

test('a refused stream had no effect; a reset or lost one may have had', async () => {
  const server = await raw()
  const client = clientOf(server.port)
  const calls = ['1', '2', '3'].map((message) => errorOf(client.unary('/t.T/Echo', Buffer.from(message))))
  const connection = await server.connection(0)
  await connection.nextHeaders(5)
  const reset = (streamId: number, code: number) => {
    const payload = Buffer.alloc(4)
    payload.writeUInt32BE(code)
    connection.frame(frameType.rstStream, 0, streamId, payload)
  }
  reset(1, errorCode.refusedStream)
  reset(3, errorCode.internalError)
  expect(await calls[0]).toMatchObject({ code: grpcCode.unavailable, effect: 'none' })
  expect(await calls[1]).toMatchObject({ code: grpcCode.internal, effect: 'unknown' })
  connection.socket.destroy()
  expect(await calls[2]).toMatchObject({ code: grpcCode.unavailable, effect: 'unknown' })
})

test('an answer in full is taken although the rest of the request is not wanted', async () => {
  const server = await raw()
  const client = clientOf(server.port)
  const { stream, heard, closed } = listen(client)
  stream.send(Buffer.from('x'))
  const connection = await server.connection(0)
  await connection.nextHeaders(1)
  connection.answer(1, Buffer.from('enough'))
  connection.frame(frameType.rstStream, 0, 1, Buffer.alloc(4))
  expect(await closed).toBeUndefined()
  expect(heard.map(text)).toEqual(['enough'])
})

test('calls keep to the number of streams the server allows, in order', async () => {
  const server = await raw({ settings: false })
  const client = clientOf(server.port)
  const answers = Array.from({ length: 5 }, (_, at) => client.unary('/t.T/Echo', Buffer.from(String(at))))
  const connection = await server.connection(0)
  connection.settings([[setting.maxConcurrentStreams, 2]])
  await connection.nextHeaders(3)
  await new Promise((resolve) => setTimeout(resolve, 20))
  expect(client.stats()).toMatchObject({ streams: 2, waiting: 3 })
  for (const streamId of [1, 3, 5, 7, 9]) {
    const { payload } = await connection.next(frameType.data, streamId)
    connection.answer(streamId, payload.subarray(5))
  }
  expect((await Promise.all(answers)).map(text)).toEqual(['0', '1', '2', '3', '4'])
})

test('what waits is bounded, and times out where it waits', async () => {
  const server = await raw({ settings: false })
  const client = clientOf(server.port, { waitingCallsMax: 2 })
  const waiting = [1, 2].map(() => errorOf(client.unary('/t.T/Echo', Buffer.from('x'), { timeoutMs: 100 })))
  expect(await errorOf(client.unary('/t.T/Echo', Buffer.from('x')))).toMatchObject({
    code: grpcCode.resourceExhausted,
    effect: 'none',
  })
  for (const call of waiting)
    expect(await call).toMatchObject({ code: grpcCode.deadlineExceeded, effect: 'none' })
})

test('nobody listening, a server that says nothing, and one that comes back', async () => {
  const { server, port } = await start()
  await server.close({ graceMs: 0 })
  const client = clientOf(port, { backoffMinMs: 20 })
  expect(await errorOf(client.unary('/t.T/Echo', Buffer.from('x')))).toMatchObject({
    code: grpcCode.unavailable,
    effect: 'none',
  })
  expect((await errorOf(client.whenConnected(60))).message).toMatch(/ECONNREFUSED/)
  const again = createWireServer()
  again.unary('/t.T/Echo', (message) => message)
  const connected = client.whenConnected(10_000)
  await again.listen({ host: '127.0.0.1', port })
  open.push({ close: () => again.close({ graceMs: 0 }) })
  await connected
  expect(text(await client.unary('/t.T/Echo', Buffer.from('back')))).toBe('back')
  const silent = await raw({ settings: false })
  const patient = clientOf(silent.port, { limits: { handshakeTimeoutMs: 50 } })
  expect((await errorOf(patient.unary('/t.T/Echo', Buffer.from('x')))).message).toMatch(/within 50 ms/)
  await (await silent.connection(0)).closed
})

test('a server that went silent is pinged while a call is open, and given up', async () => {
  const server = await raw()
  const client = clientOf(server.port, { limits: { keepAliveIntervalMs: 40, keepAliveTimeoutMs: 60 } })
  const call = errorOf(client.unary('/t.T/Echo', Buffer.from('x')))
  const connection = await server.connection(0)
  const { payload } = await connection.next(frameType.ping)
  connection.frame(frameType.ping, frameFlag.ack, 0, payload)
  await connection.next(frameType.ping)
  expect(await call).toMatchObject({ code: grpcCode.unavailable, effect: 'unknown' })
  expect((await call).message).toMatch(/ping/)
  await connection.closed
  const idle = await raw()
  const quiet = clientOf(idle.port, { limits: { keepAliveIntervalMs: 10, keepAliveTimeoutMs: 10 } })
  await quiet.whenConnected(5000)
  await new Promise((resolve) => setTimeout(resolve, 60))
  expect((await idle.connection(0)).frames.filter(({ type }) => type === frameType.ping)).toEqual([])
})

test('a paused stream holds the server to its window and loses nothing', async () => {
  const { server, port } = await start()
  let sent = 0
  server.stream('/t.T/Flood', (call) => {
    const pump = () => {
      while (sent < 400 && call.send(Buffer.alloc(10_000, sent++ & 0xff)));
      if (sent >= 400) call.end()
    }
    setImmediate(pump)
    return { onDrain: pump }
  })
  const client = clientOf(port)
  const { stream, heard, closed } = listen(client, '/t.T/Flood')
  stream.pause()
  await expect.poll(() => sent).toBeGreaterThan(100)
  await new Promise((resolve) => setTimeout(resolve, 50))
  expect(sent).toBeLessThan(200)
  expect(heard).toEqual([])
  stream.resume()
  expect(await closed).toBeUndefined()
  expect(heard.map((message) => message[0])).toEqual(Array.from({ length: 400 }, (_, at) => at & 0xff))
})

test('closing ends calls, streams and a connection that is only coming', async () => {
  const server = await raw({ settings: false })
  const coming = clientOf(server.port)
  const waiting = errorOf(coming.unary('/t.T/Echo', Buffer.from('x')))
  const connection = await server.connection(0)
  coming.close()
  expect(await waiting).toMatchObject({ code: grpcCode.unavailable, effect: 'none' })
  await connection.closed
  const client = clientOf((await start()).port)
  await client.whenConnected(5000)
  const never = errorOf(client.unary('/t.T/Never', Buffer.from('x')))
  const unsent = client.stream('/t.T/Chat', { onMessage() {}, onClose() {} })
  await new Promise((resolve) => setTimeout(resolve, 20))
  client.close()
  expect(await never).toMatchObject({ code: grpcCode.unavailable, effect: 'unknown' })
  expect(unsent.open).toBe(false)
  expect((await errorOf(client.unary('/t.T/Echo', Buffer.from('x')))).message).toMatch(/closed/)
})

test('answers that are none of gRPC end the call with what they mean', async () => {
  const server = await raw()
  const client = clientOf(server.port)
  const connection = (await Promise.all([server.connection(0), client.whenConnected(5000)]))[0]
  const end = frameFlag.endHeaders | frameFlag.endStream
  const cases: [fields: [string, string][], flags: number, code: number][] = [
    [[[':status', '503']], end, grpcCode.unavailable],
    [[[':status', '403']], frameFlag.endHeaders, grpcCode.permissionDenied],
    [
      [
        [':status', '200'],
        ['content-type', 'text/html'],
      ],
      frameFlag.endHeaders,
      grpcCode.unknown,
    ],
    [
      [
        [':status', '200'],
        ['content-type', 'application/grpc'],
      ],
      end,
      grpcCode.unknown,
    ],
    [
      [
        [':status', '200'],
        ['content-type', 'application/grpc'],
        ['grpc-status', 'x'],
      ],
      end,
      grpcCode.unknown,
    ],
    [[['content-type', 'application/grpc']], frameFlag.endHeaders, grpcCode.unknown],
    [[[':status', 'abc']], frameFlag.endHeaders, grpcCode.internal],
  ]
  for (const [fields, flags, code] of cases) {
    const call = errorOf(client.unary('/t.T/Echo', Buffer.from('x')))
    const { streamId } = await connection.nextHeaders()
    connection.headers(streamId, fields, flags)
    expect(await call, JSON.stringify(fields)).toMatchObject({ code, effect: 'unknown' })
  }
  expect(client.stats()).toMatchObject({ connections: 1, streams: 0 })
})

test('a unary answer has one message, no larger than allowed', async () => {
  const { server, port } = await start()
  server.stream('/t.T/Two', (call) => ({
    onEnd() {
      call.send(Buffer.from('1'))
      call.send(Buffer.from('2'))
      call.end()
    },
  }))
  server.stream('/t.T/None', (call) => ({ onEnd: () => call.end() }))
  const client = clientOf(port, { limits: { messageBytesMax: 1000 } })
  expect(await errorOf(client.unary('/t.T/Two', Buffer.from('x')))).toMatchObject({ code: grpcCode.internal })
  expect(await errorOf(client.unary('/t.T/None', Buffer.from('x')))).toMatchObject({
    code: grpcCode.internal,
  })
  const large = await errorOf(client.unary('/t.T/Echo', Buffer.alloc(1001)))
  expect(large).toMatchObject({ code: grpcCode.resourceExhausted, effect: 'unknown' })
  expect((await client.unary('/t.T/Echo', Buffer.alloc(1000))).length).toBe(1000)
})

test('a few bytes that decode to an endless header list end the call, not the memory', async () => {
  const server = await raw()
  const client = clientOf(server.port)
  const call = errorOf(client.unary('/t.T/Echo', Buffer.from('x')))
  const connection = await server.connection(0)
  const { streamId } = await connection.nextHeaders()
  // `:status: 200`, then a field of 4000 bytes for the table, then that entry over and over.
  const value = Buffer.concat([Buffer.from([0x40, 1, 0x62, 0x7f, 0xa1, 0x1e]), Buffer.alloc(4000, 'b')])
  const block = Buffer.concat([Buffer.from([0x88]), value, Buffer.alloc(10_000, 0xbe)])
  connection.frame(frameType.headers, frameFlag.endHeaders, streamId, block)
  expect(await call).toMatchObject({ code: grpcCode.resourceExhausted, effect: 'unknown' })
  const next = client.unary('/t.T/Echo', Buffer.from('x'))
  connection.answer((await connection.nextHeaders()).streamId, Buffer.from('fine'))
  expect(text(await next)).toBe('fine')
})

test('a server that sends frames that carry nothing is left, a stream beyond its window given up', async () => {
  const server = await raw()
  const client = clientOf(server.port, {
    limits: { idleFramesBurst: 20, idleFramesPerSecond: 1, streamWindowBytes: 65_535 },
  })
  const full = listen(client)
  const other = listen(client)
  full.stream.pause()
  const connection = await server.connection(0)
  await connection.nextHeaders(3)
  connection.headers(1, grpcHead)
  for (let at = 0; at < 5; at++) connection.frame(frameType.data, 0, 1, Buffer.alloc(16_384))
  expect(await full.closed).toMatchObject({ code: grpcCode.internal, effect: 'unknown' })
  expect((await connection.next(frameType.rstStream, 1)).payload.readUInt32BE()).toBe(
    errorCode.flowControlError,
  )
  for (let at = 0; at < 50; at++) connection.frame(frameType.ping, 0, 0, Buffer.alloc(8))
  expect(await other.closed).toMatchObject({ code: grpcCode.unavailable, effect: 'unknown' })
  await connection.closed
})

import { afterEach, expect, test } from 'vitest'
import { createWireServer, type WireServer, type WireServerOptions } from '../server.ts'
import { grpcMessage, grpcRequest, type RawClient, rawClient } from '../testing/raw-client.ts'
import { errorCode, frameFlag, frameType, preface, setting } from './frames.ts'

const open: { close(): unknown }[] = []

afterEach(async () => {
  for (const thing of open.splice(0).reverse()) await thing.close()
})

async function start(options: WireServerOptions = {}): Promise<{ server: WireServer; port: number }> {
  const server = createWireServer(options)
  server.unary('/t.T/Echo', (message) => message)
  server.unary('/t.T/Never', () => undefined)
  server.unary('/t.T/Big', (message) => Buffer.alloc(Buffer.from(message).readUInt32BE(0), 'b'))
  server.stream('/t.T/Chat', (call) => ({
    onMessage: (message) => void call.send(message),
    onEnd: () => call.end(),
  }))
  const { port } = await server.listen({ host: '127.0.0.1', port: 0 })
  open.push({ close: () => server.close({ graceMs: 0 }) })
  return { server, port }
}

async function connect(port: number, options?: { preface?: boolean }): Promise<RawClient> {
  const client = await rawClient(port, options)
  open.push({ close: () => client.socket.destroy() })
  return client
}

const { data, headers, rstStream, settings, ping, windowUpdate, continuation, priority } = frameType
const whole = frameFlag.endHeaders | frameFlag.endStream

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

async function echo(client: RawClient, streamId: number, text: string): Promise<string> {
  client.headers(streamId, grpcRequest('/t.T/Echo'))
  client.frame(data, frameFlag.endStream, streamId, grpcMessage(Buffer.from(text)))
  await client.nextHeaders(streamId)
  const { payload } = await client.next(data, streamId)
  expect((await client.nextHeaders(streamId))['grpc-status']).toBe('0')
  return payload.toString('utf8', 5)
}

test('a request that comes byte by byte is answered', async () => {
  const client = await connect((await start()).port, { preface: false })
  const sent: Buffer[] = []
  const write = client.socket.write.bind(client.socket)
  client.socket.write = (bytes: Uint8Array | string) => sent.push(Buffer.from(bytes as Uint8Array)) > 0
  client.bytes(preface)
  client.settings([])
  client.headers(1, grpcRequest('/t.T/Echo'))
  client.frame(data, frameFlag.endStream, 1, grpcMessage(Buffer.from('slow')))
  for (const byte of Buffer.concat(sent)) {
    write(Uint8Array.of(byte))
    await new Promise(setImmediate)
  }
  await client.nextHeaders(1)
  expect((await client.next(data, 1)).payload.toString('utf8', 5)).toBe('slow')
})

test('padding, priority and CONTINUATION frames are taken apart', async () => {
  const client = await connect((await start()).port)
  const blocks: Buffer[] = []
  const frame = client.frame
  client.frame = (_type, _flags, _id, payload) => blocks.push(Buffer.from(payload!))
  client.headers(1, grpcRequest('/t.T/Echo'))
  client.frame = frame
  const block = blocks[0]!
  const padded = Buffer.concat([Uint8Array.of(3), Buffer.alloc(5), block.subarray(0, 10), Buffer.alloc(3)])
  client.frame(headers, frameFlag.padded | frameFlag.priority, 1, padded)
  client.frame(continuation, 0, 1, block.subarray(10, 20))
  client.frame(continuation, 0, 1)
  client.frame(continuation, frameFlag.endHeaders, 1, block.subarray(20))
  const message = grpcMessage(Buffer.from('padded'))
  client.frame(data, frameFlag.padded, 1, Buffer.concat([Uint8Array.of(7), message, Buffer.alloc(7)]))
  client.frame(data, frameFlag.endStream, 1)
  await client.nextHeaders(1)
  expect((await client.next(data, 1)).payload.toString('utf8', 5)).toBe('padded')
})

test('SETTINGS and PING are acknowledged, unknown frames are ignored', async () => {
  const client = await connect((await start()).port)
  const ours = await client.next(settings)
  expect(ours.flags).toBe(0)
  client.frame(0x7f, 0xff, 9, Buffer.from('whatever'))
  client.frame(ping, 0, 0, Buffer.from('12345678'))
  expect((await client.next(settings)).flags).toBe(frameFlag.ack)
  expect(await client.next(ping)).toMatchObject({ flags: frameFlag.ack, payload: Buffer.from('12345678') })
  expect(await echo(client, 1, 'still here')).toBe('still here')
})

test('an answer waits for the window of its stream and of the connection', async () => {
  const client = await connect((await start()).port)
  client.settings([[setting.initialWindowSize, 10]])
  client.headers(1, grpcRequest('/t.T/Big'))
  client.frame(data, frameFlag.endStream, 1, grpcMessage(uint32(70_000)))
  await client.nextHeaders(1)
  expect((await client.next(data, 1)).payload).toHaveLength(10)
  client.frame(windowUpdate, 0, 1, uint32(20))
  expect((await client.next(data, 1)).payload).toHaveLength(20)
  // Opening the initial window opens those of streams there are.
  client.settings([[setting.initialWindowSize, 100_000]])
  let received = 30
  while (received < 65_535) received += (await client.next(data, 1)).payload.length
  expect(received).toBe(65_535)
  // Another stream cannot pass the connection's window, but an answer without content can.
  client.headers(3, grpcRequest('/t.T/None'), whole)
  expect((await client.nextHeaders(3))['grpc-status']).toBe('12')
  client.frame(windowUpdate, 0, 0, uint32(100_000))
  while (received < 70_005) received += (await client.next(data, 1)).payload.length
  expect((await client.nextHeaders(1))['grpc-status']).toBe('0')
})

test('streams with much to send take turns', async () => {
  const client = await connect((await start()).port)
  client.settings([[setting.initialWindowSize, 1_000_000]])
  for (const streamId of [1, 3]) {
    client.headers(streamId, grpcRequest('/t.T/Big'))
    client.frame(data, frameFlag.endStream, streamId, grpcMessage(uint32(100_000)))
  }
  client.frame(windowUpdate, 0, 0, uint32(1_000_000))
  await Promise.all([client.next(rstStream, 99), client.nextHeaders(3), client.nextHeaders(1)].slice(1))
  const order: number[] = []
  for (let at = 0; at < 6; at++) order.push((await client.next(data)).streamId)
  expect(new Set(order)).toEqual(new Set([1, 3]))
})

const connectionErrors: [string, number, (client: RawClient) => void][] = [
  ['a frame too large', errorCode.frameSizeError, (client) => client.frame(data, 0, 1, Buffer.alloc(16_385))],
  ['a PING of seven bytes', errorCode.frameSizeError, (client) => client.frame(ping, 0, 0, Buffer.alloc(7))],
  [
    'SETTINGS of five bytes',
    errorCode.frameSizeError,
    (client) => client.frame(settings, 0, 0, Buffer.alloc(5)),
  ],
  ['SETTINGS on a stream', errorCode.protocolError, (client) => client.frame(settings, 0, 1)],
  [
    'a window of 2^31',
    errorCode.flowControlError,
    (client) => client.settings([[setting.initialWindowSize, 2 ** 31]]),
  ],
  [
    'a frame size below the least',
    errorCode.protocolError,
    (client) => client.settings([[setting.maxFrameSize, 1]]),
  ],
  ['DATA on an idle stream', errorCode.protocolError, (client) => client.frame(data, 0, 5, Buffer.alloc(1))],
  [
    'RST_STREAM on an idle stream',
    errorCode.protocolError,
    (client) => client.frame(rstStream, 0, 5, uint32(8)),
  ],
  [
    'a window update of zero',
    errorCode.protocolError,
    (client) => client.frame(windowUpdate, 0, 0, uint32(0)),
  ],
  [
    'a window grown too large',
    errorCode.flowControlError,
    (client) => client.frame(windowUpdate, 0, 0, uint32(2 ** 31 - 1)),
  ],
  ['HEADERS on an even stream', errorCode.protocolError, (client) => client.headers(2, grpcRequest('/'))],
  ['PUSH_PROMISE', errorCode.protocolError, (client) => client.frame(frameType.pushPromise, 4, 1, uint32(2))],
  [
    'CONTINUATION without HEADERS',
    errorCode.protocolError,
    (client) => client.frame(continuation, 4, 1, Buffer.alloc(1)),
  ],
  [
    'another frame within a header block',
    errorCode.protocolError,
    (client) => {
      client.headers(1, grpcRequest('/t.T/Echo'), 0)
      client.frame(ping, 0, 0, Buffer.alloc(8))
    },
  ],
  [
    'padding longer than its frame',
    errorCode.protocolError,
    (client) => {
      client.headers(1, grpcRequest('/t.T/Echo'))
      client.frame(data, frameFlag.padded, 1, Uint8Array.of(5, 1, 2))
    },
  ],
  [
    'a broken header block',
    errorCode.compressionError,
    (client) => client.frame(headers, 4, 1, Uint8Array.of(0x80)),
  ],
]

for (const [what, code, misbehave] of connectionErrors) {
  test(`${what} ends the connection`, async () => {
    const client = await connect((await start()).port)
    misbehave(client)
    expect((await client.goAway()).code).toBe(code)
    await client.closed
  })
}

test('a client that does not begin with SETTINGS is sent away', async () => {
  const client = await connect((await start()).port, { preface: false })
  client.bytes(preface)
  client.frame(ping, 0, 0, Buffer.alloc(8))
  expect((await client.goAway()).code).toBe(errorCode.protocolError)
})

const malformed: [string, [string, string][]][] = [
  [
    'no method',
    [
      [':path', '/'],
      [':scheme', 'http'],
    ],
  ],
  [
    'a repeated path',
    [
      [':method', 'POST'],
      [':path', '/'],
      [':path', '/'],
      [':scheme', 'http'],
    ],
  ],
  [
    'a pseudo-header after others',
    [
      [':method', 'POST'],
      [':scheme', 'http'],
      ['a', 'b'],
      [':path', '/'],
    ],
  ],
  [
    'an unknown pseudo-header',
    [
      [':method', 'POST'],
      [':scheme', 'http'],
      [':path', '/'],
      [':x', 'y'],
    ],
  ],
  [
    'an upper-case name',
    [
      [':method', 'POST'],
      [':scheme', 'http'],
      [':path', '/'],
      ['Upper', 'y'],
    ],
  ],
  [
    'a connection header',
    [
      [':method', 'POST'],
      [':scheme', 'http'],
      [':path', '/'],
      ['connection', 'close'],
    ],
  ],
  [
    'te: gzip',
    [
      [':method', 'POST'],
      [':scheme', 'http'],
      [':path', '/'],
      ['te', 'gzip'],
    ],
  ],
]

for (const [what, fields] of malformed) {
  test(`a request with ${what} is reset, the connection lives on`, async () => {
    const client = await connect((await start()).port)
    client.headers(1, fields, whole)
    expect((await client.next(rstStream, 1)).payload.readUInt32BE()).toBe(errorCode.protocolError)
    expect(await echo(client, 3, 'next')).toBe('next')
  })
}

test('a stream that overruns its window is reset', async () => {
  const { port, server } = await start({ limits: { streamWindowBytes: 20_000 } })
  server.stream('/t.T/Paused', (call) => {
    call.pause()
    return {}
  })
  const client = await connect(port)
  client.headers(1, grpcRequest('/t.T/Paused'))
  client.frame(data, 0, 1, grpcMessage(Buffer.alloc(16_000)))
  client.frame(data, 0, 1, Buffer.alloc(16_000))
  expect((await client.next(rstStream, 1)).payload.readUInt32BE()).toBe(errorCode.flowControlError)
  expect(await echo(client, 3, 'next')).toBe('next')
})

test('a request cancelled in the same breath is not carried out', async () => {
  const { port, server } = await start()
  const handled: string[] = []
  server.unary('/t.T/Note', (message) => {
    handled.push(String(message))
    return message
  })
  const client = await connect(port)
  await echo(client, 1, 'warm')
  client.socket.cork()
  for (const [streamId, text] of [
    [3, 'cancelled'],
    [5, 'wanted'],
  ] as const) {
    client.headers(streamId, grpcRequest('/t.T/Note'))
    client.frame(data, frameFlag.endStream, streamId, grpcMessage(Buffer.from(text)))
  }
  client.frame(rstStream, 0, 3, uint32(errorCode.cancel))
  client.socket.uncork()
  expect((await client.nextHeaders(5))[':status']).toBe('200')
  expect(handled).toEqual(['wanted'])
})

test('more streams than allowed are refused', async () => {
  const { port } = await start({ limits: { streamsMax: 2 } })
  const client = await connect(port)
  for (const streamId of [1, 3, 5]) client.headers(streamId, grpcRequest('/t.T/Never'))
  expect((await client.next(rstStream, 5)).payload.readUInt32BE()).toBe(errorCode.refusedStream)
})

test('streams opened and reset without end are not put up with', async () => {
  const { port, server } = await start({ limits: { resetsBurst: 50, resetsPerSecond: 1 } })
  const client = await connect(port)
  for (let streamId = 1; streamId < 200; streamId += 2) {
    client.headers(streamId, grpcRequest('/t.T/Never'))
    client.frame(rstStream, 0, streamId, uint32(errorCode.cancel))
  }
  expect(await client.goAway()).toEqual({ code: errorCode.enhanceYourCalm, reason: 'too many resets' })
  expect(server.stats().streams).toBe(0)
})

test('floods of frames that carry nothing are not put up with', async () => {
  const { port } = await start({ limits: { idleFramesBurst: 20, idleFramesPerSecond: 1 } })
  const floods: ((client: RawClient) => void)[] = [
    (client) => client.settings([]),
    (client) => client.frame(priority, 0, 1, Buffer.alloc(5)),
    (client) => client.frame(data, 0, 1),
  ]
  for (const flood of floods) {
    const client = await connect(port)
    client.headers(1, grpcRequest('/t.T/Never'))
    for (let at = 0; at < 30; at++) flood(client)
    expect((await client.goAway()).code).toBe(errorCode.enhanceYourCalm)
  }
})

test('pings closer than allowed end the connection with the words clients know', async () => {
  const { port } = await start()
  const client = await connect(port)
  for (let at = 0; at < 4; at++) client.frame(ping, 0, 0, Buffer.alloc(8))
  expect(await client.goAway()).toEqual({ code: errorCode.enhanceYourCalm, reason: 'too_many_pings' })
})

test('a header block without end is cut off', async () => {
  const client = await connect((await start()).port)
  client.headers(1, grpcRequest('/t.T/Echo'), 0)
  for (let at = 0; at < 100; at++) client.frame(continuation, 0, 1)
  expect((await client.goAway()).code).toBe(errorCode.enhanceYourCalm)
})

test('a header list over the limit fails its call only', async () => {
  const { port } = await start({ limits: { headerListBytesMax: 1000 } })
  const client = await connect(port)
  client.headers(1, grpcRequest('/t.T/Echo', [['x', 'y'.repeat(2000)]]), whole)
  expect((await client.nextHeaders(1))['grpc-status']).toBe('8')
  expect(await echo(client, 3, 'next')).toBe('next')
})

test('a reader that never reads cannot make control frames pile up', async () => {
  const errors: string[] = []
  const { port, server } = await start({
    limits: { controlBytesMax: 1024, idleFramesBurst: 1e9, pingIntervalMinMs: 0, socketHighWaterBytes: 1024 },
    onProtocolError: (error) => errors.push(error.message),
  })
  const client = await connect(port)
  client.socket.pause()
  const burst = Buffer.concat(
    Array.from({ length: 2000 }, () => Buffer.from('000008060000000000' + '00'.repeat(8), 'hex')),
  )
  for (let at = 0; at < 400 && errors.length === 0; at++) {
    client.bytes(burst)
    await new Promise(setImmediate)
  }
  await expect.poll(() => errors).toEqual(['the peer does not read our control frames'])
  await expect.poll(() => server.stats().connections).toBe(0)
})

test('a closing server says GOAWAY and lets the last call finish', async () => {
  const server = createWireServer()
  let answer = () => {}
  server.unary('/t.T/Slow', (message, call) => {
    answer = () => call.reply(message)
    return undefined
  })
  const { port } = await server.listen({ host: '127.0.0.1', port: 0 })
  const client = await connect(port)
  client.headers(1, grpcRequest('/t.T/Slow'))
  client.frame(data, frameFlag.endStream, 1, grpcMessage(Buffer.from('late')))
  await expect.poll(() => server.stats().streams).toBe(1)
  await new Promise(setImmediate)
  const closing = server.close()
  expect((await client.goAway()).code).toBe(errorCode.noError)
  client.headers(3, grpcRequest('/t.T/Slow'), whole)
  expect((await client.next(rstStream, 3)).payload.readUInt32BE()).toBe(errorCode.refusedStream)
  answer()
  await client.nextHeaders(1)
  expect((await client.next(data, 1)).payload.toString('utf8', 5)).toBe('late')
  await closing
  await client.closed
})

test('a peer that falls silent is pinged, then given up', async () => {
  let now = 0
  const timers: { at: number; fn: () => void }[] = []
  const clock = {
    now: () => now,
    after(ms: number, fn: () => void) {
      const timer = { at: now + ms, fn }
      timers.push(timer)
      return () => void timers.splice(timers.indexOf(timer), 1)
    },
  }
  const advance = (ms: number) => {
    now += ms
    for (const timer of timers.filter(({ at }) => at <= now)) {
      timers.splice(timers.indexOf(timer), 1)
      timer.fn()
    }
  }
  const { port, server } = await start({
    clock,
    limits: { keepAliveIntervalMs: 60_000, keepAliveTimeoutMs: 5000 },
  })
  const client = await connect(port)
  await echo(client, 1, 'hello')
  advance(60_100)
  expect((await client.next(ping)).flags).toBe(0)
  client.frame(ping, frameFlag.ack, 0, Buffer.alloc(8))
  await echo(client, 3, 'alive')
  advance(60_100)
  await client.next(ping)
  expect(server.stats().connections).toBe(1)
  advance(5100)
  await client.closed
  open.pop()
  open.pop()
  void server.close({ graceMs: 0 })
})

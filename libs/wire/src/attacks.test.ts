import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { errorCode, frameFlag, frameHeaderBytes, frameType, setting } from './http2/frames.ts'
import { HpackEncoder } from './http2/hpack-encoder.ts'
import { OutBuffer } from './http2/out-buffer.ts'
import { createWireServer, type WireServer } from './server.ts'
import { grpcMessage, grpcRequest, type RawClient, rawClient } from './testing/raw-client.ts'

/**
 * The attacks of the HTTP/2 family with the limits that a store runs with: each is sent as fast as it goes for some megabytes. The
 * memory stays bounded, others are served meanwhile, and the attacker gets the answer that RFC 9113 asks for (section 10.5: a
 * connection that does nothing useful may be ended with ENHANCE_YOUR_CALM).
 */
let server: WireServer
let port: number
/** Streams that handlers work for. */
let begun = 0
beforeAll(async () => {
  server = createWireServer()
  server.unary('/t.T/Echo', (message) => message)
  server.unary('/t.T/Big', () => Buffer.alloc(1_000_000))
  server.stream('/t.T/Open', () => {
    begun++
    return { onClose: () => void begun-- }
  })
  ;({ port } = await server.listen({ host: '127.0.0.1', port: 0 }))
})
afterAll(() => server.close({ graceMs: 0 }))

const { data, headers, rstStream, settings, ping, windowUpdate, continuation, priority, goAway } = frameType
/** On a busy machine everything comes later. */
const patience = { timeout: 20_000 }
const memoryMax = 48 * 1024 * 1024

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

function heldBytes(): number {
  collect()
  const { heapUsed, arrayBuffers } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

function frame(type: number, flags: number, streamId: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(frameHeaderBytes)
  head.writeUIntBE(payload.length, 0, 3)
  head[3] = type
  head[4] = flags
  head.writeUInt32BE(streamId, 5)
  return Buffer.concat([head, payload])
}

function uint32(...values: number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length)
  values.forEach((value, at) => void bytes.writeUInt32BE(value, 4 * at))
  return bytes
}

/** A header block whose bytes are the same each time: nothing of it goes into a table. */
function block(path: string): Buffer {
  const out = new OutBuffer()
  new HpackEncoder().encode(out, grpcRequest(path))
  return Buffer.from(out.pending())
}
const openBlock = block('/t.T/Open')

type Attack = {
  name: string
  /** A flood: the bytes of round `at`, sent until the connection ends or this many rounds are through. */
  round(at: number): Uint8Array
  rounds: number
  prepare?(client: RawClient): void
  /** Code of the GOAWAY that ends it; undefined when the connection rightly lives on. */
  code: number | undefined
}

const odd = (at: number): number => 2 * at + 1
const many = (count: number, one: (at: number) => Buffer): Buffer =>
  Buffer.concat(Array.from({ length: count }, (_, at) => one(at)))

/** An entry of 4000 bytes for the table (RFC 7541, section 6.2.1), then indexed again and again (6.1). */
const bombEntry = Buffer.concat([
  Buffer.of(0x40, 1, 0x78, 0x7f, 0xa1, 0x1e),
  Buffer.alloc(4000, 0x79),
  Buffer.alloc(12_000, 0xbe),
])

const calm = errorCode.enhanceYourCalm
const attacks: Attack[] = [
  {
    name: 'rapid reset (CVE-2023-44487)',
    rounds: 500,
    round: (at) =>
      many(100, (one) => {
        const id = odd(at * 100 + one)
        return Buffer.concat([frame(headers, 4, id, openBlock), frame(rstStream, 0, id, uint32(8))])
      }),
    code: calm,
  },
  {
    name: 'made-you-reset by window updates of zero (CVE-2025-8671)',
    rounds: 500,
    round: (at) =>
      many(100, (one) => {
        const id = odd(at * 100 + one)
        return Buffer.concat([frame(headers, 4, id, openBlock), frame(windowUpdate, 0, id, uint32(0))])
      }),
    code: calm,
  },
  {
    name: 'made-you-reset by data after the end',
    rounds: 500,
    round: (at) =>
      many(100, (one) => {
        const id = odd(at * 100 + one)
        return Buffer.concat([frame(headers, 5, id, openBlock), frame(data, 0, id, Buffer.of(0))])
      }),
    code: calm,
  },
  {
    name: 'made-you-reset by a second head',
    rounds: 500,
    round: (at) =>
      many(100, (one) => {
        const id = odd(at * 100 + one)
        return Buffer.concat([frame(headers, 4, id, openBlock), frame(headers, 4, id, openBlock)])
      }),
    code: calm,
  },
  {
    name: 'CONTINUATION flood (CVE-2024-27316)',
    prepare: (client) => client.frame(headers, 0, 1, openBlock),
    rounds: 2000,
    round: () => frame(continuation, 0, 1, Buffer.from('000161800', 'latin1')),
    code: calm,
  },
  {
    name: 'CONTINUATION frames without content',
    prepare: (client) => client.frame(headers, 0, 1, openBlock),
    rounds: 2000,
    round: () => frame(continuation, 0, 1),
    code: calm,
  },
  {
    name: 'settings flood (CVE-2019-9515)',
    rounds: 300,
    round: () => many(100, () => frame(settings, 0, 0, Buffer.concat([Buffer.of(0, 3), uint32(100)]))),
    code: calm,
  },
  {
    name: 'flood of acknowledged settings',
    rounds: 300,
    round: () => many(100, () => frame(settings, frameFlag.ack, 0)),
    code: calm,
  },
  {
    name: 'windows of very many streams moved by settings',
    prepare: (client) => {
      client.bytes(many(20_000, (at) => frame(headers, 4, odd(at), openBlock)))
    },
    rounds: 1000,
    round: (at) => frame(settings, 0, 0, Buffer.concat([Buffer.of(0, 4), uint32(10_000 + (at % 2))])),
    code: calm,
  },
  {
    name: 'ping flood (CVE-2019-9512)',
    rounds: 1000,
    round: () => frame(ping, 0, 0, Buffer.alloc(8)),
    code: calm,
  },
  {
    name: 'flood of pings answered that were never sent',
    rounds: 300,
    round: () => many(100, () => frame(ping, frameFlag.ack, 0, Buffer.alloc(8))),
    code: calm,
  },
  {
    name: 'HPACK bomb (CVE-2016-6581)',
    rounds: 200,
    round: (at) => frame(headers, 5, odd(at), bombEntry),
    code: undefined,
  },
  {
    name: 'a table size beyond what we allow',
    rounds: 1,
    // Section 4.2 of RFC 7541: an update above the limit is a decoding error.
    round: () => frame(headers, 5, 1, Buffer.of(0x3f, 0xe1, 0xff, 0xff, 0x0f)),
    code: errorCode.compressionError,
  },
  {
    name: 'an integer without end in a header block',
    rounds: 1,
    round: () => frame(headers, 5, 1, Buffer.concat([Buffer.of(0x7f), Buffer.alloc(2000, 0xff)])),
    code: errorCode.compressionError,
  },
  {
    name: 'window overflow of a stream',
    prepare: (client) => client.frame(headers, 4, 1, openBlock),
    rounds: 1,
    round: () => frame(windowUpdate, 0, 1, uint32(2 ** 31 - 1)),
    code: errorCode.flowControlError,
  },
  {
    name: 'window overflow of the connection',
    rounds: 1,
    round: () => frame(windowUpdate, 0, 0, uint32(2 ** 31 - 1)),
    code: errorCode.flowControlError,
  },
  {
    name: 'windows grown by crumbs (CVE-2019-9511, data dribble)',
    prepare: (client) => {
      client.settings([[setting.initialWindowSize, 0]])
      client.headers(1, grpcRequest('/t.T/Big'))
      client.frame(data, frameFlag.endStream, 1, grpcMessage(Buffer.alloc(0)))
    },
    rounds: 300,
    round: () => many(100, () => frame(windowUpdate, 0, 1, uint32(1))),
    code: calm,
  },
  {
    name: 'empty DATA frames (CVE-2019-9518)',
    prepare: (client) => client.frame(headers, 4, 1, openBlock),
    rounds: 300,
    round: () => many(100, () => frame(data, 0, 1)),
    code: calm,
  },
  {
    name: 'DATA frames of padding alone',
    prepare: (client) => client.frame(headers, 4, 1, openBlock),
    rounds: 300,
    round: () => many(100, () => frame(data, frameFlag.padded, 1, Buffer.of(3, 0, 0, 0))),
    code: calm,
  },
  {
    name: 'DATA for a stream that was reset',
    prepare: (client) => {
      client.frame(headers, 4, 1, openBlock)
      client.frame(rstStream, 0, 1, uint32(8))
    },
    rounds: 300,
    round: () => many(100, () => frame(data, 0, 1, Buffer.of(1))),
    code: calm,
  },
  {
    name: 'heads for a stream that is long over',
    prepare: (client) => {
      client.frame(headers, 4, 3, openBlock)
      client.frame(rstStream, 0, 3, uint32(8))
    },
    rounds: 300,
    round: () => many(100, () => frame(headers, 5, 1, openBlock)),
    code: calm,
  },
  {
    name: 'priority flood (CVE-2019-9513)',
    rounds: 300,
    round: (at) => many(100, (one) => frame(priority, 0, odd(at * 100 + one), Buffer.alloc(5))),
    code: calm,
  },
  {
    name: 'PRIORITY of a wrong size',
    rounds: 1,
    round: () => frame(priority, 0, 1, Buffer.alloc(4)),
    code: errorCode.frameSizeError,
  },
  {
    name: 'resets of streams long over',
    prepare: (client) => {
      client.frame(headers, 4, 1, openBlock)
      client.frame(rstStream, 0, 1, uint32(8))
    },
    rounds: 300,
    round: () => many(100, () => frame(rstStream, 0, 1, uint32(8))),
    code: calm,
  },
  {
    name: 'unknown frames',
    rounds: 300,
    round: () => many(100, () => frame(0xee, 0, 0)),
    code: calm,
  },
  {
    name: 'GOAWAY flood',
    rounds: 300,
    round: () => many(100, () => frame(goAway, 0, 0, uint32(0, 0))),
    code: calm,
  },
  {
    name: 'an oversized header list (section 10.5.1)',
    rounds: 100,
    round: (at) => {
      const pieces = many(4, (one) =>
        frame(continuation, one === 3 ? 4 : 0, odd(at), Buffer.alloc(16_000, 0x82)),
      )
      return Buffer.concat([frame(headers, 1, odd(at), openBlock), pieces])
    },
    code: undefined,
  },
  {
    name: 'a stream of the server opened by the client',
    rounds: 1,
    round: () => frame(headers, 5, 2, openBlock),
    code: errorCode.protocolError,
  },
  {
    name: 'DATA on stream 0',
    rounds: 1,
    round: () => frame(data, 0, 0, Buffer.of(1)),
    code: errorCode.protocolError,
  },
  {
    name: 'DATA on a stream never opened',
    rounds: 1,
    round: () => frame(data, 0, 99, Buffer.of(1)),
    code: errorCode.protocolError,
  },
  {
    name: 'HEADERS on stream 0',
    rounds: 1,
    round: () => frame(headers, 5, 0, openBlock),
    code: errorCode.protocolError,
  },
  {
    name: 'CONTINUATION for another stream',
    prepare: (client) => client.frame(headers, 0, 1, openBlock),
    rounds: 1,
    round: () => frame(continuation, 4, 3, openBlock),
    code: errorCode.protocolError,
  },
]

/** Another client, who must not notice. */
async function isServed(): Promise<boolean> {
  const client = await rawClient(port)
  client.headers(1, grpcRequest('/t.T/Echo'))
  client.frame(data, frameFlag.endStream, 1, grpcMessage(Buffer.from('hello')))
  const { payload } = await client.next(data, 1)
  client.socket.destroy()
  return payload.toString('latin1', 5) === 'hello'
}

for (const attack of attacks) {
  test(`${attack.name}: bounded, answered, and nobody else notices`, async () => {
    const client = await rawClient(port)
    let isOver = false
    void client.closed.then(() => {
      isOver = true
    })
    const goAwayCode = client.goAway().then(({ code }) => code)
    attack.prepare?.(client)
    const before = heldBytes()
    for (let at = 0; at < attack.rounds && !isOver; at++) {
      client.bytes(attack.round(at))
      if (client.socket.writableNeedDrain)
        await new Promise((resolve) => {
          client.socket.once('drain', resolve)
          client.socket.once('close', resolve)
        })
      else if (at % 10 === 0) await new Promise(setImmediate)
    }
    expect(await isServed()).toBe(true)
    if (attack.code === undefined) {
      client.frame(ping, 0, 0, Buffer.alloc(8))
      await client.next(ping)
      expect(isOver).toBe(false)
    } else {
      expect(await goAwayCode).toBe(attack.code)
      await client.closed
      await expect.poll(() => begun, patience).toBe(0)
    }
    expect(server.stats().bufferedBytes).toBeLessThan(2_000_000)
    client.frames.length = 0
    expect(heldBytes() - before).toBeLessThan(memoryMax)
    client.socket.destroy()
    await expect.poll(() => server.stats().connections, patience).toBe(0)
  })
}

test('slow read (CVE-2016-1546): answers nobody reads are bounded, and further calls are refused', async () => {
  const client = await rawClient(port)
  client.settings([[setting.initialWindowSize, 0]])
  const before = heldBytes()
  for (let at = 0; at < 300; at++) {
    client.headers(odd(at), grpcRequest('/t.T/Big'))
    client.frame(data, frameFlag.endStream, odd(at), grpcMessage(Buffer.alloc(0)))
    if (at % 10 === 0) await new Promise(setImmediate)
  }
  const last = odd(299)
  expect((await client.nextHeaders(last))['grpc-status']).toBe('8')
  expect(server.stats().bufferedBytes).toBeLessThan(80_000_000)
  expect(heldBytes() - before).toBeLessThan(2 * 80_000_000)
  expect(await isServed()).toBe(true)
  client.socket.destroy()
  await expect.poll(() => server.stats().bufferedBytes, patience).toBe(0)
})

test('requests that never end are bounded', async () => {
  const client = await rawClient(port)
  const before = heldBytes()
  for (let at = 0; at < 2000; at++) {
    client.headers(odd(at), grpcRequest('/t.T/Echo'))
    client.frame(data, 0, odd(at), grpcMessage(Buffer.alloc(200_000)).subarray(0, 16_000))
    if (client.socket.writableNeedDrain) await new Promise((resolve) => client.socket.once('drain', resolve))
  }
  expect(await isServed()).toBe(true)
  // What is only not collected yet does not count.
  await expect.poll(() => heldBytes() - before, patience).toBeLessThan(64 * 1024 * 1024 + memoryMax)
  client.socket.destroy()
  await expect.poll(() => server.stats().connections, patience).toBe(0)
})

import { connect } from 'node:http2'
import { anyRequests } from '@kiln/etcd-api/any-request'
import * as rpc from '@kiln/etcd-api/rpc'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type LoneServer, startLoneServer } from '../testing/lone-server.ts'

let server: LoneServer
beforeEach(async () => {
  server = await startLoneServer()
})
afterEach(() => server.close())

const runs = 12
const [unknown, deadline, internal] = [2, 4, 13]
/** Texts of etcd that have code 2 there too: what it does not map. */
const unmapped = /^(auth: |etcdserver: |lease |election: |"leader" field)/

type Answer = { code: number; message: string }

/** One call with a deadline, its messages as they are; never settles later than that, or the test fails. */
function call(path: string, messages: readonly Uint8Array[], timeoutMs = 300): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const session = connect(server.url)
    const stream = session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
      'grpc-timeout': `${timeoutMs}m`,
    })
    let head: Record<string, unknown> = {}
    const late = setTimeout(() => end(() => reject(new Error(`${path} does not answer`))), timeoutMs + 20_000)
    const end = (settle: () => void): void => {
      clearTimeout(late)
      session.destroy()
      settle()
    }
    const take = (headers: Record<string, unknown>): void => {
      if (headers['grpc-status'] !== undefined) head = headers
    }
    session.on('error', (error) => end(() => reject(error)))
    stream.on('error', (error) => end(() => reject(error)))
    stream.on('response', take)
    stream.on('trailers', take)
    stream.on('data', () => undefined)
    stream.on('end', () => {
      const message = decodeURIComponent(String(head['grpc-message'] ?? ''))
      end(() => resolve({ code: Number(head['grpc-status']), message }))
    })
    for (const message of messages) {
      const frame = Buffer.alloc(5)
      frame.writeUInt32BE(message.length, 1)
      stream.write(Buffer.concat([frame, message]))
    }
    stream.end()
  })
}

/** That it still answers; whether it takes writes is up to the alarms that the calls before may have raised. */
async function expectAlive(): Promise<void> {
  expect(await call('/etcdserverpb.Maintenance/Status', [new Uint8Array(0)], 10_000)).toMatchObject({
    code: 0,
  })
}

describe.each(anyRequests())('$path', ({ path, request, clientStreams }) => {
  const messages = clientStreams
    ? fc.array(request, { minLength: 1, maxLength: 4 })
    : request.map((one) => [one])

  test('answers whatever its schema allows with a code that is meant', async () => {
    await fc.assert(
      fc.asyncProperty(messages, async (sent) => {
        const { code, message } = await call(path, sent)
        expect(code, message).toBeGreaterThanOrEqual(0)
        expect(code, message).not.toBe(internal)
        if (code === unknown) expect(message).toMatch(unmapped)
      }),
      { numRuns: runs },
    )
    await expectAlive()
  })

  test('refuses bytes that are no message of it, or takes them as one', async () => {
    const broken = fc.oneof(
      fc.uint8Array({ maxLength: 60 }),
      fc.tuple(request, fc.nat(1000)).map(([bytes, cut]) => bytes.subarray(0, cut % (bytes.length + 1))),
      fc.tuple(request, fc.nat(), fc.nat(255)).map(([bytes, at, value]) => {
        const changed = Uint8Array.from(bytes)
        if (changed.length > 0) changed[at % changed.length] = value
        return changed
      }),
    )
    await fc.assert(
      fc.asyncProperty(broken, async (sent) => {
        const { code, message } = await call(path, [sent])
        expect(code, message).toBeGreaterThanOrEqual(0)
        if (code === internal) expect(message).toMatch(/unmarshal/)
        if (code === unknown) expect(message).toMatch(unmapped)
      }),
      { numRuns: runs },
    )
    await expectAlive()
  })
})

test('a call that would wait for ever ends at its deadline', async () => {
  const watch = rpc.WatchRequest.encode({
    requestUnion: {
      $case: 'createRequest',
      value: rpc.WatchCreateRequest.fromPartial({ key: Buffer.from('a') }),
    },
  }).finish()
  expect(await call('/etcdserverpb.Watch/Watch', [watch])).toMatchObject({ code: expect.any(Number) })
  const observe = Buffer.from([0x0a, 1, 0x61])
  expect(await call('/v3electionpb.Election/Observe', [observe])).toMatchObject({ code: deadline })
})

import * as rpc from '@kiln/etcd-api/rpc'
import type { StreamCall, StreamHandler, StreamListener } from '@kiln/wire'
import { afterEach, expect, test } from 'vitest'
import { type LoneServer, startLoneServer } from '../testing/lone-server.ts'
import { serveLease } from './lease-service.ts'

let server: LoneServer | undefined
afterEach(async () => {
  await server?.close()
  server = undefined
})

/** A stream of keep-alives without a connection: `[id, TTL, revision]` of each answer. */
async function openKeepAlive() {
  server = await startLoneServer()
  const { context } = server
  const answers: unknown[] = []
  const call = {
    closed: false,
    writable: true,
    hasLeader: false,
    send: (bytes: Uint8Array) => {
      const { ID, TTL, header } = rpc.LeaseKeepAliveResponse.decode(bytes)
      return answers.push([ID, TTL, header?.revision]) > 0
    },
    pause: () => undefined,
    resume: () => undefined,
    end: () => undefined,
  } as unknown as StreamCall
  const handlers: StreamHandler[] = []
  serveLease({ unary: () => undefined, stream: (_path, handler) => void handlers.push(handler) }, context)
  const listener: StreamListener = handlers[0]!(call)
  return {
    context,
    answers,
    ask: (id: bigint) => listener.onMessage!(rpc.LeaseKeepAliveRequest.encode({ ID: id }).finish()),
    settle: () => new Promise((resume) => setImmediate(resume)),
  }
}

test('keep-alives are answered in order, each with the TTL of its lease and the revision of the moment', async () => {
  const { context, answers, ask, settle } = await openKeepAlive()
  const { store } = context.state
  store.grantLease(5n, 60)
  store.grantLease(6n, 90)
  for (const id of [5n, 6n]) ask(id)
  await settle()
  for (const id of [5n, 5n, 6n, 404n]) ask(id)
  store.put({ key: Buffer.from('a'), value: Buffer.from('1') })
  ask(5n)
  ask(5n)
  expect(answers).toEqual([
    [5n, 60n, 1n],
    [6n, 90n, 1n],
    [5n, 60n, 1n],
    [5n, 60n, 1n],
    [6n, 90n, 1n],
    [404n, 0n, 1n],
    [5n, 60n, 2n],
    [5n, 60n, 2n],
  ])
})

test('what can be answered at once does not overtake what waits for a leader', async () => {
  const { context, answers, ask, settle } = await openKeepAlive()
  context.state.store.grantLease(5n, 60)
  context.state.store.grantLease(6n, 90)
  ask(5n)
  await settle()
  const { leases } = context
  const renewNow = leases.renewNow.bind(leases)
  let isLed = false
  leases.renewNow = (id) => (isLed ? renewNow(id) : undefined)
  ask(6n)
  isLed = true
  ask(5n)
  await settle()
  await settle()
  expect(answers).toEqual([
    [5n, 60n, 1n],
    [6n, 90n, 1n],
    [5n, 60n, 1n],
  ])
})

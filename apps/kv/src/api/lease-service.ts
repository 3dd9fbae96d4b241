import { leaseTtlMax, refusals } from '@kiln/mvcc'
import { Fault } from '@kiln/service'
import { GrpcError, type StreamCall } from '@kiln/wire'
import {
  acceptedValue,
  checkServing,
  headerOf,
  propose,
  readIndex,
  type ServiceContext,
  unary,
} from './context.ts'
import { fail, statuses, toGrpcError } from './errors.ts'
import type { MethodRegistry } from './method-table.ts'
import { decodeLeaseGrant, decodeLeaseId, decodeTimeToLive } from './requests.ts'
import {
  encodeHeaderOnly,
  encodeKeepAlive,
  encodeLeaseGrant,
  encodeLeases,
  encodeTimeToLive,
} from './responses.ts'
import { endWithoutLeader } from './watch-service.ts'

/** Leases: etcdserverpb.Lease (kv.md section 5). */
export function serveLease(server: MethodRegistry, context: ServiceContext): void {
  const { state, leases, auth } = context
  const { store } = state

  unary(server, '/etcdserverpb.Lease/LeaseGrant', async (bytes, call) => {
    checkServing(context, call)
    const asked = decodeLeaseGrant(bytes)
    if (asked.ttl > leaseTtlMax) fail(refusals.leaseTtlTooLarge)
    const who = await auth.admit(call, { kind: 'login' })
    const id = asked.id === 0n ? leases.pickId() : asked.id
    const ttl = Math.max(asked.ttl, leases.ttlMin)
    const { outcome } = await propose(context, { kind: 'lease-grant', id, ttl }, who, call)
    return encodeLeaseGrant(headerOf(context), acceptedValue(outcome))
  })

  const revoke = async (bytes: Uint8Array, call: Parameters<Parameters<typeof unary>[2]>[1]) => {
    checkServing(context, call)
    const id = decodeLeaseId(bytes)
    const who = await auth.admit(call, { kind: 'lease-revoke', id })
    const { outcome } = await propose(context, { kind: 'lease-revoke', id }, who, call)
    return encodeHeaderOnly(headerOf(context, acceptedValue(outcome).revision))
  }
  unary(server, '/etcdserverpb.Lease/LeaseRevoke', revoke)

  unary(server, '/etcdserverpb.Lease/LeaseTimeToLive', async (bytes, call) => {
    checkServing(context, call)
    const { id, keys } = decodeTimeToLive(bytes)
    await readIndex(context, call)
    await auth.admit(call, keys ? { kind: 'lease-keys', id } : { kind: 'login' }, 'local')
    const lease = store.leases.get(id)
    const ttl = lease ? await renewable(leases.remaining(id)) : undefined
    if (!lease || ttl === undefined) {
      return encodeTimeToLive(headerOf(context), { id, ttl: -1, grantedTtl: 0, keys: [] })
    }
    // More keys may have come while the leader was asked.
    if (keys) await auth.admit(call, { kind: 'lease-keys', id }, 'local')
    const attached = keys ? [...lease.keys].sort() : []
    return encodeTimeToLive(headerOf(context), { id, ttl, grantedTtl: lease.ttl, keys: attached })
  })

  const list = async (_bytes: Uint8Array, call: Parameters<Parameters<typeof unary>[2]>[1]) => {
    checkServing(context, call)
    await readIndex(context, call)
    await auth.admit(call, { kind: 'login' }, 'local')
    return encodeLeases(
      headerOf(context),
      store.leases.list().map(({ id }) => id),
    )
  }
  unary(server, '/etcdserverpb.Lease/LeaseLeases', list)

  server.stream('/etcdserverpb.Lease/LeaseKeepAlive', (call) => {
    const stopWaiting = endWithoutLeader(context, call)
    const queue = keepAliveQueue(context, call)
    return { onMessage: queue.add, onEnd: queue.end, onClose: stopWaiting }
  })
}

/** Keep-alives of a stream that wait for their answer. */
const waitingMax = 1000

/**
 * Answers keep-alives of one stream in order; an unknown lease is answered with TTL 0. As in etcd nobody has to log in for them: a
 * client whose token ran out while its stream was down must not lose its locks.
 */
function keepAliveQueue(context: ServiceContext, call: StreamCall) {
  const { leases } = context
  const waiting: bigint[] = []
  let isRunning = false
  let isEnded = false
  const encode = keepAliveEncoder(context)
  const readId = leaseIdReader()
  const run = async (): Promise<void> => {
    isRunning = true
    while (waiting.length > 0 && !call.closed) {
      const ids = waiting.splice(0)
      if (ids.length > 0) call.resume()
      const ttls = await Promise.all(ids.map((id) => leases.renewNow(id) ?? renewable(leases.renew(id))))
      ids.forEach((id, at) => void call.send(encode(id, ttls[at]!)))
    }
    isRunning = false
    if (isEnded) call.end()
  }
  const start = (): void => {
    if (isRunning) return
    run().catch((thrown: unknown) => {
      const error = toGrpcError(thrown)
      if (!(error instanceof GrpcError)) context.log.error({ error: thrown }, 'keep-alive failed')
      call.end(
        error instanceof GrpcError
          ? { code: error.code, message: error.message }
          : { code: 2, message: 'internal error' },
      )
    })
  }
  return {
    add: (bytes: Uint8Array): void => {
      const id = readId(bytes)
      // The usual case needs no turn of its own: nobody is waiting, and a leader answers at once.
      const ttl = !isRunning && call.writable ? leases.renewNow(id) : undefined
      if (ttl !== undefined) {
        call.send(encode(id, ttl))
        return
      }
      if (waiting.push(id) >= waitingMax) call.pause()
      start()
    },
    end: (): void => {
      isEnded = true
      if (!isRunning) call.end()
    },
  }
}

/** Most streams keep one lease alive, with the same bytes each time. */
function leaseIdReader(): (bytes: Uint8Array) => bigint {
  let last: { bytes: Buffer; id: bigint } | undefined
  return (bytes) => {
    if (last?.bytes.equals(bytes)) return last.id
    last = { bytes: Buffer.from(bytes), id: decodeLeaseId(bytes) }
    return last.id
  }
}

/** Answers of one stream; the same answer again is the same bytes. */
function keepAliveEncoder(context: ServiceContext): (id: bigint, ttl: number) => Uint8Array {
  const { consensus, state } = context
  let last: { id: bigint; ttl: number; revision: number; term: number; bytes: Uint8Array } | undefined
  return (id, ttl) => {
    const { revision } = state.store
    const term = consensus.term()
    if (last?.id === id && last.ttl === ttl && last.revision === revision && last.term === term) {
      return last.bytes
    }
    last = { id, ttl, revision, term, bytes: encodeKeepAlive(headerOf(context, revision), { id, ttl }) }
    return last.bytes
  }
}

/** A member that stopped leading meanwhile is no refusal of the request: clients try again. */
async function renewable<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer
  } catch (thrown) {
    if (thrown instanceof Fault && thrown.code === 'STORE_NOT_LEADER') fail(statuses.leaderChanged)
    throw thrown
  }
}

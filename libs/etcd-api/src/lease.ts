import { type Clock, Fault } from '@kiln/service'
import type { Endpoints } from './endpoints.ts'
import {
  LeaseGrantRequest,
  LeaseKeepAliveRequest,
  LeaseKeepAliveResponse,
  LeaseRevokeRequest,
} from './generated/rpc.ts'
import { methods } from './methods.ts'

export type HoldLeaseOptions = {
  ttlSeconds: number
  /** The store said that the lease is gone, and its keys with it. A new one is asked for; `onGranted` follows. */
  onLost?(lostId: bigint): void
  /** A new lease replaces the lost one: write the keys again. Not called for the first. */
  onGranted?(id: bigint): void
  /** Renewing failed for now; it goes on. */
  onTrouble?(fault: Fault): void
}

/** A lease that is renewed until it is closed. */
export type HeldLease = {
  /** The present lease; changes when a lost one was replaced. */
  readonly id: bigint
  /** What was granted. */
  readonly ttlSeconds: number
  /** Until when, on the clock of the client, the lease is certain to hold. */
  readonly certainUntil: number
  /** Stops renewing and revokes the lease. */
  close(): Promise<void>
}

export async function grantLease(
  endpoints: Endpoints,
  ttlSeconds: number,
  id = 0n,
): Promise<{ id: bigint; ttlSeconds: number }> {
  const request = LeaseGrantRequest.fromPartial({ TTL: BigInt(ttlSeconds), ID: id })
  const answer = await endpoints.call(methods.leaseGrant, request, { doing: 'grant a lease' })
  return { id: answer.ID, ttlSeconds: Number(answer.TTL) }
}

export async function revokeLease(endpoints: Endpoints, id: bigint): Promise<void> {
  const request = LeaseRevokeRequest.fromPartial({ ID: id })
  await endpoints.call(methods.leaseRevoke, request, { doing: `revoke lease ${id.toString(16)}` })
}

/** Renews a lease once; answers the seconds it has now, 0 if it is gone. */
export async function keepAliveOnce(
  endpoints: Endpoints,
  clock: Clock,
  id: bigint,
  timeoutMs: number,
): Promise<number> {
  const doing = `renew lease ${id.toString(16)}`
  const answer = Promise.withResolvers<number>()
  const { stream, url, failed } = await endpoints.open('/etcdserverpb.Lease/LeaseKeepAlive', doing, {
    onMessage: (bytes) => answer.resolve(Number(LeaseKeepAliveResponse.decode(bytes).TTL)),
    onClose(cause) {
      const how = cause === undefined ? 'the stream ended without an answer' : 'failed'
      answer.reject(new Fault('STORE_UNREACHABLE', `${doing}: ${how}`, { cause }))
    },
  })
  const cancelTimer = clock.after(timeoutMs, () =>
    answer.reject(new Fault('STORE_TIMEOUT', `${doing} at ${url}: no answer within ${timeoutMs} ms`)),
  )
  stream.send(LeaseKeepAliveRequest.encode({ ID: id }).finish())
  try {
    return await answer.promise
  } catch (error) {
    failed()
    throw error
  } finally {
    cancelTimer()
    stream.cancel()
  }
}

/**
 * Grants a lease and renews it at a third of its life. While the store is away it keeps trying, also beyond the lease's end: a new leader
 * gives every lease its whole life again. Only the store's word that the lease is gone counts as lost.
 */
export async function holdLease(
  endpoints: Endpoints,
  clock: Clock,
  timeoutMs: number,
  options: HoldLeaseOptions,
): Promise<HeldLease> {
  let askedAt = clock.now()
  let granted = await grantLease(endpoints, options.ttlSeconds)
  let certainUntil = askedAt + granted.ttlSeconds * 1000
  let closed = false
  let wake: (() => void) | undefined

  function wait(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const cancel = clock.after(ms, resolve)
      wake = () => {
        cancel()
        resolve()
      }
    })
  }

  /** Renews once, or replaces a lost lease; returns how long to wait for the next time. */
  async function renew(): Promise<number> {
    askedAt = clock.now()
    const attemptMs = Math.max(500, Math.min(timeoutMs, (granted.ttlSeconds * 1000) / 3))
    const left = await keepAliveOnce(endpoints, clock, granted.id, attemptMs)
    if (left > 0) certainUntil = askedAt + left * 1000
    else if (!closed) {
      options.onLost?.(granted.id)
      askedAt = clock.now()
      granted = await grantLease(endpoints, options.ttlSeconds)
      certainUntil = askedAt + granted.ttlSeconds * 1000
      options.onGranted?.(granted.id)
    }
    return (granted.ttlSeconds * 1000) / 3
  }

  async function run(): Promise<void> {
    let waitMs = (granted.ttlSeconds * 1000) / 3
    while (!closed) {
      await wait(waitMs)
      if (closed) return
      try {
        waitMs = await renew()
      } catch (error) {
        waitMs = Math.min(1000, (granted.ttlSeconds * 1000) / 6)
        if (!(error instanceof Fault)) throw error
        if (!closed) options.onTrouble?.(error)
      }
    }
  }
  const running = run()

  return {
    get id() {
      return granted.id
    },
    get ttlSeconds() {
      return granted.ttlSeconds
    },
    get certainUntil() {
      return certainUntil
    },
    async close() {
      if (closed) return
      closed = true
      wake?.()
      await running
      await revokeLease(endpoints, granted.id).catch((error: unknown) => {
        if (!(error instanceof Fault && error.code === 'STORE_LEASE_NOT_FOUND')) throw error
      })
    },
  }
}

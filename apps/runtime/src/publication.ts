import type { EtcdClient, HeldLease } from '@kiln/etcd-api'
import { type PodStatus, storeKeys } from '@kiln/schemas'
import { describeError, Fault, type Log } from '@kiln/service'

/** What the store should say about the pods of a machine, by key. Pure. */
export function statusEntries(statuses: PodStatus[], machine: string): Map<string, string> {
  return new Map(
    statuses.map((status) => [storeKeys.podStatus({ machine, pod: status.name }), JSON.stringify(status)]),
  )
}

type Store = Pick<EtcdClient, 'put' | 'delete' | 'holdLease'>

const retryFirstMs = 1_000
const retryMostMs = 15_000

/**
 * Keeps the store saying what `publish` was last told, under one lease. The store may be away at any time, also at
 * the start; nothing waits for it. The lease is not revoked when the daemon stops: pods go on, and the next daemon
 * writes the same keys under its own lease.
 */
export type Publisher = {
  publish(entries: Map<string, string>): void
  /** Resolves when the store says what was published, or did not take it. */
  settled(): Promise<void>
  close(): void
}

export function openPublisher(input: { store: Store; leaseSeconds: number; log: Log }): Publisher {
  const { store, log } = input
  let wanted = new Map<string, string>()
  const published = new Map<string, string>()
  let lease: HeldLease | undefined
  let failures = 0
  let working: Promise<void> | undefined
  let again = false
  let closed = false
  let retry: NodeJS.Timeout | undefined

  const synchronise = async (): Promise<void> => {
    lease ??= await store.holdLease({
      ttlSeconds: input.leaseSeconds,
      onLost: () => published.clear(),
      onGranted: () => wake(),
    })
    for (const [key, value] of wanted) {
      if (published.get(key) === value) continue
      await store.put(key, value, { lease: lease.id })
      published.set(key, value)
    }
    for (const key of [...published.keys()]) {
      if (wanted.has(key)) continue
      await store.delete(key)
      published.delete(key)
    }
  }

  const wake = (): void => {
    again = true
    if (working || closed) return
    clearTimeout(retry)
    working = work().finally(() => {
      working = undefined
      if (again && failures === 0) wake()
    })
  }

  const work = async (): Promise<void> => {
    while (again && !closed) {
      again = false
      try {
        await synchronise()
        if (failures > 0) log.info({ keys: published.size }, 'store is back and knows the pods')
        failures = 0
      } catch (error) {
        if (error instanceof Fault && error.code === 'STORE_LEASE_NOT_FOUND') published.clear()
        if (failures === 0)
          log.warn({ error: describeError(error) }, 'store does not take the pods, trying on')
        const delay = Math.min(retryMostMs, retryFirstMs * 2 ** Math.min(10, failures))
        failures++
        retry = setTimeout(wake, delay)
        return
      }
    }
  }

  return {
    publish: (entries) => {
      wanted = entries
      if (failures === 0) wake()
    },
    settled: async () => {
      while (working) await working
    },
    close: () => {
      closed = true
      clearTimeout(retry)
    },
  }
}

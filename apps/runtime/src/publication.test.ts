import type { HeldLease, HoldLeaseOptions } from '@kiln/etcd-api'
import { createLog, Fault } from '@kiln/service'
import { expect, test, vi } from 'vitest'
import { openPublisher } from './publication.ts'

/** A store in memory that can be away. */
function fakeStore() {
  const keys = new Map<string, string>()
  const state = { away: true, leases: 0, options: undefined as HoldLeaseOptions | undefined }
  const check = (): void => {
    if (state.away) throw new Fault('STORE_UNREACHABLE', 'away')
  }
  return {
    keys,
    state,
    store: {
      put: async (key: never, value: never) => {
        check()
        keys.set(key, value)
        return { revision: 1n }
      },
      delete: async (key: never) => {
        check()
        return { deleted: keys.delete(key) ? 1 : 0, revision: 1n }
      },
      holdLease: async (options: HoldLeaseOptions): Promise<HeldLease> => {
        check()
        state.options = options
        state.leases++
        return { id: BigInt(state.leases), ttlSeconds: 30, certainUntil: 0, close: async () => undefined }
      },
    },
  }
}

test('what is published reaches a store that was away, changes with it, and is written again under a new lease', async () => {
  vi.useFakeTimers()
  try {
    const { keys, state, store } = fakeStore()
    const publisher = openPublisher({ store, leaseSeconds: 30, log: createLog('test', 'silent') })
    publisher.publish(
      new Map([
        ['a', '1'],
        ['b', '1'],
      ]),
    )
    await vi.advanceTimersByTimeAsync(10_000)
    expect(keys.size).toBe(0)
    publisher.publish(
      new Map([
        ['a', '2'],
        ['b', '1'],
      ]),
    )
    state.away = false
    await vi.advanceTimersByTimeAsync(20_000)
    expect([...keys]).toEqual([
      ['a', '2'],
      ['b', '1'],
    ])
    publisher.publish(new Map([['a', '3']]))
    await vi.advanceTimersByTimeAsync(0)
    expect([...keys]).toEqual([['a', '3']])
    keys.clear()
    await publisher.settled()
    state.options?.onLost?.(1n)
    state.options?.onGranted?.(2n)
    await vi.advanceTimersByTimeAsync(0)
    expect([...keys]).toEqual([['a', '3']])
    expect(state.leases).toBe(1)
    publisher.close()
  } finally {
    vi.useRealTimers()
  }
})

test('a publisher is settled when the store has what it was told last, or does not take it', async () => {
  vi.useFakeTimers()
  try {
    const { keys, state, store } = fakeStore()
    const publisher = openPublisher({ store, leaseSeconds: 30, log: createLog('test', 'silent') })
    publisher.publish(new Map([['a', '1']]))
    await publisher.settled()
    expect(keys.size).toBe(0)
    state.away = false
    await vi.advanceTimersByTimeAsync(20_000)
    publisher.publish(new Map())
    await publisher.settled()
    expect(keys.size).toBe(0)
    publisher.close()
    await publisher.settled()
  } finally {
    vi.useRealTimers()
  }
})

import type { HeldLease, HoldLeaseOptions } from '@kiln/etcd-api'
import type { PodStatus } from '@kiln/schemas'
import { createLog, Fault } from '@kiln/service'
import { expect, test, vi } from 'vitest'
import { openPublisher, publicationOf } from './publication.ts'

const status = (more: Partial<PodStatus> = {}): PodStatus => ({
  formatVersion: 1,
  name: 'hello',
  machine: 'node1',
  uid: 'u1',
  phase: 'Running',
  ready: true,
  source: 'file',
  address: '10.88.11.2',
  service: 'web',
  ports: [
    { name: 'http', port: 80, hostPort: 8000, protocol: 'TCP' },
    { port: 9, protocol: 'UDP' },
  ],
  containers: [],
  since: '2026-01-01T00:00:00.000Z',
  ...more,
})
const machine = { id: 'node1', address: '10.77.0.11' }

test('a ready pod is a service at the machine\u2019s address and ports; one that is not has only its status', () => {
  const ready = publicationOf([status()], machine)
  expect([...ready.keys()]).toEqual(['/kiln/status/node1/hello', '/kiln/services/web/node1:hello'])
  expect(JSON.parse(ready.get('/kiln/services/web/node1:hello') ?? '')).toEqual({
    address: '10.77.0.11',
    ports: [{ port: 8000, protocol: 'TCP', name: 'http' }],
  })
  expect(publicationOf([status({ ready: false })], machine).size).toBe(1)
  expect(publicationOf([status({ ports: [] })], machine).size).toBe(1)
  expect(publicationOf([status()], { ...machine, address: undefined }).size).toBe(1)
})

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

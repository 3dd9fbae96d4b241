import type { EtcdClient } from '@kiln/etcd-api'
import { createLog } from '@kiln/service'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { followPrefix } from './follow-prefix.ts'

beforeEach(() => {
  vi.useFakeTimers()
})
afterEach(() => {
  vi.useRealTimers()
})

test('a store that goes away is tried at once, then less and less often, and at once again after a watch that told something or lasted', async () => {
  const stopping = new AbortController()
  const tries: number[] = []
  let works = false
  let silentMs = 0
  const store = {
    getPrefix: async () => {
      tries.push(Date.now() - began)
      if (!works) throw new Error('away')
      return { entries: [], revision: 1n }
    },
    watch: async function* () {
      works = false
      if (silentMs > 0) await new Promise((resolve) => setTimeout(resolve, silentMs))
      else yield { kind: 'events', events: [] }
      throw new Error('broken')
    },
  } as unknown as Pick<EtcdClient, 'getPrefix' | 'watch'>
  const began = Date.now()
  const following = followPrefix({
    store,
    prefix: '/p/',
    log: createLog('test', 'silent'),
    signal: stopping.signal,
    reset: () => undefined,
    changed: () => undefined,
  })
  await vi.advanceTimersByTimeAsync(20_000)
  expect(tries).toEqual([0, 0, 100, 300, 700, 1500, 3100, 6300, 11300, 16300])
  works = true
  await vi.advanceTimersByTimeAsync(1_400)
  expect(tries.slice(10)).toEqual([21_300, 21_300, 21_400])
  works = true
  silentMs = 60_000
  await vi.advanceTimersByTimeAsync(60_300)
  expect(tries.slice(13)).toEqual([21_600, 81_600, 81_700])
  stopping.abort()
  await following
})

import type { EtcdClient } from '@kiln/etcd-api'
import { Fault } from '@kiln/service'
import { expect, test } from 'vitest'
import { WriteLoad } from './write-load.ts'

/** A store in memory; `lose` forgets a key, `fail` makes every call fail from then on. */
function memoryStore() {
  const entries = new Map<string, string>()
  let calls = 0
  let broken = false
  const answer = <T>(value: T): Promise<T> => {
    calls++
    return broken ? Promise.reject(new Fault('STORE_TIMEOUT', 'no answer')) : Promise.resolve(value)
  }
  const store = {
    put: async (key: string, value: string) => {
      const answered = await answer({ revision: 1n })
      entries.set(key, value)
      return answered
    },
    getPrefix: () =>
      answer({ entries: [...entries].map(([key, text]) => ({ key, text })), revision: 1n, more: false }),
    deletePrefix: () => answer({ deleted: entries.size, revision: 2n }),
  } as unknown as EtcdClient
  return {
    store,
    lose: () => entries.delete([...entries.keys()][0] ?? ''),
    fail: () => {
      broken = true
    },
    calls: () => calls,
  }
}

const someWrites = async (load: WriteLoad): Promise<void> => {
  await expect.poll(() => load.acknowledged, { timeout: 10_000 }).toBeGreaterThan(1)
}

test('what was acknowledged and is not there is counted as lost', async () => {
  const { store, lose } = memoryStore()
  const load = new WriteLoad(store, 'x')
  await someWrites(load)
  lose()
  const { acknowledged, lost } = await load.stop()
  expect(acknowledged).toBeGreaterThan(1)
  expect(lost).toBe(1)
})

test('a load that is abandoned asks a broken store nothing more', async () => {
  const { store, fail, calls } = memoryStore()
  const load = new WriteLoad(store, 'x')
  await someWrites(load)
  fail()
  await load.abandon()
  const asked = calls()
  await new Promise((resolve) => setTimeout(resolve, 300))
  expect(calls()).toBe(asked)
})

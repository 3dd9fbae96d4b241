import { MvccStore } from '@kiln/mvcc'
import { expect, test } from 'vitest'
import { manualClock } from '../testing/manual-clock.ts'
import { Reclaimer } from './reclaimer.ts'
import { nextTurn, valuesInMemory } from './slices.ts'

function setUp() {
  const store = new MvccStore({ chunkRecords: 10 })
  for (let at = 0; at < 100; at++) store.put({ key: Buffer.from('k'), value: Buffer.from(`${at}`) })
  store.put({ key: Buffer.from('x'), value: Buffer.alloc(0) })
  const clock = manualClock()
  const reclaimer = new Reclaimer({
    state: { store, values: valuesInMemory },
    clock,
    batchRevisions: 20,
    pauseMs: 10,
  })
  return { store, clock, reclaimer }
}

test('what is compacted is freed a batch at a time, with pauses', async () => {
  const { store, clock, reclaimer } = setUp()
  store.compact(101)
  reclaimer.kick()
  await nextTurn()
  expect(store.history.count).toBe(81)
  await clock.advance(9)
  expect(store.history.count).toBe(81)
  await clock.advance(1)
  expect(store.history.count).toBe(61)
  await clock.advance(1000)
  expect(store.history.count).toBe(2)
  expect(store.isReclaimPending).toBe(false)
})

test('whoever is in a hurry waits for no pause', async () => {
  const { store, clock, reclaimer } = setUp()
  store.compact(101)
  await reclaimer.done(true)
  expect(store.history.count).toBe(2)
  expect(clock.now()).toBe(0)
  // The hurry is over with it.
  store.put({ key: Buffer.from('k'), value: Buffer.alloc(0) })
  for (let at = 0; at < 50; at++) store.put({ key: Buffer.from('k'), value: Buffer.alloc(0) })
  store.compact(store.revision)
  reclaimer.kick()
  for (let turn = 0; turn < 20; turn++) await nextTurn()
  expect(store.isReclaimPending).toBe(true)
})

test('a read of an old revision holds it up until it ends', async () => {
  const { store, clock, reclaimer } = setUp()
  const release = store.pin(50)
  store.compact(101)
  reclaimer.kick()
  await clock.advance(1000)
  expect(store.history.count).toBeGreaterThan(50)
  expect(store.history.revision(store.history.fromRevision(50))).toBe(50)
  release()
  await clock.advance(1000)
  expect(store.history.count).toBe(2)
  await reclaimer.stop()
})

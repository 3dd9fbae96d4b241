import fc from 'fast-check'
import { expect, test } from 'vitest'
import { hashSlices } from './hash.ts'
import { readDiff, readRevisions } from './history-read.ts'
import type { KeyValue, RangeRequest, SortTarget, TxnRequest } from './requests.ts'
import { encodeSnapshotSlices, SnapshotDecoder } from './snapshot.ts'
import { MvccStore } from './store.ts'
import { ValueFetch } from './value-memory.ts'
import { WatchHub } from './watch-hub.ts'
import type { WatchMessage } from './watcher.ts'

const bytes = (text: string): Uint8Array => Buffer.from(text, 'latin1')
const sizes = { chunkRecords: 4, slabBytes: 32, leafKeys: 4, sliceRecords: 3 }

/** Moves out every slab that may leave. */
function moveOut({ memory }: MvccStore): void {
  for (let slab = memory.oldest(); slab; slab = memory.oldest()) {
    memory.moved(slab, { bytes: Buffer.from(slab.bytes!) })
  }
}

let fetched = 0
function read(fetch: ValueFetch): void {
  for (const want of fetch.wants) {
    fetched++
    const place = want.slab.place as { bytes: Buffer }
    fetch.put(want, place.bytes.subarray(want.start, want.start + want.length))
  }
}

/** Runs an operation; whenever it stops all that may leave memory does. */
function run<Y, T>(store: MvccStore, slices: Generator<Y, T>, each: (step: Y) => void = () => undefined): T {
  for (;;) {
    const step = slices.next()
    if (step.done) return step.value
    moveOut(store)
    if (step.value instanceof ValueFetch) read(step.value)
    else each(step.value)
  }
}

function rangeOf(store: MvccStore, request: RangeRequest): unknown {
  const kvs: KeyValue[] = []
  const outcome = run(store, store.rangeSlices(request), (some) => void kvs.push(...(some as KeyValue[])))
  return outcome.ok ? { ...outcome.value, kvs: [...kvs, ...outcome.value.kvs] } : outcome
}

const key = fc.integer({ min: 0, max: 9 }).map((number) => `k${number}`)
const value = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), minLength: 1, maxLength: 40 })
const change = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ kind: fc.constant('put' as const), key, value, prevKv: fc.boolean() }),
  },
  fc.record({ kind: fc.constant('keep' as const), key, value }),
  fc.record({ kind: fc.constant('delete' as const), key, value: key, prevKv: fc.boolean() }),
  fc.record({ kind: fc.constant('swap' as const), key, value }),
  fc.record({ kind: fc.constant('restore' as const), back: fc.nat(5) }),
  fc.record({ kind: fc.constant('compact' as const), back: fc.nat(8) }),
  fc.record({ kind: fc.constant('install' as const) }),
)
type Change = typeof change extends fc.Arbitrary<infer T> ? T : never

function apply(store: MvccStore, each: Change): unknown {
  switch (each.kind) {
    case 'put':
      return run(
        store,
        store.putSlices({ key: bytes(each.key), value: bytes(each.value), prevKv: each.prevKv }),
      )
    case 'keep':
      return run(store, store.putSlices({ key: bytes(each.key), value: bytes(''), ignoreValue: true }))
    case 'delete': {
      const range = { key: bytes(each.key), rangeEnd: bytes(each.value), prevKv: each.prevKv }
      return run(store, store.deleteRangeSlices(range))
    }
    case 'swap': {
      const span = { key: bytes('k'), rangeEnd: bytes('l') }
      const request: TxnRequest = {
        compare: [{ ...span, target: 'value', result: 'less', wanted: bytes(each.value) }],
        success: [
          { kind: 'put', request: { key: bytes(each.key), value: bytes(each.value), prevKv: true } },
          { kind: 'range', request: span },
        ],
        failure: [
          { kind: 'put', request: { key: bytes(each.key), value: bytes(`${each.value}!`) } },
          { kind: 'delete', request: { key: bytes(each.key), rangeEnd: bytes(''), prevKv: true } },
        ],
      }
      return run(store, store.txnSlices(request))
    }
    case 'restore': {
      const revision = Math.max(store.revision - each.back, 1)
      const range = { key: bytes('k'), rangeEnd: bytes('l'), revision, changesMax: 50, bytesMax: 200 }
      return run(store, store.restoreRangeSlices(range))
    }
    case 'compact': {
      const outcome = store.compact(store.revision - each.back)
      while (run(store, store.reclaimSlices(1)));
      return outcome
    }
    case 'install': {
      const pieces: Uint8Array[] = []
      run(store, encodeSnapshotSlices(store), (piece) => void pieces.push(piece as Uint8Array))
      const decoder = new SnapshotDecoder(store)
      for (const piece of pieces) run(store, decoder.add(piece))
      return { problem: decoder.end(), snapshot: Buffer.concat(pieces) }
    }
  }
}

/** All that a store answers. */
function allOf(store: MvccStore): unknown {
  const targets: SortTarget[] = ['key', 'version', 'create', 'mod', 'value']
  const range = { key: bytes('k'), rangeEnd: bytes('l') }
  const answers: unknown[] = []
  for (let revision = Math.max(1, store.compactRevision); revision <= store.revision; revision++) {
    answers.push(rangeOf(store, { ...range, revision }))
  }
  for (const sortTarget of targets) {
    for (const sortOrder of ['none', 'ascend', 'descend'] as const) {
      for (const limit of [0, 1, 4]) answers.push(rangeOf(store, { ...range, sortTarget, sortOrder, limit }))
    }
  }
  answers.push(rangeOf(store, { ...range, keysOnly: true }), rangeOf(store, { ...range, countOnly: true }))
  answers.push(run(store, hashSlices(store, 0)))
  const revisions = { key: bytes('k1'), limit: 0, before: 0, keysOnly: false }
  answers.push(
    run(
      store,
      store.lookSlices(0, (view) => readRevisions(view, revisions)),
    ),
  )
  const from = Math.max(1, store.compactRevision)
  const diff = { ...range, from, to: 0, limit: 0, keysOnly: false }
  answers.push(
    run(
      store,
      store.lookSlices(from, (view) => readDiff(view, diff)),
    ),
  )
  return answers
}

/** What a watcher from the first revision there is gets, with the values before. */
function watched(store: MvccStore): unknown {
  const hub = new WatchHub(store, { replayEventsMax: 3 })
  const events: unknown[] = []
  const send = (message: WatchMessage): void => void events.push(...message.events)
  const stream = hub.open({ writable: true, send })
  const startRevision = Math.max(1, store.compactRevision)
  const create = { key: bytes('k'), rangeEnd: bytes('l'), startRevision, watchId: 0, prevKv: true }
  hub.create(stream, { ...create, noPut: false, noDelete: false, fragment: false, progressNotify: false })
  for (let isMore = true; isMore; ) {
    isMore = hub.sync()
    for (const { fetch, done } of hub.takeFetches()) {
      moveOut(store)
      read(fetch)
      done()
      isMore = true
    }
  }
  expect(hub.unsyncedCount).toBe(0)
  hub.close(stream)
  return events
}

test('a store whose values are all out of memory answers as one that has them', () => {
  fetched = 0
  fc.assert(
    fc.property(fc.array(change, { minLength: 20, maxLength: 50 }), (changes) => {
      const bounded = new MvccStore(sizes)
      bounded.memory.bytesMax = 0
      const unbounded = new MvccStore(sizes)
      for (const each of changes) {
        expect(apply(bounded, each)).toEqual(apply(unbounded, each))
        moveOut(bounded)
      }
      expect(allOf(bounded)).toEqual(allOf(unbounded))
      expect(watched(bounded)).toEqual(watched(unbounded))
      expect(unbounded.memory.outBytes).toBe(0)
    }),
    { numRuns: 150 },
  )
  // Otherwise it has shown nothing.
  expect(fetched).toBeGreaterThan(10_000)
})

test('compaction gives up slabs of which little is left, in memory and out of it', () => {
  const store = new MvccStore(sizes)
  store.memory.bytesMax = 0
  for (let round = 0; round < 20; round++) {
    for (let at = 0; at < 10; at++)
      store.put({ key: bytes(`k${at}`), value: bytes(`${round}-${at}-padding`) })
    // One key of each round stays.
    store.put({ key: bytes(`stays${round}`), value: bytes(`${round}`) })
    moveOut(store)
  }
  const before = store.memory.outBytes
  store.compact(store.revision)
  while (run(store, store.reclaimSlices(1))) moveOut(store)
  expect(store.history.count).toBe(30)
  moveOut(store)
  expect(store.memory.outBytes + store.memory.memoryBytes).toBeLessThan(before / 3)
  const found = rangeOf(store, { key: bytes('k'), rangeEnd: bytes('t') }) as { kvs: KeyValue[] }
  expect(found.kvs).toHaveLength(30)
  expect(Buffer.from(found.kvs[0]!.value).toString()).toBe('19-0-padding')
})

test('a history that is replaced leaves nothing behind', () => {
  const store = new MvccStore(sizes)
  store.memory.bytesMax = 0
  for (let at = 0; at < 100; at++) store.put({ key: bytes(`k${at}`), value: bytes(`value ${at}`) })
  moveOut(store)
  const empty: Uint8Array[] = []
  run(store, encodeSnapshotSlices(new MvccStore(sizes)), (piece) => void empty.push(piece as Uint8Array))
  const decoder = new SnapshotDecoder(store)
  for (const piece of empty) run(store, decoder.add(piece))
  expect(decoder.end()).toBe(undefined)
  expect([store.memory.memoryBytes, store.memory.outBytes]).toEqual([0, 0])
})

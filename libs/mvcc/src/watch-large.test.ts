import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { StoreEvent } from './requests.ts'
import { MvccStore } from './store.ts'
import { WatchHub } from './watch-hub.ts'
import type { LongSink, WatchCreate, WatchLimits, WatchMessage, WatchSink } from './watcher.ts'

const bytes = (text: string): Uint8Array => Buffer.from(text, 'latin1')
const text = (value: Uint8Array): string => Buffer.from(value).toString('latin1')
const none = new Uint8Array(0)

const request = (more: Partial<WatchCreate> = {}): WatchCreate => ({
  key: bytes('k'),
  rangeEnd: bytes('l'),
  startRevision: 0,
  watchId: 0,
  prevKv: false,
  noPut: false,
  noDelete: false,
  fragment: false,
  progressNotify: false,
  ...more,
})

const limits: Partial<WatchLimits> = {
  replayEventsMax: 100,
  replayRecordsMax: 500,
  eventsPerPass: 200,
  advanceRecordsMax: 300,
  advanceWatchersMax: 40,
  watchersPerPass: 64,
}

/** Bytes of events, in a measure of our own. */
const sizeOf = (events: readonly StoreEvent[]): number =>
  events.reduce((sum, { kv, prevKv }) => sum + kv.key.length + (prevKv ? 1000 : 1), 0)

/** A sink that checks what a stream promises, and what it got, a line a message. */
function recorder() {
  const lines: string[] = []
  const arrays = new Set<readonly StoreEvent[]>()
  let fragmentOf: number | undefined
  let left = 0
  const events: string[] = []
  const sink: WatchSink & { long: LongSink; writable: boolean; aborted: boolean } = {
    writable: true,
    aborted: false,
    send(message: WatchMessage): void {
      expect(left).toBe(0)
      if (fragmentOf !== undefined && !message.canceled) expect(message.watchId).toBe(fragmentOf)
      fragmentOf = message.fragment ? message.watchId : undefined
      const what = message.canceled ? 'canceled ' : message.created ? 'created ' : ''
      lines.push(`${message.watchId} ${what}${message.fragment ? '+' : ''}${message.events.length}`)
      keep(message.events)
    },
    long: {
      bytesOf: sizeOf,
      begin(message: WatchMessage, length: number): void {
        expect(left).toBe(0)
        expect(message.events).toEqual([])
        left = length
        lines.push(`${message.watchId} long`)
      },
      piece(part: readonly StoreEvent[]): void {
        left -= sizeOf(part)
        expect(left).toBeGreaterThanOrEqual(0)
        keep(part)
      },
      abort(): void {
        sink.aborted = true
        sink.writable = false
      },
    },
  }
  const keep = (part: readonly StoreEvent[]): void => {
    if (part.length > 0) arrays.add(part)
    for (const { type, kv } of part) events.push(`${type} ${text(kv.key)}@${kv.modRevision}`)
  }
  return { sink, lines, events, arrays, isComplete: () => left === 0 && fragmentOf === undefined }
}

/** A store of `count` keys below `k`, and one deletion of all of them from `remove`. */
function setUp(count: number) {
  const store = new MvccStore()
  const hub = new WatchHub(store, limits)
  for (let at = 0; at < count; at++) {
    store.put({ key: bytes(`k${String(at).padStart(6, '0')}`), value: bytes('v') })
    hub.advance()
  }
  const remove = (): void => {
    store.deleteRange({ key: bytes('k'), rangeEnd: bytes('l') })
    hub.advance()
  }
  const settle = (): number => {
    let passes = 1
    while (hub.sync()) passes++
    return passes
  }
  const watch = (more: Partial<WatchCreate> = {}) => {
    const watcher = recorder()
    const stream = hub.open(watcher.sink)
    hub.create(stream, request(more))
    return { ...watcher, stream }
  }
  return { store, hub, remove, settle, watch }
}

test('a revision larger than a slice is one message in pieces, a bounded part of it in a pass', () => {
  const { remove, settle, watch, store } = setUp(5000)
  const all = watch()
  const fragments = watch({ fragment: true })
  const narrow = watch({ key: bytes('k000007'), rangeEnd: none })
  remove()
  expect(settle()).toBeGreaterThan(5000 / 300)
  expect(all.lines).toEqual(['0 created 0', '0 long'])
  expect(all.isComplete() && fragments.isComplete()).toBe(true)
  expect(Math.max(...[...all.arrays].map(({ length }) => length))).toBe(100)
  expect(fragments.lines.slice(1)).toEqual([...new Array(49).fill('0 +100'), '0 100'])
  const wanted = Array.from(
    { length: 5000 },
    (_, at) => `delete k${String(at).padStart(6, '0')}@${store.revision}`,
  )
  expect(all.events).toEqual(wanted)
  expect(fragments.events).toEqual(wanted)
  expect(narrow.lines).toEqual(['0 created 0', '0 1'])
})

test('watchers of the same keys share the events of a large revision', () => {
  const { remove, settle, watch } = setUp(1000)
  const watchers = Array.from({ length: 50 }, () => watch())
  remove()
  settle()
  const arrays = new Set(watchers.flatMap((each) => [...each.arrays]))
  expect(watchers.every(({ events }) => events.length === 1000)).toBe(true)
  expect(arrays.size).toBeLessThanOrEqual(20)
})

test('of very many watchers only some are told in one turn, and all in the end', () => {
  const { hub, store, settle, watch } = setUp(1)
  const watchers = Array.from({ length: 200 }, () => watch())
  store.put({ key: bytes('k'), value: none })
  hub.advance()
  const told = (): number => watchers.filter(({ events }) => events.length === 1).length
  expect(told()).toBe(40)
  expect(settle()).toBeGreaterThan(1)
  expect(told()).toBe(200)
  expect(new Set(watchers.flatMap((each) => [...each.arrays])).size).toBe(2)
})

test('what else a stream has to say waits for the end of a large message, and a stalled one holds up nobody', () => {
  const { hub, store, remove, settle, watch } = setUp(1000)
  const stalled = watch()
  const other = watch({ fragment: true })
  remove()
  while (!stalled.lines.includes('0 long')) hub.sync()
  stalled.sink.writable = false
  settle()
  expect(stalled.isComplete()).toBe(false)
  expect(other.events).toHaveLength(1000)
  hub.create(stalled.stream, request({ startRevision: 2 }))
  hub.requestProgress(stalled.stream)
  hub.cancel(stalled.stream, 0)
  store.put({ key: bytes('k'), value: none })
  hub.advance()
  hub.notifyProgress()
  expect(other.lines.at(-1)).toBe('0 1')
  expect(stalled.lines).toEqual(['0 created 0', '0 long'])
  stalled.sink.writable = true
  settle()
  expect(stalled.isComplete()).toBe(true)
  expect(stalled.lines.slice(2, 4)).toEqual(['1 created 0', '0 canceled 0'])
  // The watcher that began while it waited sees everything from its start, and progress is told last.
  expect(stalled.events.slice(1000)).toHaveLength(2001)
  expect(stalled.lines.at(-1)).toBe('-1 0')
})

test('compaction in the midst of a large message ends the stream, of fragments the watch', () => {
  const { hub, store, remove, settle, watch } = setUp(1000)
  const whole = watch()
  const parts = watch({ fragment: true })
  remove()
  while (parts.lines.length < 2) hub.sync()
  parts.sink.writable = false
  while (whole.lines.length < 2) hub.sync()
  parts.sink.writable = true
  store.put({ key: bytes('x'), value: none })
  store.compact(store.revision)
  while (store.reclaim(1000));
  settle()
  expect(whole.sink.aborted).toBe(true)
  expect(parts.lines.at(-1)).toBe('0 canceled 0')
  expect(parts.isComplete()).toBe(true)
  expect(whole.events.length).toBeLessThan(1000)
})

test('a compaction right after a large deletion takes nothing from watchers that are up to date', () => {
  const { hub, store, remove, settle, watch } = setUp(2000)
  const narrow = watch({ key: bytes('k001999'), rangeEnd: none })
  remove()
  store.put({ key: bytes('x'), value: none })
  hub.advance()
  store.compact(store.revision)
  while (store.reclaim(1000));
  expect(narrow.events).toEqual([])
  settle()
  expect(narrow.events).toEqual([`delete k001999@${store.revision - 1}`])
  expect(store.reclaim(1000) || store.isReclaimPending).toBe(true)
  while (store.reclaim(1000));
  expect(store.history.count).toBe(1)
})

test('a watch from now on that begins while the last revision is told sees nothing of it', () => {
  const { hub, remove, settle, watch } = setUp(1000)
  watch({ key: bytes('k000999'), rangeEnd: none })
  remove()
  expect(hub.hasWork).toBe(true)
  const late = watch()
  settle()
  expect(late.events).toEqual([])
  expect(hub.hasWork).toBe(false)
})

test('whatever is written, compacted and read, each stream gets whole revisions in order, or is told that it cannot', () => {
  const step = fc.oneof(
    { weight: 4, arbitrary: fc.record({ put: fc.constantFrom('a', 'ab', 'b', 'c', 'ca') }) },
    { weight: 2, arbitrary: fc.record({ remove: fc.constantFrom('a', 'b') }) },
    { weight: 2, arbitrary: fc.record({ writable: fc.boolean(), at: fc.nat(2) }) },
    { weight: 4, arbitrary: fc.constant({ sync: true }) },
    { weight: 1, arbitrary: fc.record({ compact: fc.nat(3), reclaim: fc.boolean() }) },
    {
      weight: 3,
      arbitrary: fc.record({
        watch: fc.constantFrom('a', 'b', 'ab'),
        end: fc.constantFrom('', 'b', 'c', '\0'),
        fragment: fc.boolean(),
        prevKv: fc.boolean(),
        at: fc.nat(2),
      }),
    },
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const store = new MvccStore({ chunkRecords: 2 })
      const tiny = { replayEventsMax: 2, replayRecordsMax: 3, eventsPerPass: 3, advanceRecordsMax: 2 }
      const hub = new WatchHub(store, { ...tiny, watchersPerPass: 2 })
      const written: { line: string; key: string; revision: number }[] = []
      const streams = Array.from({ length: 3 }, () => {
        const record = recorder()
        return { ...record, stream: hub.open(record.sink), wanted: [] as (() => string[])[] }
      })
      const remove = (from: string): void => {
        const end = `${from}~`
        const keys = store.range({ key: bytes(from), rangeEnd: bytes(end) })
        store.deleteRange({ key: bytes(from), rangeEnd: bytes(end) })
        if (!keys.ok) return
        for (const { key } of keys.value.kvs) {
          written.push({
            line: `delete ${text(key)}@${store.revision}`,
            key: text(key),
            revision: store.revision,
          })
        }
        hub.advance()
      }
      for (const each of steps) {
        if ('put' in each) {
          store.put({ key: bytes(each.put), value: none })
          written.push({
            line: `put ${each.put}@${store.revision}`,
            key: each.put,
            revision: store.revision,
          })
          hub.advance()
        } else if ('remove' in each) remove(each.remove)
        else if ('writable' in each) {
          const { sink } = streams[each.at]!
          sink.writable = each.writable && !sink.aborted
        } else if ('sync' in each) hub.sync()
        else if ('compact' in each) {
          store.compact(store.revision - each.compact)
          if (each.reclaim) while (store.reclaim(2));
        } else {
          const { stream, wanted } = streams[each.at]!
          const from = store.revision + 1
          const { watch, end, fragment, prevKv } = each
          const span = { key: bytes(watch), rangeEnd: bytes(end) }
          hub.create(stream, request({ ...span, fragment, prevKv }))
          const isIn = (key: string): boolean =>
            end === '' ? key === watch : key >= watch && (end === '\0' || key < end)
          wanted.push(() =>
            written.filter(({ key, revision }) => revision >= from && isIn(key)).map(({ line }) => line),
          )
        }
      }
      for (const { sink } of streams) sink.writable = !sink.aborted
      while (hub.sync());
      for (const { sink, stream, events, lines, wanted, isComplete } of streams) {
        if (sink.aborted) continue
        expect(isComplete()).toBe(true)
        if (lines.some((line) => line.includes('canceled')) || stream.held.length > 0) continue
        expect([...events].sort()).toEqual(wanted.flatMap((of) => of()).sort())
      }
    }),
    { numRuns: 500 },
  )
})

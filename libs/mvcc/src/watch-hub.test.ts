import fc from 'fast-check'
import { expect, test } from 'vitest'
import { encodeSnapshot, restoreSnapshot } from './snapshot.ts'
import { MvccStore } from './store.ts'
import { WatchHub } from './watch-hub.ts'
import type { WatchCreate, WatchLimits, WatchMessage } from './watcher.ts'

const bytes = (text: string): Uint8Array => Buffer.from(text, 'latin1')
const text = (value: Uint8Array): string => Buffer.from(value).toString('latin1')
const none = new Uint8Array(0)

const request = (more: Partial<WatchCreate> = {}): WatchCreate => ({
  key: bytes('a'),
  rangeEnd: none,
  startRevision: 0,
  watchId: 0,
  prevKv: false,
  noPut: false,
  noDelete: false,
  fragment: false,
  progressNotify: false,
  ...more,
})

function setUp(limits: Partial<WatchLimits> = {}) {
  const store = new MvccStore()
  const hub = new WatchHub(store, limits)
  const sent: WatchMessage[] = []
  const sink = { writable: true, send: (message: WatchMessage) => void sent.push(message) }
  const stream = hub.open(sink)
  const put = (key: string, value = ''): void => {
    store.put({ key: bytes(key), value: bytes(value) })
    hub.advance()
  }
  const remove = (key: string): void => {
    store.deleteRange({ key: bytes(key), rangeEnd: none })
    hub.advance()
  }
  const settle = (): void => {
    while (hub.sync());
  }
  /** What was sent since the last call, a line each. */
  const lines = (): string[] =>
    sent.splice(0).map((message) => {
      const mark = [
        message.created ? 'created' : '',
        message.canceled ? `canceled compact=${message.compactRevision}` : '',
        message.fragment ? 'fragment' : '',
        ...message.events.map(
          ({ type, kv, prevKv }) =>
            `${type} ${text(kv.key)}=${text(kv.value)}@${kv.modRevision}` +
            (prevKv ? ` was ${text(prevKv.value)}` : ''),
        ),
      ].filter((part) => part !== '')
      return `${message.watchId} r${message.revision}: ${mark.join(', ')}`
    })
  return { store, hub, sink, stream, put, remove, settle, lines }
}

test('a watcher hears of its key from now on and of nothing else', () => {
  const { hub, stream, put, remove, lines } = setUp()
  put('a', '0')
  hub.create(stream, request())
  put('a', '1')
  put('b', 'x')
  remove('a')
  expect(lines()).toEqual(['0 r2: created', '0 r3: put a=1@3', '0 r5: delete a=@5'])
})

test('a watcher from the past gets the history and then what follows, without a gap', () => {
  const { hub, stream, put, remove, settle, lines } = setUp()
  put('a', '0')
  put('a', '1')
  remove('a')
  hub.create(stream, request({ startRevision: 2, prevKv: true }))
  put('a', '2')
  settle()
  put('a', '3')
  expect(lines()).toEqual([
    '0 r4: created',
    '0 r5: put a=0@2, put a=1@3 was 0, delete a=@4 was 1, put a=2@5',
    '0 r6: put a=3@6 was 2',
  ])
})

test('a watcher of a future revision waits for it', () => {
  const { hub, stream, put, lines } = setUp()
  hub.create(stream, request({ startRevision: 4 }))
  for (const value of ['2', '3', '4']) put('a', value)
  expect(lines()).toEqual(['0 r1: created', '0 r4: put a=4@4'])
})

test('a watcher that starts below the compaction is created and then canceled', () => {
  const { store, hub, stream, put, settle, lines } = setUp()
  for (const value of ['2', '3', '4']) put('a', value)
  store.compact(3)
  hub.create(stream, request({ startRevision: 2 }))
  hub.create(stream, request({ startRevision: 3 }))
  settle()
  expect(lines()).toEqual([
    '0 r4: created',
    '1 r4: created',
    '0 r0: canceled compact=3',
    '1 r4: put a=3@3, put a=4@4',
  ])
  expect(hub.watcherCount).toBe(1)
})

test('a deletion exactly at the compacted revision still reaches a watcher that starts there', () => {
  const { store, hub, stream, put, remove, settle, lines } = setUp()
  put('a')
  remove('a')
  store.compact(3)
  hub.create(stream, request({ startRevision: 3 }))
  settle()
  expect(lines().at(-1)).toBe('0 r3: delete a=@3')
})

test('filters drop puts or deletions', () => {
  const { hub, stream, put, remove, settle, lines } = setUp()
  hub.create(stream, request({ noPut: true }))
  put('a')
  remove('a')
  hub.create(stream, request({ noDelete: true, startRevision: 1 }))
  settle()
  expect(lines()).toEqual(['0 r1: created', '0 r3: delete a=@3', '1 r3: created', '1 r3: put a=@2'])
})

test('one transaction arrives as one message', () => {
  const { store, hub, stream, lines } = setUp()
  hub.create(stream, request({ rangeEnd: bytes('c') }))
  const put = (key: string) => ({ kind: 'put' as const, request: { key: bytes(key), value: none } })
  store.txn({ compare: [], success: [put('a'), put('b'), put('c')], failure: [] })
  hub.advance()
  expect(lines()).toEqual(['0 r1: created', '0 r2: put a=@2, put b=@2'])
})

test('fragments split a large message and all but the last say so', () => {
  const { store, hub, stream, lines } = setUp({ fragmentBytesMax: 120 })
  hub.create(stream, request({ rangeEnd: bytes('c'), fragment: true }))
  const put = (key: string) => ({
    kind: 'put' as const,
    request: { key: bytes(key), value: Buffer.alloc(50, 'v') },
  })
  store.txn({ compare: [], success: [put('a'), put('b')], failure: [] })
  hub.advance()
  expect(lines().map((line) => line.replace(/v+/, 'v'))).toEqual([
    '0 r1: created',
    '0 r2: fragment, put a=v@2',
    '0 r2: put b=v@2',
  ])
})

test('a slow stream loses nothing and queues nothing', () => {
  const { hub, stream, sink, put, settle, lines } = setUp()
  hub.create(stream, request())
  sink.writable = false
  put('a', '1')
  put('a', '2')
  settle()
  expect(lines()).toEqual(['0 r1: created'])
  sink.writable = true
  settle()
  put('a', '3')
  expect(lines()).toEqual(['0 r3: put a=1@2, put a=2@3', '0 r4: put a=3@4'])
})

test('a progress request is answered once all watchers of the stream are up to date', () => {
  const { hub, stream, put, settle, lines } = setUp()
  put('a', '1')
  hub.create(stream, request({ startRevision: 1 }))
  hub.requestProgress(stream)
  settle()
  expect(lines()).toEqual(['0 r2: created', '0 r2: put a=1@2', '-1 r2: '])
  hub.create(stream, request({ startRevision: 4 }))
  hub.requestProgress(stream)
  expect(lines()).toEqual(['1 r2: created'])
  put('b')
  expect(lines()).toEqual(['-1 r3: '])
})

test('periodic progress goes to quiet watchers that asked for it', () => {
  const { hub, stream, put, lines } = setUp()
  hub.create(stream, request({ progressNotify: true }))
  hub.create(stream, request({ key: bytes('b'), progressNotify: true }))
  hub.create(stream, request())
  put('a')
  lines()
  hub.notifyProgress()
  expect(lines()).toEqual(['1 r2: '])
  hub.notifyProgress()
  expect(lines()).toEqual(['0 r2: ', '1 r2: '])
})

test('ids are counted from zero, may be chosen, and must not be in use', () => {
  const { hub, stream, lines } = setUp()
  hub.create(stream, request())
  hub.create(stream, request({ watchId: 1 }))
  hub.create(stream, request())
  hub.create(stream, request({ watchId: 1 }))
  expect(lines()).toEqual([
    '0 r1: created',
    '1 r1: created',
    '2 r1: created',
    '-1 r1: created, canceled compact=0',
  ])
  expect(hub.cancel(stream, 1)).toBe(true)
  expect(hub.cancel(stream, 9)).toBe(false)
  expect(lines()).toEqual(['1 r1: canceled compact=0'])
})

test('watchers go on after the store was replaced by a snapshot', () => {
  const { store, hub, stream, put, settle, lines } = setUp()
  hub.create(stream, request())
  put('a', '1')
  const ahead = new MvccStore()
  restoreSnapshot(ahead, Buffer.concat([...encodeSnapshot(store)]))
  ahead.put({ key: bytes('a'), value: bytes('2') })
  ahead.put({ key: bytes('a'), value: bytes('3') })
  lines()
  restoreSnapshot(store, Buffer.concat([...encodeSnapshot(ahead)]))
  hub.reset()
  settle()
  put('a', '4')
  expect(lines()).toEqual(['0 r4: put a=2@3, put a=3@4', '0 r5: put a=4@5'])
})

test('whatever a consumer’s pace and the compactions, each watcher sees exactly its history, in order', () => {
  const step = fc.oneof(
    { weight: 5, arbitrary: fc.record({ put: fc.constantFrom('a', 'ab', 'b', 'c') }) },
    { weight: 2, arbitrary: fc.record({ remove: fc.constantFrom('a', 'ab', 'b') }) },
    { weight: 2, arbitrary: fc.record({ writable: fc.boolean() }) },
    { weight: 2, arbitrary: fc.constant({ sync: true }) },
    { weight: 1, arbitrary: fc.record({ compact: fc.nat(3) }) },
    {
      weight: 2,
      arbitrary: fc.record({ watch: fc.constantFrom('a', 'b'), back: fc.integer({ min: -3, max: 4 }) }),
    },
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 50 }), (steps) => {
      const store = new MvccStore()
      const hub = new WatchHub(store, { replayEventsMax: 2, replayRecordsMax: 3, watchersPerPass: 2 })
      const written: { line: string; key: string; revision: number }[] = []
      const seen = new Map<number, { lines: string[]; span: [string, string]; from: number; over: boolean }>()
      const sink = {
        writable: true,
        send: (message: WatchMessage): void => {
          const watcher = seen.get(message.watchId)
          if (message.canceled) watcher!.over = true
          for (const { type, kv } of message.events) {
            expect(kv.modRevision).toBeLessThanOrEqual(message.revision)
            watcher!.lines.push(`${type} ${text(kv.key)}@${kv.modRevision}`)
          }
        },
      }
      const stream = hub.open(sink)
      const note = (type: string, key: string): void => {
        written.push({ line: `${type} ${key}@${store.revision}`, key, revision: store.revision })
        hub.advance()
      }
      for (const each of steps) {
        if ('put' in each) {
          store.put({ key: bytes(each.put), value: none })
          note('put', each.put)
        } else if ('remove' in each) {
          const outcome = store.deleteRange({ key: bytes(each.remove), rangeEnd: none })
          if (outcome.ok && outcome.value.deleted > 0) note('delete', each.remove)
        } else if ('writable' in each) sink.writable = each.writable
        else if ('sync' in each) hub.sync()
        else if ('compact' in each) store.compact(store.revision - each.compact)
        else {
          const from = Math.max(1, store.revision + 1 - each.back)
          const end = each.watch === 'a' ? 'b' : ''
          seen.set(seen.size, { lines: [], span: [each.watch, end || `${each.watch}\0`], from, over: false })
          hub.create(stream, request({ key: bytes(each.watch), rangeEnd: bytes(end), startRevision: from }))
        }
      }
      sink.writable = true
      while (hub.sync());
      for (const { lines, span, from, over } of seen.values()) {
        const wanted = written
          .filter(({ key, revision }) => revision >= from && key >= span[0] && key < span[1])
          .map(({ line }) => line)
        expect(lines).toEqual(over ? wanted.slice(0, lines.length) : wanted)
      }
    }),
    { numRuns: 400 },
  )
})

test('a revision that is met in its midst, behind many that say nothing, is told once and as of itself', () => {
  const { store, settle, lines, hub, stream } = setUp({ replayRecordsMax: 4 })
  for (const key of ['x', 'y']) store.put({ key: bytes(key), value: bytes('') })
  const success = ['a1', 'a2', 'a3', 'b1', 'b2'].map((key) => ({
    kind: 'put' as const,
    request: { key: bytes(key), value: bytes('') },
  }))
  store.txn({ compare: [], success, failure: [] })
  hub.create(stream, request({ key: bytes('b'), rangeEnd: bytes('c'), startRevision: 2, fragment: true }))
  settle()
  expect(lines()).toEqual(['0 r4: created', '0 r4: put b1=@4, put b2=@4'])
})

test('a watcher of what is still to come waits for it, also when the store is replaced meanwhile', () => {
  const { store, settle, lines, hub, stream, put } = setUp()
  hub.create(stream, request({ startRevision: 5 }))
  const other = new MvccStore()
  other.put({ key: bytes('a'), value: bytes('1') })
  restoreSnapshot(store, Buffer.concat([...encodeSnapshot(other)]))
  hub.reset()
  settle()
  for (const value of ['2', '3', '4']) put('a', value)
  expect(lines()).toEqual(['0 r1: created', '0 r5: put a=4@5'])
})

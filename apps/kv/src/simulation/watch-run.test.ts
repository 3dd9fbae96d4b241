import type { WatchMessage } from '@kiln/mvcc'
import { expect, test } from 'vitest'
import { type WatchedEvent, Watcher } from './watch-check.ts'
import { runWatch } from './watch-run.ts'

test('watchers get every event once and in order, wherever they go on', () => {
  let [events, cancelled] = [0, 0]
  for (let seed = 1; seed <= 60; seed++) {
    const { breach, figures } = runWatch({ seed, steps: 1500 })
    expect(breach, `seed ${seed}`).toBeUndefined()
    events += figures.events
    cancelled += figures.cancelled
  }
  expect(events).toBeGreaterThan(10_000)
  expect(cancelled).toBeGreaterThan(100)
})

const truth: WatchedEvent[] = [2, 3, 3].map((revision, at) => ({
  revision,
  type: 'put',
  key: `k${at}`,
  value: '',
}))
const message = (...events: WatchedEvent[]): WatchMessage => ({
  watchId: 0,
  revision: 3,
  created: false,
  canceled: false,
  compactRevision: 0,
  cancelReason: '',
  fragment: false,
  events: events.map(({ revision, type, key, value }) => ({
    type,
    kv: {
      key: Buffer.from(key),
      value: Buffer.from(value),
      createRevision: revision,
      modRevision: revision,
      version: 1,
      lease: 0n,
    },
    prevKv: undefined,
  })),
})
function breachAfter(...messages: WatchMessage[]): string | undefined {
  const asked = {
    key: 'k',
    rangeEnd: 'l',
    nextRevision: 1,
    noPut: false,
    noDelete: false,
    fragment: false,
  }
  const watcher = new Watcher(asked)
  const sink = watcher.connect(() => undefined)
  watcher.expectFrom(truth)
  for (const each of messages) sink.send(each)
  watcher.complete(truth)
  return watcher.breach
}

test('the check tells events that are missed, doubled, out of order, or sent as of an earlier revision', () => {
  const [a, b, c] = truth as [WatchedEvent, WatchedEvent, WatchedEvent]
  expect(breachAfter(message(a), message(b, c))).toBeUndefined()
  expect(breachAfter(message(a))).toContain('was never told of put k1=@3')
  expect(breachAfter(message(a, b))).toContain('was not told of put k2=@3')
  expect(breachAfter(message(b, c))).toContain('instead of put k0=@2')
  expect(breachAfter(message(a), message(a, b, c))).toContain('told of put k0=@2 instead of put k1=@3')
  expect(breachAfter(message(a, c, b))).toContain('told of put k2=@3 instead of put k1=@3')
  expect(breachAfter({ ...message(a, b, c), revision: 2 })).toContain('as of revision 2')
  expect(breachAfter(message(a), { ...message(), canceled: true, compactRevision: 1 })).toContain(
    'compaction at 1',
  )
})

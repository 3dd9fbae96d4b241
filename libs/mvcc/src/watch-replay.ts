import { contains, isSingle } from './key.ts'
import type { KeyValue, StoreEvent } from './requests.ts'
import type { MvccStore } from './store.ts'
import { ValueFetch } from './value-memory.ts'
import type { Watcher, WatchLimits } from './watcher.ts'

const nothing = new Uint8Array(0)
/** What an event takes in a message besides its bytes. */
const eventOverheadBytes = 48

/** Values of events that have to be fetched before the events are told. */
export class EventValues {
  readonly fetch = new ValueFetch()
  readonly #kvs: KeyValue[] = []

  get isEmpty(): boolean {
    return this.#kvs.length === 0
  }

  /** A key whose value comes with `fill`, if it is not in memory. */
  keyValue({ history }: MvccStore, record: number): KeyValue {
    if (!history.hasOut || !history.isOut(record)) return history.keyValue(record)
    const kv = history.keyValue(record, true)
    history.want(this.fetch, record)
    this.#kvs.push(kv)
    return kv
  }

  /** To be called when what was wanted is put. */
  fill(): void {
    this.fetch.complete.forEach((value, at) => {
      this.#kvs[at]!.value = value
    })
  }
}

/** Without `values` those of the event must be in memory. */
export function eventOf(
  store: MvccStore,
  record: number,
  withPrevKv: boolean,
  values?: EventValues,
): StoreEvent {
  const { history } = store
  const pair = (of: number): KeyValue => values?.keyValue(store, of) ?? history.keyValue(of)
  const revision = history.revision(record)
  // Of what came up to the compaction only the newest is left.
  const prev = withPrevKv && revision > history.compactRevision ? history.prev(record) : -1
  const prevKv = prev >= 0 && history.version(prev) > 0 ? pair(prev) : undefined
  if (history.version(record) > 0) return { type: 'put', kv: pair(record), prevKv }
  const kv = {
    key: history.keyBytes(record),
    value: nothing,
    createRevision: 0,
    modRevision: revision,
    version: 0,
    lease: 0n,
  }
  return { type: 'delete', kv, prevKv }
}

/** Where a watcher's next slice begins. */
export type ReplayPlace = {
  revision: number
  /** The record within the revision to go on with; -1 is its first. */
  record: number
}

/** The next events that a lagging watcher wants: of whole revisions, unless one alone is more than a slice. */
export type ReplaySlice = {
  events: StoreEvent[]
  /** Where to go on. With a record, all events are of that revision and it has more to be looked at. */
  next: ReplayPlace
  /** Records that were looked at. */
  looked: number
  /** What has to come before the events are told. */
  missing: EventValues
}

type Scan = {
  store: MvccStore
  watcher: Watcher
  revisionNow: number
  limits: WatchLimits
  missing: EventValues
}

/** Whether what an event tells is in memory. */
export function isReady({ history }: MvccStore, record: number, withPrevKv: boolean): boolean {
  if (history.isOut(record)) return false
  const prev = withPrevKv ? history.prev(record) : -1
  return prev < 0 || !history.isOut(prev)
}

export function nextSlice(asked: Omit<Scan, 'missing'>, from: ReplayPlace): ReplaySlice {
  const scan = { ...asked, missing: new EventValues() }
  if (isSingle(scan.watcher.span) && from.record < 0) {
    const slice = nextOfKey(scan, from)
    if (slice) return slice
  }
  return scanSlice(scan, from)
}

function scanSlice({ store, watcher, revisionNow, limits, missing }: Scan, from: ReplayPlace): ReplaySlice {
  const { history } = store
  const { prevKv, noPut, noDelete } = watcher.options
  const isWithin = from.record >= 0
  const until = isWithin ? from.revision : revisionNow
  const events: StoreEvent[] = []
  let bytes = 0
  let looked = 0
  let last = from.revision - 1
  /** Events of revisions that are complete. */
  let complete = 0
  let record = isWithin ? history.atOrAfter(from.record) : history.fromRevision(from.revision)
  for (; record >= 0; record = history.atOrAfter(record + 1)) {
    const revision = history.revision(record)
    if (revision > until) break
    if (revision > last) complete = events.length
    if (
      events.length >= limits.replayEventsMax ||
      bytes >= limits.replayBytesMax ||
      looked >= limits.replayRecordsMax
    ) {
      // What a revision has is told at once, so what began comes with the next slice, if there is something to tell before it.
      if (!isWithin && (revision > last || complete > 0)) {
        return { events: events.slice(0, complete), next: { revision, record: -1 }, looked, missing }
      }
      return { events, next: { revision, record }, looked, missing }
    }
    last = revision
    looked++
    if (!contains(watcher.span, history.key(record))) continue
    if (history.version(record) > 0 ? noPut : noDelete) continue
    const event = eventOf(store, record, prevKv, missing)
    bytes += sizeIn(store, record, event)
    events.push(event)
  }
  return { events, next: { revision: until + 1, record: -1 }, looked, missing }
}

/** One key: its own chain of versions, instead of all that happened; undefined if that is long. */
function nextOfKey(
  { store, watcher, revisionNow, limits, missing }: Scan,
  from: ReplayPlace,
): ReplaySlice | undefined {
  const { history, index } = store
  const { prevKv, noPut, noDelete } = watcher.options
  const chain: number[] = []
  let looked = 0
  let record = index.get(watcher.span.start)
  for (; record >= 0 && history.revision(record) >= from.revision; record = history.prev(record)) {
    if (looked++ >= limits.replayRecordsMax) return undefined
    if (history.version(record) > 0 ? noPut : noDelete) continue
    if (history.revision(record) <= revisionNow) chain.push(record)
  }
  const events: StoreEvent[] = []
  let bytes = 0
  for (let at = chain.length - 1; at >= 0; at--) {
    const revision = history.revision(chain[at]!)
    const isFull = events.length >= limits.replayEventsMax || bytes >= limits.replayBytesMax
    if (isFull && revision > events.at(-1)!.kv.modRevision) {
      return { events, next: { revision, record: -1 }, looked, missing }
    }
    const event = eventOf(store, chain[at]!, prevKv, missing)
    bytes += sizeIn(store, chain[at]!, event)
    events.push(event)
  }
  return { events, next: { revision: revisionNow + 1, record: -1 }, looked, missing }
}

/** Splits events into messages of at most `bytesMax`, each with at least one event. */
export function fragments(events: readonly StoreEvent[], bytesMax: number): StoreEvent[][] {
  const parts: StoreEvent[][] = [[]]
  let bytes = 0
  for (const event of events) {
    const size = sizeOf(event)
    if (bytes + size > bytesMax && parts.at(-1)!.length > 0) {
      parts.push([])
      bytes = 0
    }
    parts.at(-1)!.push(event)
    bytes += size
  }
  return parts
}

/** The same of an event whose values may still be missing. */
function sizeIn({ history }: MvccStore, record: number, event: StoreEvent): number {
  if (!history.hasOut) return sizeOf(event)
  const prev = event.prevKv ? history.dataBytesOf(history.prev(record)) + eventOverheadBytes : 0
  return history.dataBytesOf(record) + prev + eventOverheadBytes
}

function sizeOf({ kv, prevKv }: StoreEvent): number {
  const prev = prevKv ? prevKv.key.length + prevKv.value.length + eventOverheadBytes : 0
  return kv.key.length + kv.value.length + prev + eventOverheadBytes
}

import type { StoreEvent } from './requests.ts'
import type { MvccStore } from './store.ts'
import type { ValueFetch } from './value-memory.ts'
import { fragments, nextSlice, type ReplayPlace, type ReplaySlice } from './watch-replay.ts'
import { emptyMessage, isOpen, type Watcher, type WatchLimits, type WatchStream } from './watcher.ts'

/** What the replayer needs of the hub. */
export type ReplayPort = {
  send(watcher: Watcher, events: readonly StoreEvent[], revision: number): void
  /** The watcher has seen all there is. */
  caughtUp(watcher: Watcher): void
  /** The watcher was canceled. */
  drop(watcher: Watcher): void
  /** The stream is no longer busy. */
  freed(stream: WatchStream): void
}

/** A revision that is more than a slice, on its way to a watcher. */
type LongRevision = {
  next: ReplayPlace
  isSending: boolean
  /** When it began: what the revision's events are may change with it. */
  compactRevision: number
  /** Not sending yet: what there is so far, while it is no more than a slice. With fragments: what waits for a sign of more. */
  events: readonly StoreEvent[]
  count: number
  bytes: number
}

/** A slice whose values are being fetched for a watcher. */
type Fetching = { name: string; slice: ReplaySlice; compactRevision: number; isDone: boolean }

/** What has to be fetched before watchers can go on; `done` is called when all of it is put. */
export type WatchFetch = { fetch: ValueFetch; done(): void }

/** Slices being fetched at a time, and those fetched whose watchers do not read. */
const fetchingMax = 4
const fetchedMax = 16
/** Slices kept for watchers that are at the same place. */
const sharedMax = 8
/** What sending a slice again costs, and looking at a record, in events built. */
const sharedCost = 1 / 50
const lookCost = 1 / 20

/** Brings watchers that lag up to date from the history, a slice of one at a time, in turn. */
export class Replayer {
  readonly #store: MvccStore
  readonly #limits: WatchLimits
  readonly #port: ReplayPort
  readonly #watchers = new Set<Watcher>()
  readonly #long = new Map<Watcher, LongRevision>()
  /** The newest slices: watchers that fell behind together go on together, and what they see is encoded once. */
  readonly #shared = new Map<
    string,
    { slice: ReplaySlice; revisionNow: number; compactRevision: number; isFetched: boolean }
  >()
  readonly #fetching = new Map<Watcher, Fetching>()
  /** Watchers that cannot go on before something is fetched. */
  readonly #waiting = new Set<Watcher>()
  #wanted: WatchFetch[] = []

  /** In this pass: others of its stream may go on. */
  #isStreamFreed = false

  constructor(store: MvccStore, limits: WatchLimits, port: ReplayPort) {
    this.#store = store
    this.#limits = limits
    this.#port = port
  }

  get count(): number {
    return this.#watchers.size
  }

  add(watcher: Watcher): void {
    this.#watchers.add(watcher)
  }

  remove(watcher: Watcher): void {
    this.#watchers.delete(watcher)
    this.#long.delete(watcher)
    this.#fetching.delete(watcher)
    this.#waiting.delete(watcher)
  }

  /** What has to be fetched since the last time it was asked for. */
  takeFetches(): WatchFetch[] {
    const wanted = this.#wanted
    this.#wanted = []
    return wanted
  }

  /** The history is another one. A message in the midst of a revision has no end any more. */
  reset(): void {
    for (const watcher of this.#long.keys()) if (watcher.stream.busy === watcher) this.#abort(watcher)
    this.#long.clear()
    this.#shared.clear()
    this.#fetching.clear()
    this.#waiting.clear()
  }

  /** A slice to each watcher that can take one, within the bounds of a pass. True if another pass has something to do at once. */
  pass(): boolean {
    let { watchersPerPass: watchers, eventsPerPass: events } = this.#limits
    let left = this.#watchers.size
    let isMore = false
    this.#isStreamFreed = false
    for (const watcher of this.#watchers) {
      if (left-- === 0) break
      if (!mayGo(watcher) || this.#waiting.has(watcher)) continue
      if (watchers-- === 0 || events <= 0) return true
      // Those before it have had their turn.
      this.#watchers.delete(watcher)
      this.#watchers.add(watcher)
      events -= this.#step(watcher)
      if (this.#watchers.has(watcher) && mayGo(watcher) && !this.#waiting.has(watcher)) isMore = true
    }
    if (this.#watchers.size === 0) this.#shared.clear()
    return isMore || (this.#isStreamFreed && this.#watchers.size > 0)
  }

  /** Answers what it cost. */
  #step(watcher: Watcher): number {
    const { compactRevision } = this.#store
    if (watcher.nextRevision < compactRevision || watcher.nextRevision < 0) {
      this.#cancelCompacted(watcher)
      return 1
    }
    const long = this.#long.get(watcher)
    if (long && long.compactRevision !== compactRevision && !isFragmented(watcher)) {
      // The previous values may be gone, and with them the length that was measured.
      if (!long.isSending || watcher.options.prevKv) {
        if (long.isSending) this.#abort(watcher)
        this.#long.delete(watcher)
        return 1
      }
    }
    const found = this.#slice(watcher, long?.next ?? { revision: watcher.nextRevision, record: -1 })
    if (!found) {
      this.#waiting.add(watcher)
      return 1
    }
    const { slice, cost } = found
    if (long) this.#stepLong(watcher, long, slice)
    else if (slice.next.record >= 0) {
      // What came before that revision was looked at and has nothing to tell.
      watcher.nextRevision = slice.next.revision
      const begun = { isSending: false, compactRevision, events: [], count: 0, bytes: 0, next: slice.next }
      this.#long.set(watcher, begun)
      this.#stepLong(watcher, begun, slice)
    } else {
      if (slice.events.length > 0) this.#port.send(watcher, slice.events, slice.next.revision - 1)
      this.#moveTo(watcher, slice.next.revision)
    }
    return cost
  }

  #stepLong(watcher: Watcher, long: LongRevision, slice: ReplaySlice): void {
    long.next = slice.next
    const isLast = slice.next.record < 0
    if (isFragmented(watcher)) this.#fragment(watcher, long, { events: slice.events, isLast })
    else if (long.isSending) {
      watcher.stream.sink.long!.piece(slice.events)
      if (isLast) this.#finish(watcher)
    } else this.#measure(watcher, long, { events: slice.events, isLast })
  }

  /** What came before goes out as soon as it is known not to be the last. */
  #fragment(
    watcher: Watcher,
    long: LongRevision,
    { events, isLast }: { events: readonly StoreEvent[]; isLast: boolean },
  ): void {
    const { stream } = watcher
    const emit = (isEnd: boolean): void => {
      const parts = fragments(long.events, this.#limits.fragmentBytesMax)
      parts.forEach((part, at) => {
        const fragment = !isEnd || at < parts.length - 1
        const { nextRevision: revision, id: watchId } = watcher
        stream.sink.send({ ...emptyMessage, watchId, revision, events: part, fragment })
      })
    }
    if (events.length > 0) {
      if (long.events.length > 0) {
        stream.busy = watcher
        emit(false)
      }
      long.events = events
    }
    if (!isLast) return
    if (long.events.length > 0) emit(true)
    this.#finish(watcher)
  }

  /** A message begins with its length, so all of it is looked at before it is sent. */
  #measure(
    watcher: Watcher,
    long: LongRevision,
    { events, isLast }: { events: readonly StoreEvent[]; isLast: boolean },
  ): void {
    const { stream, id: watchId, nextRevision: revision } = watcher
    const { replayEventsMax, replayBytesMax } = this.#limits
    long.count += events.length
    long.bytes += stream.sink.long!.bytesOf(events)
    const isSmall = long.count <= replayEventsMax && long.bytes <= replayBytesMax
    long.events = isSmall ? [...long.events, ...events] : []
    if (!isLast) return
    if (isSmall) {
      if (long.count > 0) this.#port.send(watcher, long.events, revision)
      this.#finish(watcher)
      return
    }
    watcher.wasBusy = true
    stream.busy = watcher
    long.isSending = true
    long.next = { revision, record: this.#store.history.fromRevision(revision) }
    stream.sink.long!.begin({ ...emptyMessage, watchId, revision }, long.bytes)
  }

  #finish(watcher: Watcher): void {
    this.#long.delete(watcher)
    watcher.wasBusy = true
    this.#moveTo(watcher, watcher.nextRevision + 1)
    this.#free(watcher)
  }

  #free(watcher: Watcher): void {
    const { stream } = watcher
    if (stream.busy !== watcher) return
    stream.busy = undefined
    this.#isStreamFreed = true
    this.#port.freed(stream)
  }

  #moveTo(watcher: Watcher, nextRevision: number): void {
    // Its first revision may lie ahead of all there is, when the store was replaced.
    watcher.nextRevision = Math.max(watcher.nextRevision, nextRevision)
    if (watcher.nextRevision <= this.#store.revision) return
    this.#watchers.delete(watcher)
    this.#port.caughtUp(watcher)
  }

  #cancelCompacted(watcher: Watcher): void {
    const { stream, id: watchId } = watcher
    if (stream.busy === watcher && !isFragmented(watcher)) {
      this.#abort(watcher)
      return
    }
    this.remove(watcher)
    this.#port.drop(watcher)
    const { compactRevision } = this.#store
    const cancelReason = 'etcdserver: mvcc: required revision has been compacted'
    stream.sink.send({ ...emptyMessage, watchId, canceled: true, compactRevision, cancelReason })
    this.#free(watcher)
  }

  /** A message that cannot be completed: the stream ends, and whoever follows on is told of the compaction. It stays busy until it is closed. */
  #abort(watcher: Watcher): void {
    this.remove(watcher)
    watcher.stream.sink.long?.abort()
  }

  /** Undefined if values of it have to be fetched first. */
  #slice(watcher: Watcher, from: ReplayPlace): { slice: ReplaySlice; cost: number } | undefined {
    const { revision: revisionNow, compactRevision } = this.#store
    const { span, options } = watcher
    const flags = (options.prevKv ? 1 : 0) + (options.noPut ? 2 : 0) + (options.noDelete ? 4 : 0)
    const end = span.end ?? '\uffff'
    const name = `${flags},${from.revision},${from.record},${span.start.length},${span.start}${end}`
    const own = this.#fetching.get(watcher)
    if (own?.name === name && own.compactRevision === compactRevision) {
      if (!own.isDone) return undefined
      this.#fetching.delete(watcher)
      this.#waiting.clear()
      const { slice } = own
      this.#share(name, { slice, revisionNow, compactRevision, isFetched: true })
      return { slice, cost: 1 + slice.events.length }
    }
    this.#fetching.delete(watcher)
    const found = this.#shared.get(name)
    // Where it ended with the newest revision there may be more by now.
    const isTail = found && found.slice.next.revision > found.revisionNow
    if (
      found?.compactRevision === compactRevision &&
      (!isTail || found.isFetched || found.revisionNow === revisionNow)
    ) {
      return { slice: found.slice, cost: 1 + found.slice.events.length * sharedCost }
    }
    if (this.#mustWait(name)) return undefined
    const slice = nextSlice({ store: this.#store, watcher, revisionNow, limits: this.#limits }, from)
    if (!slice.missing.isEmpty) {
      this.#fetch(watcher, { name, slice, compactRevision, isDone: false })
      return undefined
    }
    this.#share(name, { slice, revisionNow, compactRevision, isFetched: false })
    return { slice, cost: 1 + slice.events.length + slice.looked * lookCost }
  }

  /** Whether the slice is being fetched for another watcher, or as many others are as may be at a time. */
  #mustWait(name: string): boolean {
    let running = 0
    for (const fetching of this.#fetching.values()) {
      if (fetching.isDone) continue
      if (fetching.name === name || ++running >= fetchingMax) return true
    }
    return false
  }

  #fetch(watcher: Watcher, fetching: Fetching): void {
    for (const [other, { isDone }] of this.#fetching) {
      if (this.#fetching.size < fetchedMax) break
      if (isDone && !mayGo(other)) this.#fetching.delete(other)
    }
    this.#fetching.set(watcher, fetching)
    const { missing } = fetching.slice
    const done = (): void => {
      missing.fill()
      fetching.isDone = true
      this.#waiting.clear()
    }
    this.#wanted.push({ fetch: missing.fetch, done })
  }

  #share(
    name: string,
    found: { slice: ReplaySlice; revisionNow: number; compactRevision: number; isFetched: boolean },
  ): void {
    this.#shared.delete(name)
    this.#shared.set(name, found)
    if (this.#shared.size > sharedMax) {
      for (const oldest of this.#shared.keys()) {
        this.#shared.delete(oldest)
        break
      }
    }
  }
}

const isFragmented = ({ options, stream }: Watcher): boolean => options.fragment || !stream.sink.long

const mayGo = (watcher: Watcher): boolean =>
  watcher.stream.busy === watcher ? watcher.stream.sink.writable : isOpen(watcher.stream)

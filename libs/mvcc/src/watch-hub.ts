import { isEmpty, toSpan } from './key.ts'
import type { StoreEvent } from './requests.ts'
import { type SpanGroup, SpanIndex } from './span-index.ts'
import type { MvccStore } from './store.ts'
import { eventOf, fragments, isReady } from './watch-replay.ts'
import { Replayer, type WatchFetch } from './watch-replayer.ts'
import {
  defaultWatchLimits,
  emptyMessage,
  isOpen,
  type WatchCreate,
  type Watcher,
  type WatchLimits,
  type WatchSink,
  type WatchStream,
} from './watcher.ts'

/**
 * Who wants to hear of which keys. Watchers that are up to date get events as they are applied (`advance`); others
 * are replayed from the history (`sync`), which also serves consumers that were too slow, so nothing is queued here.
 * Neither does more at once than its limits say, however much one revision changed.
 */
export class WatchHub {
  readonly #store: MvccStore
  readonly #limits: WatchLimits
  readonly #streams = new Set<WatchStream>()
  readonly #progressWanted = new Set<WatchStream>()
  readonly #synced = new SpanIndex()
  readonly #replayer: Replayer
  /** Groups with pending records. */
  #touched: SpanGroup[] = []
  #nextRecord: number
  /** What synced watchers were told up to. */
  #revision: number
  /** What they still must be told stays in memory. */
  #unpin: () => void

  constructor(store: MvccStore, limits: Partial<WatchLimits> = {}) {
    this.#store = store
    this.#limits = { ...defaultWatchLimits, ...limits }
    this.#nextRecord = endOfRevision(store)
    this.#revision = store.revision
    this.#unpin = store.pin(store.revision)
    this.#replayer = new Replayer(store, this.#limits, {
      send: (watcher, events, revision) => this.#send(watcher, events, revision),
      caughtUp: (watcher) => {
        watcher.group = this.#synced.add(watcher)
      },
      drop: (watcher) => void watcher.stream.watchers.delete(watcher.id),
      freed: (stream) => this.#runHeld(stream),
    })
  }

  get watcherCount(): number {
    let count = 0
    for (const stream of this.#streams) count += stream.watchers.size
    return count
  }
  get streamCount(): number {
    return this.#streams.size
  }
  get unsyncedCount(): number {
    return this.#replayer.count
  }
  /** Whether `sync` has something to do, now or once a sink is writable. */
  get hasWork(): boolean {
    return this.#replayer.count > 0 || this.#revision !== this.#store.revision
  }

  open(sink: WatchSink): WatchStream {
    const stream: WatchStream = {
      sink,
      watchers: new Map(),
      nextId: 0,
      busy: undefined,
      held: [],
    }
    this.#streams.add(stream)
    return stream
  }

  close(stream: WatchStream): void {
    stream.held.length = 0
    stream.busy = undefined
    for (const watcher of stream.watchers.values()) this.#forget(watcher)
    stream.watchers.clear()
    this.#streams.delete(stream)
    this.#progressWanted.delete(stream)
  }

  /** Answers with `created`; an empty range and an id in use are answered with created and canceled at once. */
  create(stream: WatchStream, options: WatchCreate): void {
    this.advance()
    // Also while watchers before it are still told of what was written up to now.
    const { revision } = this.#store
    this.#answer(stream, () => this.#create(stream, options, revision))
  }

  #create(stream: WatchStream, options: WatchCreate, revision: number): void {
    let id = options.watchId
    const span = toSpan(options.key.length === 0 ? Uint8Array.of(0) : options.key, options.rangeEnd)
    const refusal = isEmpty(span)
      ? 'mvcc: watcher range is empty'
      : id !== 0 && stream.watchers.has(id)
        ? 'mvcc: duplicate watch ID provided on the WatchStream'
        : undefined
    if (refusal) {
      const about = { watchId: -1, revision, cancelReason: refusal }
      stream.sink.send({ ...emptyMessage, ...about, created: true, canceled: true })
      return
    }
    if (id === 0) {
      while (stream.watchers.has(stream.nextId)) stream.nextId++
      id = stream.nextId++
    }
    const watcher: Watcher = {
      id,
      stream,
      span,
      options,
      nextRevision: options.startRevision === 0 ? revision + 1 : options.startRevision,
      group: undefined,
      wasBusy: false,
    }
    stream.watchers.set(id, watcher)
    if (watcher.nextRevision > this.#store.revision) watcher.group = this.#synced.add(watcher)
    else this.#replayer.add(watcher)
    stream.sink.send({ ...emptyMessage, watchId: id, revision, created: true })
  }

  /** A watcher that is refused: the stream goes on without it. */
  refuse(stream: WatchStream, cancelReason: string, revision: number): void {
    const refusal = { watchId: -1, revision, created: true, canceled: true, cancelReason }
    this.#answer(stream, () => stream.sink.send({ ...emptyMessage, ...refusal }))
  }

  /** False if there is no such watcher: that gets no answer. */
  cancel(stream: WatchStream, id: number): boolean {
    const watcher = stream.watchers.get(id)
    if (!watcher) return false
    this.#answer(stream, () => {
      if (stream.watchers.get(id) !== watcher) return
      this.#forget(watcher)
      stream.watchers.delete(id)
      stream.sink.send({ ...emptyMessage, watchId: id, revision: this.#revision, canceled: true })
    })
    return true
  }

  /** Answered for the whole stream (watch id -1) as soon as all its watchers are up to date. */
  requestProgress(stream: WatchStream): void {
    this.#progressWanted.add(stream)
    this.#answerProgress(stream)
  }

  /** To be called after each batch of applied entries: tells watchers that are up to date. What is too much for once goes on in `sync`. */
  advance(): void {
    const { history, revision: now } = this.#store
    if (this.#revision === now) return
    // With nobody to tell there is nothing to look at.
    if (this.#synced.isEmpty) this.#nextRecord = endOfRevision(this.#store)
    let left = this.#limits.advanceRecordsMax
    let record = history.atOrAfter(this.#nextRecord)
    for (; record >= 0; record = history.atOrAfter(record + 1)) {
      const revision = history.revision(record)
      // A write in slices is not complete yet.
      if (revision > now) break
      if (left-- === 0) {
        this.#nextRecord = record
        return
      }
      this.#synced.visit(history.key(record), (group) => this.#note(group, record, revision))
    }
    this.#nextRecord = record < 0 ? history.next : record
    this.#moveTo(now)
    this.#deliver()
    for (const stream of this.#progressWanted) this.#answerProgress(stream)
  }

  /** One pass over watchers that lag. True if another pass has something to do at once. */
  sync(): boolean {
    this.advance()
    const isMore = this.#replayer.pass()
    for (const stream of this.#progressWanted) this.#answerProgress(stream)
    return isMore || this.#revision !== this.#store.revision
  }

  /**
   * What has to be fetched before some watchers can go on, since the last call: to be asked for after each `sync`, which goes on with
   * them once it is there. Only to be had while values are not all in memory.
   */
  takeFetches(): WatchFetch[] {
    return this.#replayer.takeFetches()
  }

  /** Periodic: tells watchers that asked for it and heard nothing since the last time how far they are. */
  notifyProgress(): void {
    for (const stream of this.#streams) {
      for (const watcher of stream.watchers.values()) {
        const isQuiet = !watcher.wasBusy
        watcher.wasBusy = false
        if (!isQuiet || !watcher.options.progressNotify || !isOpen(stream) || !this.#isCurrent(watcher))
          continue
        stream.sink.send({ ...emptyMessage, watchId: watcher.id, revision: this.#revision })
      }
    }
  }

  /** The store was replaced by a snapshot: everyone continues from the new history. */
  reset(): void {
    this.#replayer.reset()
    this.#touched = []
    for (const { watchers } of this.#streams) {
      for (const watcher of watchers.values()) {
        if (watcher.group) this.#fallBehind(watcher, Math.max(watcher.nextRevision, this.#revision + 1))
      }
    }
    this.#nextRecord = endOfRevision(this.#store)
    this.#moveTo(this.#store.revision)
  }

  #moveTo(revision: number): void {
    this.#revision = revision
    const unpin = this.#unpin
    this.#unpin = this.#store.pin(revision)
    unpin()
  }

  #note(group: SpanGroup, record: number, revision: number): void {
    if (group.pending.length === 0) {
      this.#touched.push(group)
      group.firstRevision = revision
    }
    // What is more than a slice is replayed in slices.
    const { replayEventsMax, replayBytesMax } = this.#limits
    if (group.pending.length > replayEventsMax || group.pendingBytes > replayBytesMax) return
    group.pending.push(record)
    group.pendingBytes += this.#store.history.dataBytesOf(record)
  }

  /** Watchers with the same records and options share one array of events, which is then encoded once. */
  #deliver(): void {
    const { replayEventsMax, replayBytesMax, advanceWatchersMax } = this.#limits
    const { history } = this.#store
    const touched = this.#touched
    let left = advanceWatchersMax
    this.#touched = []
    const shared = new Map<string, StoreEvent[]>()
    for (const group of touched) {
      const { pending, firstRevision } = group
      const isLarge = pending.length > replayEventsMax || group.pendingBytes > replayBytesMax
      /** Values that are not in memory are fetched as for watchers that lag; by whether previous ones are wanted. */
      const missing: (boolean | undefined)[] = []
      const isMissing = (withPrevKv: boolean): boolean =>
        (missing[Number(withPrevKv)] ??=
          history.hasOut && !pending.every((record) => isReady(this.#store, record, withPrevKv)))
      group.pending = []
      group.pendingBytes = 0
      /** By options and first revision: most groups have one. */
      const variants = new Map<number, StoreEvent[]>()
      for (const watcher of group.watchers) {
        if (isLarge || !isOpen(watcher.stream) || left === 0 || isMissing(watcher.options.prevKv)) {
          this.#fallBehind(watcher, Math.max(watcher.nextRevision, firstRevision))
          continue
        }
        const first = Math.max(watcher.nextRevision, firstRevision)
        const { prevKv, noPut, noDelete } = watcher.options
        const variant = first * 8 + (prevKv ? 1 : 0) + (noPut ? 2 : 0) + (noDelete ? 4 : 0)
        let events = variants.get(variant)
        if (!events) {
          events = this.#eventsFor(watcher, pending, shared)
          variants.set(variant, events)
        }
        if (events.length === 0) continue
        this.#send(watcher, events, this.#revision)
        left--
      }
    }
  }

  #eventsFor(
    { nextRevision, options }: Watcher,
    pending: number[],
    shared: Map<string, StoreEvent[]>,
  ): StoreEvent[] {
    const { history } = this.#store
    const { prevKv, noPut, noDelete } = options
    const records = pending.filter((record) => {
      if (history.revision(record) < nextRevision) return false
      return !(history.version(record) > 0 ? noPut : noDelete)
    })
    const name = `${prevKv ? 'p' : ''}${records.join()}`
    let events = shared.get(name)
    if (!events) {
      events = records.map((record) => eventOf(this.#store, record, prevKv))
      shared.set(name, events)
    }
    return events
  }

  #send(watcher: Watcher, events: readonly StoreEvent[], revision: number): void {
    watcher.wasBusy = true
    const { sink } = watcher.stream
    const parts = watcher.options.fragment ? fragments(events, this.#limits.fragmentBytesMax) : [events]
    parts.forEach((part, at) => {
      const fragment = at < parts.length - 1
      sink.send({ ...emptyMessage, watchId: watcher.id, revision, events: part, fragment })
    })
  }

  /** At once, or after the message that is being sent. */
  #answer(stream: WatchStream, run: () => void): void {
    if (stream.busy) stream.held.push(run)
    else run()
  }

  #runHeld(stream: WatchStream): void {
    while (!stream.busy && stream.held.length > 0) stream.held.shift()!()
  }

  #isCurrent(watcher: Watcher): boolean {
    return watcher.group !== undefined && watcher.nextRevision <= this.#revision + 1
  }

  #answerProgress(stream: WatchStream): void {
    if (stream.watchers.size > 0) {
      if (!isOpen(stream)) return
      for (const watcher of stream.watchers.values()) if (!this.#isCurrent(watcher)) return
      stream.sink.send({ ...emptyMessage, watchId: -1, revision: this.#revision })
    }
    this.#progressWanted.delete(stream)
  }

  #fallBehind(watcher: Watcher, nextRevision: number): void {
    this.#forget(watcher)
    watcher.nextRevision = nextRevision
    this.#replayer.add(watcher)
  }

  #forget(watcher: Watcher): void {
    this.#replayer.remove(watcher)
    if (watcher.group) this.#synced.remove(watcher, watcher.group)
    watcher.group = undefined
  }
}

/** The first record that is not of a complete write. */
function endOfRevision({ history, revision }: MvccStore): number {
  const record = history.fromRevision(revision + 1)
  return record < 0 ? history.next : record
}

import { contains, isSingle, type Key, type Span, toSpan } from './key.ts'
import type { StoreEvent } from './requests.ts'
import type { MvccStore } from './store.ts'
import { eventOf, fragments, replay } from './watch-replay.ts'

export type WatchCreate = {
  key: Uint8Array
  rangeEnd: Uint8Array
  /** 0 is from now on. */
  startRevision: number
  /** 0 lets the hub pick. */
  watchId: number
  prevKv: boolean
  noPut: boolean
  noDelete: boolean
  fragment: boolean
  progressNotify: boolean
}

/** A message to a watch stream. `revision` is its header's; 0 for a compacted start. */
export type WatchMessage = {
  watchId: number
  revision: number
  created: boolean
  canceled: boolean
  compactRevision: number
  cancelReason: string
  fragment: boolean
  /** Shared between watchers that see the same events: do not change. */
  events: readonly StoreEvent[]
}

/** Where a stream's messages go. While it is not writable the stream's watchers fall back to the history. */
export type WatchSink = { readonly writable: boolean; send(message: WatchMessage): void }

export type WatchLimits = {
  /** Watchers brought up to date in one pass. */
  watchersPerPass: number
  /** Events of one replay message, if one revision does not have more. */
  replayEventsMax: number
  /** Records looked at for one watcher in one pass. */
  replayRecordsMax: number
  /** Size from which a message of a watcher with `fragment` is split. */
  fragmentBytesMax: number
}

export const defaultWatchLimits: WatchLimits = {
  watchersPerPass: 512,
  replayEventsMax: 1000,
  replayRecordsMax: 20_000,
  fragmentBytesMax: 2 * 1024 * 1024,
}

export type Watcher = {
  readonly id: number
  readonly stream: WatchStream
  readonly span: Span
  readonly options: WatchCreate
  /** Unsynced: the first revision not sent yet. Synced: the first one wanted, which may lie in the future. */
  nextRevision: number
  isSynced: boolean
  /** Records of the advance going on. */
  pending: number[]
  /** Something was sent since the last progress notification. */
  wasBusy: boolean
}

/** The watchers of one client stream. */
export type WatchStream = {
  readonly sink: WatchSink
  readonly watchers: Map<number, Watcher>
  nextId: number
  isProgressWanted: boolean
}

/**
 * Who wants to hear of which keys. Watchers that are up to date get events as they are applied (`advance`); others
 * are replayed from the history (`sync`), which also serves consumers that were too slow, so nothing is queued here.
 */
export class WatchHub {
  readonly #store: MvccStore
  readonly #limits: WatchLimits
  readonly #streams = new Set<WatchStream>()
  readonly #byKey = new Map<Key, Set<Watcher>>()
  readonly #bySpan = new Set<Watcher>()
  readonly #unsynced = new Set<Watcher>()
  #nextRecord: number
  #revision: number

  constructor(store: MvccStore, limits: Partial<WatchLimits> = {}) {
    this.#store = store
    this.#limits = { ...defaultWatchLimits, ...limits }
    this.#nextRecord = endOfRevision(store)
    this.#revision = store.revision
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
    return this.#unsynced.size
  }

  open(sink: WatchSink): WatchStream {
    const stream: WatchStream = { sink, watchers: new Map(), nextId: 0, isProgressWanted: false }
    this.#streams.add(stream)
    return stream
  }

  close(stream: WatchStream): void {
    for (const watcher of stream.watchers.values()) this.#forget(watcher)
    stream.watchers.clear()
    this.#streams.delete(stream)
  }

  /** Answers with `created`; an id in use is answered with created and canceled at once. */
  create(stream: WatchStream, options: WatchCreate): void {
    this.advance()
    let id = options.watchId
    if (id !== 0 && stream.watchers.has(id)) {
      const reason = 'mvcc: duplicate watch ID provided on the WatchStream'
      const refusal = { watchId: -1, revision: this.#revision, cancelReason: reason }
      stream.sink.send({ ...empty, ...refusal, created: true, canceled: true })
      return
    }
    if (id === 0) {
      while (stream.watchers.has(stream.nextId)) stream.nextId++
      id = stream.nextId++
    }
    const key = options.key.length === 0 ? Uint8Array.of(0) : options.key
    const watcher: Watcher = {
      id,
      stream,
      span: toSpan(key, options.rangeEnd),
      options,
      nextRevision: options.startRevision === 0 ? this.#revision + 1 : options.startRevision,
      isSynced: false,
      pending: [],
      wasBusy: false,
    }
    stream.watchers.set(id, watcher)
    if (watcher.nextRevision > this.#revision) this.#markSynced(watcher)
    else this.#unsynced.add(watcher)
    stream.sink.send({ ...empty, watchId: id, revision: this.#revision, created: true })
  }

  /** False if there is no such watcher: that gets no answer. */
  cancel(stream: WatchStream, id: number): boolean {
    const watcher = stream.watchers.get(id)
    if (!watcher) return false
    this.#forget(watcher)
    stream.watchers.delete(id)
    stream.sink.send({ ...empty, watchId: id, revision: this.#revision, canceled: true })
    return true
  }

  /** Answered for the whole stream (watch id -1) as soon as all its watchers are up to date. */
  requestProgress(stream: WatchStream): void {
    stream.isProgressWanted = true
    this.#answerProgress(stream)
  }

  /** To be called after each batch of applied entries: tells watchers that are up to date. */
  advance(): void {
    const { history, revision: now } = this.#store
    if (this.#revision === now) return
    // With nobody to tell there is nothing to look at.
    if (this.#byKey.size === 0 && this.#bySpan.size === 0) this.#nextRecord = endOfRevision(this.#store)
    const touched: Watcher[] = []
    const note = (watcher: Watcher, record: number, revision: number): void => {
      if (watcher.nextRevision > revision) return
      if (history.version(record) > 0 ? watcher.options.noPut : watcher.options.noDelete) return
      if (watcher.pending.push(record) === 1) touched.push(watcher)
    }
    let record = history.atOrAfter(this.#nextRecord)
    for (; record >= 0; record = history.atOrAfter(record + 1)) {
      const revision = history.revision(record)
      // A write in slices is not complete yet.
      if (revision > now) break
      const key = history.key(record)
      const exact = this.#byKey.get(key)
      if (exact) for (const watcher of exact) note(watcher, record, revision)
      for (const watcher of this.#bySpan) {
        if (contains(watcher.span, key)) note(watcher, record, revision)
      }
    }
    this.#nextRecord = record < 0 ? history.next : record
    this.#revision = now
    this.#deliver(touched)
    for (const stream of this.#streams) if (stream.isProgressWanted) this.#answerProgress(stream)
  }

  /** One pass over watchers that lag. True if another pass has something to do at once. */
  sync(): boolean {
    let left = this.#limits.watchersPerPass
    let isMore = false
    for (const watcher of [...this.#unsynced]) {
      if (left-- === 0) return true
      if (!watcher.stream.sink.writable) continue
      this.#replay(watcher)
      if (this.#unsynced.has(watcher) && watcher.stream.sink.writable) isMore = true
    }
    for (const stream of this.#streams) if (stream.isProgressWanted) this.#answerProgress(stream)
    return isMore
  }

  /** Periodic: tells watchers that asked for it and heard nothing since the last time how far they are. */
  notifyProgress(): void {
    for (const { watchers, sink } of this.#streams) {
      for (const watcher of watchers.values()) {
        const isQuiet = !watcher.wasBusy
        watcher.wasBusy = false
        if (!isQuiet || !watcher.options.progressNotify || !sink.writable || !this.#isCurrent(watcher))
          continue
        sink.send({ ...empty, watchId: watcher.id, revision: this.#revision })
      }
    }
  }

  /** The store was replaced by a snapshot: everyone continues from the new history. */
  reset(): void {
    for (const { watchers } of this.#streams) {
      for (const watcher of watchers.values()) {
        if (watcher.isSynced) this.#fallBehind(watcher, Math.max(watcher.nextRevision, this.#revision + 1))
      }
    }
    this.#nextRecord = endOfRevision(this.#store)
    this.#revision = this.#store.revision
  }

  /** Watchers with the same records and options share one array of events, which is then encoded once. */
  #deliver(touched: Watcher[]): void {
    const shared = new Map<string, StoreEvent[]>()
    for (const watcher of touched) {
      const records = watcher.pending
      watcher.pending = []
      if (!watcher.stream.sink.writable) {
        this.#fallBehind(watcher, this.#store.history.revision(records[0]!))
        continue
      }
      const name = `${watcher.options.prevKv ? 'p' : ''}${records.join()}`
      let events = shared.get(name)
      if (!events) {
        events = records.map((record) => eventOf(this.#store, record, watcher.options.prevKv))
        shared.set(name, events)
      }
      this.#send(watcher, events, this.#revision)
    }
  }

  #replay(watcher: Watcher): void {
    if (watcher.nextRevision < this.#store.compactRevision || watcher.nextRevision < 0) {
      this.#forget(watcher)
      watcher.stream.watchers.delete(watcher.id)
      const { compactRevision } = this.#store
      const cancelReason = 'etcdserver: mvcc: required revision has been compacted'
      const end = { watchId: watcher.id, canceled: true, compactRevision, cancelReason }
      watcher.stream.sink.send({ ...empty, ...end })
      return
    }
    const { records, nextRevision } = replay(this.#store, watcher, this.#revision, this.#limits)
    if (records.length > 0) {
      const events = records.map((record) => eventOf(this.#store, record, watcher.options.prevKv))
      this.#send(watcher, events, nextRevision - 1)
    }
    watcher.nextRevision = nextRevision
    if (nextRevision > this.#revision) this.#markSynced(watcher)
  }

  #send(watcher: Watcher, events: StoreEvent[], revision: number): void {
    watcher.wasBusy = true
    const parts = watcher.options.fragment ? fragments(events, this.#limits.fragmentBytesMax) : [events]
    parts.forEach((part, at) => {
      const fragment = at < parts.length - 1
      watcher.stream.sink.send({ ...empty, watchId: watcher.id, revision, events: part, fragment })
    })
  }

  #isCurrent(watcher: Watcher): boolean {
    return watcher.isSynced && watcher.nextRevision <= this.#revision + 1
  }

  #answerProgress(stream: WatchStream): void {
    if (stream.watchers.size === 0) {
      stream.isProgressWanted = false
      return
    }
    if (!stream.sink.writable) return
    for (const watcher of stream.watchers.values()) if (!this.#isCurrent(watcher)) return
    stream.isProgressWanted = false
    stream.sink.send({ ...empty, watchId: -1, revision: this.#revision })
  }

  #markSynced(watcher: Watcher): void {
    this.#unsynced.delete(watcher)
    watcher.isSynced = true
    if (!isSingle(watcher.span)) this.#bySpan.add(watcher)
    else {
      const set = this.#byKey.get(watcher.span.start) ?? new Set()
      this.#byKey.set(watcher.span.start, set.add(watcher))
    }
  }

  #fallBehind(watcher: Watcher, nextRevision: number): void {
    this.#forget(watcher)
    watcher.nextRevision = nextRevision
    this.#unsynced.add(watcher)
  }

  #forget(watcher: Watcher): void {
    watcher.isSynced = false
    this.#unsynced.delete(watcher)
    this.#bySpan.delete(watcher)
    const exact = this.#byKey.get(watcher.span.start)
    if (exact?.delete(watcher) && exact.size === 0) this.#byKey.delete(watcher.span.start)
  }
}

/** The first record that is not of a complete write. */
function endOfRevision({ history, revision }: MvccStore): number {
  const record = history.fromRevision(revision + 1)
  return record < 0 ? history.next : record
}

const empty: WatchMessage = {
  watchId: 0,
  revision: 0,
  created: false,
  canceled: false,
  compactRevision: 0,
  cancelReason: '',
  fragment: false,
  events: [],
}

import type { Span } from './key.ts'
import type { StoreEvent } from './requests.ts'
import type { SpanGroup } from './span-index.ts'

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
export type WatchSink = {
  readonly writable: boolean
  send(message: WatchMessage): void
  /** For a revision that is more than a slice, to a watcher without `fragment`. Sinks without it get fragments. */
  readonly long?: LongSink
}

/** One message in pieces, so that neither its events nor its bytes are ever there at once. */
export type LongSink = {
  /** How many bytes these events take in a message. */
  bytesOf(events: readonly StoreEvent[]): number
  /** Begins a message whose events, of so many bytes, follow in pieces. Nothing else is sent before they are complete. */
  begin(message: WatchMessage, eventsBytes: number): void
  piece(events: readonly StoreEvent[]): void
  /** Ends the stream in the midst of a message. */
  abort(): void
}

export type WatchLimits = {
  /** Watchers looked at in one pass. */
  watchersPerPass: number
  /** Events built in one pass, about. */
  eventsPerPass: number
  /** Events and bytes of one slice of a replay, if one event does not have more. Larger revisions are sent in slices. */
  replayEventsMax: number
  replayBytesMax: number
  /** Records looked at for one slice of a replay. */
  replayRecordsMax: number
  /** Records looked at, and watchers told, in one `advance`; the others are told in `sync`. */
  advanceRecordsMax: number
  advanceWatchersMax: number
  /** Size from which a message of a watcher with `fragment` is split. */
  fragmentBytesMax: number
}

export const defaultWatchLimits: WatchLimits = {
  watchersPerPass: 512,
  eventsPerPass: 4000,
  replayEventsMax: 1000,
  replayBytesMax: 2 * 1024 * 1024,
  replayRecordsMax: 20_000,
  advanceRecordsMax: 10_000,
  advanceWatchersMax: 5000,
  fragmentBytesMax: 2 * 1024 * 1024,
}

export type Watcher = {
  readonly id: number
  readonly stream: WatchStream
  readonly span: Span
  readonly options: WatchCreate
  /** Unsynced: the first revision not sent yet. Synced: the first one wanted, which may lie in the future. */
  nextRevision: number
  /** Synced: where it is among the others. */
  group: SpanGroup | undefined
  /** Something was sent since the last progress notification. */
  wasBusy: boolean
}

/** The watchers of one client stream. */
export type WatchStream = {
  readonly sink: WatchSink
  readonly watchers: Map<number, Watcher>
  nextId: number
  /** The watcher of whose large revision a part was sent. Until the rest is, nothing else goes out. */
  busy: Watcher | undefined
  /** Answers that wait for the end of that. */
  readonly held: (() => void)[]
}

/** Whether a message may begin. */
export const isOpen = ({ sink, busy }: WatchStream): boolean => busy === undefined && sink.writable

export const emptyMessage: WatchMessage = {
  watchId: 0,
  revision: 0,
  created: false,
  canceled: false,
  compactRevision: 0,
  cancelReason: '',
  fragment: false,
  events: [],
}

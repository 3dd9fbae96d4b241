import { contains, isSingle } from './key.ts'
import type { StoreEvent } from './requests.ts'
import type { MvccStore } from './store.ts'
import type { Watcher, WatchLimits } from './watch-hub.ts'

const nothing = new Uint8Array(0)
/** What an event takes in a message besides its bytes. */
const eventOverheadBytes = 48

export function eventOf({ history }: MvccStore, record: number, withPrevKv: boolean): StoreEvent {
  const revision = history.revision(record)
  // Of what came up to the compaction only the newest is left.
  const prev = withPrevKv && revision > history.compactRevision ? history.prev(record) : -1
  const prevKv = prev >= 0 && history.version(prev) > 0 ? history.keyValue(prev) : undefined
  if (history.version(record) > 0) return { type: 'put', kv: history.keyValue(record), prevKv }
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

/**
 * The next records a lagging watcher wants, and the revision to go on from. A revision is never cut, whatever the
 * limits.
 */
export function replay(
  store: MvccStore,
  watcher: Watcher,
  revisionNow: number,
  limits: WatchLimits,
): { records: number[]; nextRevision: number } {
  const { history } = store
  const { noPut, noDelete } = watcher.options
  const isWanted = (record: number): boolean => !(history.version(record) > 0 ? noPut : noDelete)
  if (isSingle(watcher.span)) return replayKey(store, watcher, revisionNow, limits, isWanted)

  const records: number[] = []
  let looked = 0
  let last = watcher.nextRevision - 1
  let record = history.fromRevision(watcher.nextRevision)
  for (; record >= 0; record = history.atOrAfter(record + 1)) {
    const revision = history.revision(record)
    if (revision > revisionNow) break
    const isFull = records.length >= limits.replayEventsMax || looked >= limits.replayRecordsMax
    if (isFull && revision > last) return { records, nextRevision: revision }
    last = revision
    looked++
    if (contains(watcher.span, history.key(record)) && isWanted(record)) records.push(record)
  }
  return { records, nextRevision: revisionNow + 1 }
}

/** One key: its own chain of versions, instead of all that happened. */
function replayKey(
  { history, index }: MvccStore,
  watcher: Watcher,
  revisionNow: number,
  limits: WatchLimits,
  isWanted: (record: number) => boolean,
): { records: number[]; nextRevision: number } {
  const chain: number[] = []
  let record = index.get(watcher.span.start)
  for (; record >= 0 && history.revision(record) >= watcher.nextRevision; record = history.prev(record)) {
    if (isWanted(record) && history.revision(record) <= revisionNow) chain.push(record)
  }
  chain.reverse()
  if (chain.length <= limits.replayEventsMax) return { records: chain, nextRevision: revisionNow + 1 }
  let end = limits.replayEventsMax
  while (end < chain.length && history.revision(chain[end]!) === history.revision(chain[end - 1]!)) end++
  const next = chain[end]
  return {
    records: chain.slice(0, end),
    nextRevision: next === undefined ? revisionNow + 1 : history.revision(next),
  }
}

/** Splits events into messages of at most `bytesMax`, each with at least one event. */
export function fragments(events: StoreEvent[], bytesMax: number): StoreEvent[][] {
  const parts: StoreEvent[][] = [[]]
  let bytes = 0
  for (const event of events) {
    const prev = event.prevKv ? event.prevKv.key.length + event.prevKv.value.length + eventOverheadBytes : 0
    const size = event.kv.key.length + event.kv.value.length + prev + eventOverheadBytes
    if (bytes + size > bytesMax && parts.at(-1)!.length > 0) {
      parts.push([])
      bytes = 0
    }
    parts.at(-1)!.push(event)
    bytes += size
  }
  return parts
}

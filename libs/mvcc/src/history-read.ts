import { accepted, type Outcome, refusal, refusals, refused } from './errors.ts'
import { type Key, type Span, toKey, toSpan } from './key.ts'
import { checkRevision, recordAt, type View } from './read.ts'
import type { KeyValue } from './requests.ts'
import type { Slices } from './slices.ts'
import { ValueReader } from './value-reader.ts'

/** What one answer holds at most: entries, and bytes of values. */
const entriesMax = 10_000
const answerBytes = 16 << 20

export type Change = { kind: 'put' | 'delete'; kv: KeyValue }
export type DeletedKey = { key: Uint8Array; deletedRevision: number; last: KeyValue | undefined }
export type Difference = { key: Uint8Array; before: KeyValue | undefined; after: KeyValue | undefined }

type Range = { key: Uint8Array; rangeEnd: Uint8Array }
export type RevisionsRequest = { key: Uint8Array; limit: number; before: number; keysOnly: boolean }
export type DeletedRequest = Range & { limit: number }
export type DiffRequest = Range & { from: number; to: number; limit: number; keysOnly: boolean }
export type RestoreRequest = Range & {
  revision: number
  changesMax: number
  /** What keys and values put may take: the room that whoever proposed it saw. */
  bytesMax: number
}

export const historyRefusals = {
  tooManyChanges: refusal(8, 'history: more keys would change than allowed'),
  revisionMissing: refusal(3, 'history: revision is not provided'),
} as const

/** What a page may still hold. */
function page(limit: number): { has(bytes: number): boolean } {
  let entries = limit > 0 ? Math.min(limit, entriesMax) : entriesMax
  let bytes = answerBytes
  return {
    has(size) {
      if (entries === 0 || bytes < 0) return false
      entries--
      bytes -= size
      return true
    },
  }
}

/**
 * The record a reader of history may know: all above the compaction, and what is still to be seen at it. What a compaction has
 * forgotten is not answered, whether it was freed or not.
 */
function isKnown({ history, compactRevision }: View, record: number): boolean {
  const revision = history.revision(record)
  if (revision >= compactRevision) return true
  return history.version(record) > 0
}

/** The revisions of one key, newest first. */
export function* readRevisions(
  view: View,
  request: RevisionsRequest,
): Slices<{ changes: Change[]; more: boolean; compactRevision: number }> {
  const { history } = view
  const found: number[] = []
  const room = page(request.limit)
  let more = false
  let looked = 0
  for (let record = view.index.get(toKey(request.key)); record >= 0; record = history.prev(record)) {
    if (!isKnown(view, record)) break
    const revision = history.revision(record)
    if (revision <= view.revision && (request.before === 0 || revision < request.before)) {
      if (!room.has(request.keysOnly ? 0 : history.valueBytesOf(record))) {
        more = true
        break
      }
      found.push(record)
    }
    // The first one at or below the compaction is the last that is known.
    if (revision <= view.compactRevision) break
    if (++looked % view.sliceRecords === 0) yield
  }
  const changes: Change[] = []
  for (const [at, kv] of (yield* pairsOf(view, found, request.keysOnly)).entries()) {
    changes.push({ kind: history.version(found[at]!) > 0 ? 'put' : 'delete', kv })
  }
  return { changes, more, compactRevision: view.compactRevision }
}

/** Keys with their values, which are fetched where they are not in memory. */
function* pairsOf(view: View, records: readonly number[], keysOnly: boolean): Slices<KeyValue[]> {
  const values = new ValueReader(view, records)
  const kvs: KeyValue[] = []
  for (const [at, record] of records.entries()) {
    const kv = view.history.keyValue(record, true)
    if (!keysOnly) kv.value = values.take(at) ?? (yield* values.more(at))
    kvs.push(kv)
  }
  return kvs
}

/** Keys of a range that were deleted, in order. A deletion is known until the next compaction. */
export function* readDeleted(
  view: View,
  request: DeletedRequest,
): Slices<{ keys: DeletedKey[]; more: boolean }> {
  const { history } = view
  const keys: DeletedKey[] = []
  const room = page(request.limit)
  let more = false
  yield* scanAll(view, toSpan(request.key, request.rangeEnd), (newest) => {
    const record = newestAt(view, newest)
    if (record < 0 || history.version(record) > 0 || !isKnown(view, record)) return true
    if (!room.has(0)) {
      more = true
      return false
    }
    // A compaction at the deletion's own revision has forgotten what was before.
    const prev = history.revision(record) > view.compactRevision ? history.prev(record) : -1
    const last = prev >= 0 ? history.keyValue(prev, true) : undefined
    keys.push({ key: history.keyBytes(record), deletedRevision: history.revision(record), last })
    return true
  })
  return { keys, more }
}

/** What is different between two revisions, in the order of keys; 0 as the later is the newest. */
export function* readDiff(
  view: View,
  request: DiffRequest,
): Slices<{ differences: Difference[]; more: boolean }> {
  const { history } = view
  const to = request.to > 0 ? request.to : view.revision
  const found: { key: Uint8Array; earlier: number; later: number }[] = []
  const room = page(request.limit)
  let more = false
  const bytesOf = (record: number): number =>
    record < 0 || request.keysOnly ? 0 : history.valueBytesOf(record)
  yield* scanAll(view, toSpan(request.key, request.rangeEnd), (newest) => {
    const earlier = recordAt(history, newest, request.from)
    const later = recordAt(history, newest, to)
    if (earlier === later) return true
    if (!room.has(bytesOf(earlier) + bytesOf(later))) {
      more = true
      return false
    }
    found.push({ key: history.keyBytes(newest), earlier, later })
    return true
  })
  const records = found.flatMap(({ earlier, later }) => [earlier, later]).filter((record) => record >= 0)
  const kvs = (yield* pairsOf(view, records, request.keysOnly)).values()
  const differences = found.map(({ key, earlier, later }) => ({
    key,
    before: earlier < 0 ? undefined : kvs.next().value,
    after: later < 0 ? undefined : kvs.next().value,
  }))
  return { differences, more }
}

/** What a restore changes, in the order of keys: the record a key gets its value from, or none for a deletion. */
export type RestorePlan = { key: Key; from: number }[]

/**
 * What a restore changes, computed from the store alone: keys that are not what they were as of the revision. A key with the same
 * value, or that existed neither then nor now, is left as it is.
 */
export function* planRestore(view: View, request: RestoreRequest): Slices<Outcome<RestorePlan>> {
  const { history } = view
  const refusal = checkHistory(view, request.revision)
  if (refusal) return refused(refusal)
  const plan: RestorePlan = []
  let bytes = 0
  const add = (newest: number, from: number): boolean => {
    const key = history.key(newest)
    if (from >= 0) bytes += key.length + history.valueBytesOf(from)
    plan.push({ key, from })
    return plan.length <= request.changesMax && bytes <= request.bytesMax
  }
  /** Keys whose values then and now have to be compared, in order with those that are not. */
  const found: { newest: number; then: number; now: number }[] = []
  const hasOut = history.hasOut
  yield* scanAll(view, toSpan(request.key, request.rangeEnd), (newest) => {
    const then = recordAt(history, newest, request.revision)
    const now = recordAt(history, newest, view.revision)
    if (then === now) return true
    if (hasOut) {
      found.push({ newest, then, now })
      return true
    }
    if (then >= 0 && now >= 0 && history.compareValues(then, now) === 0) return true
    return add(newest, then)
  })
  const compared = found.filter(({ then, now }) => then >= 0 && now >= 0)
  const values = new ValueReader(
    view,
    compared.flatMap(({ then, now }) => [then, now]),
  )
  let at = 0
  for (const { newest, then, now } of found) {
    if (then >= 0 && now >= 0) {
      const before: Buffer = values.take(at) ?? (yield* values.more(at))
      const after: Buffer = values.take(at + 1) ?? (yield* values.more(at + 1))
      at += 2
      if (before.equals(after)) continue
    }
    if (!add(newest, then)) break
  }
  if (plan.length > request.changesMax) return refused(historyRefusals.tooManyChanges)
  if (bytes > request.bytesMax) return refused(refusals.noSpace)
  return accepted(plan)
}

/** Whether the state as of a revision is known; a read of history says which one it means. */
export function checkHistory(view: Pick<View, 'revision' | 'compactRevision'>, revision: number) {
  return revision <= 0 ? historyRefusals.revisionMissing : checkRevision(view, revision)
}

/** A key's record that the view sees, a deletion too. */
function newestAt({ history, revision }: View, newest: number): number {
  let record = newest
  while (record >= 0 && history.revision(record) > revision) record = history.prev(record)
  return record
}

/** Visits the newest record of every key of a span, of deleted ones too. */
function* scanAll(view: View, span: Span, visit: (newest: number) => boolean): Slices<void> {
  let start: Key | undefined = span.start
  for (;;) {
    start = view.index.scan({ start, end: span.end }, visit, view.sliceRecords)
    if (start === undefined) return
    yield
  }
}

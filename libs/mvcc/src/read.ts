import { accepted, type Outcome, refusals } from './errors.ts'
import type { History } from './history.ts'
import { isSingle, type Key, type Span, toSpan } from './key.ts'
import type { KeyIndex, Tally } from './key-index.ts'
import type { KeyValue, RangeRequest, RangeResponse, SortTarget } from './requests.ts'
import { type Slices, sortSlices } from './slices.ts'
import { ValueFetch } from './value-memory.ts'
import { sliceBytes, ValueReader } from './value-reader.ts'

/** What a read needs to see of the store. */
export type View = {
  index: KeyIndex
  history: History
  /** Newest revision a read may see; within a transaction the one being written. */
  revision: number
  compactRevision: number
  /** Keys looked at before a slice ends. */
  sliceRecords: number
}

/** The key's record as of a revision, or -1 if it did not exist then. `newest` is where its chain begins. */
export function recordAt(history: History, newest: number, revision: number): number {
  let record = newest
  while (record >= 0 && history.revision(record) > revision) record = history.prev(record)
  return record >= 0 && history.version(record) > 0 ? record : -1
}

/** Visits the record of each live key of a span in key order until `visit` answers false, but for those that `add` took in one. */
export function* scanLive(
  view: View,
  span: Span,
  revision: number,
  visit: (record: number) => boolean | undefined,
  add?: Tally['add'],
): Slices<void> {
  const { index, history } = view
  if (isSingle(span)) {
    const record = recordAt(history, index.get(span.start), revision)
    if (record >= 0) visit(record)
    return
  }
  const visitNewest = (newest: number): boolean | undefined => {
    const record = recordAt(history, newest, revision)
    return record < 0 ? undefined : visit(record)
  }
  const tally = add && { revision, add }
  let start: Key | undefined = span.start
  for (;;) {
    start = index.scan({ start, end: span.end }, visitNewest, view.sliceRecords, tally)
    if (start === undefined) return
    yield
  }
}

/** Whether a read at `revision` (0: current) is possible. */
export function checkRevision(view: Pick<View, 'revision' | 'compactRevision'>, revision: number) {
  if (revision > view.revision) return refusals.futureRevision
  if (revision > 0 && revision < view.compactRevision) return refusals.compacted
  return undefined
}

/** A range read that was checked: what it found, in the order of the answer. */
type Found = { records: number[]; count: number; more: boolean }

/**
 * A range read (kv.md section 2): count is of the whole range whatever limit and filters; sorting comes before
 * the limit; order `none` with a target other than the key sorts ascending. Pairs are yielded as they are made, in order; the
 * last ones come with the answer.
 */
export function* rangeSlices(
  view: View,
  request: RangeRequest,
): Generator<KeyValue[] | ValueFetch, Outcome<RangeResponse>> {
  const { records, count, more } = yield* withoutPairs(find(view, request))
  const { history, sliceRecords } = view
  const keysOnly = request.keysOnly ?? false
  let values: ValueReader | undefined
  /** Whether values may have to be fetched, which only changes while others run. */
  let isFetching = history.hasOut && !keysOnly
  let kvs: KeyValue[] = []
  let bytes = 0
  for (let at = 0; at < records.length; at++) {
    if (kvs.length >= sliceRecords || bytes >= sliceBytes) {
      yield kvs
      kvs = []
      bytes = 0
      isFetching = history.hasOut && !keysOnly
    }
    const kv = history.keyValue(records[at]!, keysOnly || isFetching)
    if (isFetching) {
      values ??= new ValueReader(view, records)
      kv.value = values.take(at) ?? (yield* values.more(at))
    }
    kvs.push(kv)
    bytes += kv.value.length
  }
  return accepted({ revision: view.revision, kvs, more, count })
}

/** A range read of a transaction: its pairs all at once. Its revision was checked. */
export function* rangeWithin(view: View, request: RangeRequest): Slices<RangeResponse> {
  const kvs: KeyValue[] = []
  const slices = rangeSlices(view, request)
  for (;;) {
    const step = slices.next()
    if (!step.done) {
      if (step.value instanceof ValueFetch) yield step.value
      else {
        kvs.push(...step.value)
        yield
      }
    } else if (step.value.ok) {
      return {
        ...step.value.value,
        kvs: kvs.length > 0 ? [...kvs, ...step.value.value.kvs] : step.value.value.kvs,
      }
    } else throw new Error('assertion failed: a checked range is answered')
  }
}

function* withoutPairs<T>(slices: Slices<T>): Generator<KeyValue[] | ValueFetch, T> {
  for (;;) {
    const step = slices.next()
    if (step.done) return step.value
    yield step.value ?? []
  }
}

function* find(view: View, request: RangeRequest): Slices<Found> {
  const asked = request.revision ?? 0
  const revision = asked > 0 ? asked : view.revision
  const target = request.sortTarget ?? 'key'
  const order = request.sortOrder ?? 'none'
  const limit = request.limit && request.limit > 0 ? request.limit : Number.POSITIVE_INFINITY
  const isSorted = target !== 'key' || order === 'descend'
  const isFiltered = !!(
    request.minModRevision ||
    request.maxModRevision ||
    request.minCreateRevision ||
    request.maxCreateRevision
  )
  const enough = request.countOnly ? 0 : isSorted ? Number.POSITIVE_INFINITY : limit

  let records: number[] = []
  let count = 0
  let matching = 0
  const visit = (record: number): boolean => {
    count++
    if (!isFiltered || passesFilters(view.history, record, request)) {
      if (matching++ < enough) records.push(record)
    }
    return true
  }
  // Behind the limit keys are only counted: a page of a long list costs what the page has.
  const add = (live: number): boolean => {
    if (isFiltered || matching < enough) return false
    count += live
    matching += live
    return true
  }
  yield* scanLive(view, toSpan(request.key, request.rangeEnd), revision, visit, add)
  if (request.countOnly) return { records: [], count, more: false }
  if (isSorted) {
    if (target === 'value' && view.history.hasOut) {
      records = yield* sortByValue(view, records, { isDescending: order === 'descend', limit })
    } else if (target !== 'key')
      records = yield* sortRecords(view, records, { target, isDescending: order === 'descend' })
    // The scan was in key order already.
    else records.reverse()
  }
  if (records.length > limit) records.length = limit
  return { records, count, more: matching > limit }
}

function passesFilters(history: History, record: number, request: RangeRequest): boolean {
  const revision = history.revision(record)
  const createRevision = history.createRevision(record)
  return (
    (!request.minModRevision || revision >= request.minModRevision) &&
    (!request.maxModRevision || revision <= request.maxModRevision) &&
    (!request.minCreateRevision || createRevision >= request.minCreateRevision) &&
    (!request.maxCreateRevision || createRevision <= request.maxCreateRevision)
  )
}

/**
 * Sorts by values that may not be in memory, as `sortRecords` does, and keeps no more of them than the answer has and a slice. What is
 * behind the limit is of no order.
 */
function* sortByValue(
  view: View,
  records: number[],
  { isDescending, limit }: { isDescending: boolean; limit: number },
): Slices<number[]> {
  const sign = isDescending ? -1 : 1
  const compare = (a: { value: Buffer }, b: { value: Buffer }): number =>
    sign * Buffer.compare(a.value, b.value)
  const values = new ValueReader(view, records)
  const rest: number[] = []
  let kept: { record: number; value: Buffer }[] = []
  const cut = Math.max(2 * limit, view.sliceRecords)
  for (const [at, record] of records.entries()) {
    kept.push({ record, value: values.take(at) ?? (yield* values.more(at)) })
    if (kept.length < cut && at + 1 < records.length) continue
    kept = yield* sortSlices(kept, compare, view.sliceRecords)
    for (const { record: behind } of kept.slice(limit)) rest.push(behind)
    kept = kept.slice(0, limit)
  }
  return [...kept.map(({ record }) => record), ...rest]
}

function sortRecords(
  { history, sliceRecords }: View,
  records: number[],
  { target, isDescending }: { target: Exclude<SortTarget, 'key'>; isDescending: boolean },
): Slices<number[]> {
  const sign = isDescending ? -1 : 1
  if (target === 'value') {
    const compare = (a: number, b: number): number => sign * history.compareValues(a, b)
    return sortSlices(records, compare, sliceRecords)
  }
  const rank = (record: number): number => {
    if (target === 'version') return history.version(record)
    return target === 'create' ? history.createRevision(record) : history.revision(record)
  }
  return sortSlices(records, (a, b) => sign * (rank(a) - rank(b)), sliceRecords)
}

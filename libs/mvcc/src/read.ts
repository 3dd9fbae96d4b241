import { accepted, type Outcome, refusals, refused } from './errors.ts'
import type { History } from './history.ts'
import { fromKey, isSingle, type Span, toSpan } from './key.ts'
import type { KeyIndex } from './key-index.ts'
import type { KeyValue, RangeRequest, RangeResponse, SortTarget } from './requests.ts'

/** What a read needs to see of the store. */
export type View = {
  index: KeyIndex
  history: History
  /** Newest revision a read may see; within a transaction the one being written. */
  revision: number
  compactRevision: number
}

const noValue = new Uint8Array(0)

/** The key's record as of a revision, or -1 if it did not exist then. `newest` is where its chain begins. */
export function recordAt(history: History, newest: number, revision: number): number {
  let record = newest
  while (record >= 0 && history.revision(record) > revision) record = history.prev(record)
  return record >= 0 && history.version(record) > 0 ? record : -1
}

export function keyValue(history: History, record: number, keysOnly = false): KeyValue {
  const fields = history.fields(record)
  return {
    key: fromKey(fields.key),
    value: keysOnly ? noValue : history.value(record),
    createRevision: fields.createRevision,
    modRevision: fields.revision,
    version: fields.version,
    lease: fields.lease,
  }
}

/** Visits the record of each live key of a span in key order until `visit` answers false. */
export function scanLive(
  view: View,
  span: Span,
  revision: number,
  visit: (record: number) => boolean | undefined,
): void {
  if (isSingle(span)) {
    const newest = view.index.get(span.start)
    const record = newest === undefined ? -1 : recordAt(view.history, newest, revision)
    if (record >= 0) visit(record)
    return
  }
  view.index.scan(span, (_key, newest) => {
    const record = recordAt(view.history, newest, revision)
    return record < 0 ? undefined : visit(record)
  })
}

/** Whether a read at `revision` (0: current) is possible. */
export function checkRevision(view: Pick<View, 'revision' | 'compactRevision'>, revision: number) {
  if (revision > view.revision) return refusals.futureRevision
  if (revision > 0 && revision < view.compactRevision) return refusals.compacted
  return undefined
}

/**
 * A range read (kv.md section 2): count is of the whole range whatever limit and filters; sorting comes before
 * the limit; order `none` with a target other than the key sorts ascending.
 */
export function range(view: View, request: RangeRequest): Outcome<RangeResponse> {
  const asked = request.revision ?? 0
  const refusal = checkRevision(view, asked)
  if (refusal) return refused(refusal)
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
  const enough = request.countOnly ? 0 : isSorted || isFiltered ? Number.POSITIVE_INFINITY : limit

  const records: number[] = []
  let count = 0
  scanLive(view, toSpan(request.key, request.rangeEnd), revision, (record) => {
    if (count++ < enough) records.push(record)
    return true
  })
  if (request.countOnly) return accepted({ revision: view.revision, kvs: [], more: false, count })

  let picked = isFiltered ? records.filter((record) => passesFilters(view.history, record, request)) : records
  // Without filters the pushed down limit may have cut; with them only what passed counts.
  const matching = isFiltered ? picked.length : count
  if (isSorted) sortRecords(view.history, picked, target, order === 'descend')
  if (picked.length > limit) picked = picked.slice(0, limit)
  const kvs = picked.map((record) => keyValue(view.history, record, request.keysOnly))
  return accepted({ revision: view.revision, kvs, more: matching > limit, count })
}

function passesFilters(history: History, record: number, request: RangeRequest): boolean {
  const { revision, createRevision } = history.fields(record)
  return (
    (!request.minModRevision || revision >= request.minModRevision) &&
    (!request.maxModRevision || revision <= request.maxModRevision) &&
    (!request.minCreateRevision || createRevision >= request.minCreateRevision) &&
    (!request.maxCreateRevision || createRevision <= request.maxCreateRevision)
  )
}

function sortRecords(history: History, records: number[], target: SortTarget, isDescending: boolean): void {
  const sign = isDescending ? -1 : 1
  if (target === 'key') {
    // The scan was in key order already.
    if (isDescending) records.reverse()
    return
  }
  if (target === 'value') {
    records.sort((a, b) => sign * Buffer.compare(history.value(a), history.value(b)))
    return
  }
  const rank = new Map(
    records.map((record) => {
      const { version, createRevision, revision } = history.fields(record)
      return [record, target === 'version' ? version : target === 'create' ? createRevision : revision]
    }),
  )
  records.sort((a, b) => sign * (rank.get(a)! - rank.get(b)!))
}

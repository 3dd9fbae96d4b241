import { toSpan } from './key.ts'
import { rangeWithin, scanLive, type View } from './read.ts'
import type { Compare, CompareResult, RequestOp, ResponseOp, TxnRequest, TxnResponse } from './requests.ts'
import type { Slices } from './slices.ts'
import { ValueReader } from './value-reader.ts'

/** The way a transaction takes: its branch, and that of each transaction nested in it. */
export type TxnPath = { succeeded: boolean; steps: { op: RequestOp; inner: TxnPath | undefined }[] }

/** Evaluates all compares, nested ones too, against the state before the transaction. */
export function* choosePath(view: View, request: TxnRequest): Slices<TxnPath> {
  let succeeded = true
  for (const compare of request.compare) {
    succeeded = yield* holds(view, compare)
    if (!succeeded) break
  }
  const steps: TxnPath['steps'] = []
  for (const op of succeeded ? request.success : request.failure) {
    steps.push({ op, inner: op.kind === 'txn' ? yield* choosePath(view, op.request) : undefined })
  }
  return { succeeded, steps }
}

/** Whether something on the way changes keys, or might. */
export const isWriting = (path: TxnPath): boolean =>
  path.steps.some(({ op, inner }) => (inner ? isWriting(inner) : op.kind !== 'range'))

/** Runs a path that only reads. */
export function* readPath(view: View, path: TxnPath): Slices<TxnResponse> {
  const responses: ResponseOp[] = []
  for (const { op, inner } of path.steps) {
    if (inner) responses.push({ kind: 'txn', response: yield* readPath(view, inner) })
    else if (op.kind === 'range') {
      responses.push({ kind: 'range', response: yield* rangeWithin(view, op.request) })
    }
  }
  return { revision: view.revision, succeeded: path.succeeded, responses }
}

/**
 * A compare over a span holds if every key of it does. No key at all counts as one with zeros, and as no value at
 * all: a value compare is then false whatever its operator (kv.md section 3).
 */
function* holds(view: View, compare: Compare): Slices<boolean> {
  if (compare.target === 'value' && view.history.hasOut) return yield* holdsByValue(view, compare)
  let isFound = false
  let isHeld = true
  yield* scanLive(view, toSpan(compare.key, compare.rangeEnd), view.revision, (record) => {
    isFound = true
    isHeld = meets(compare.result, orderOf(view, record, compare))
    return isHeld
  })
  if (isFound) return isHeld
  if (compare.target === 'value') return false
  return meets(compare.result, sign(0n, BigInt(compare.wanted)))
}

/** The same for values that may not be in memory. */
function* holdsByValue(view: View, compare: Compare & { target: 'value' }): Slices<boolean> {
  const records: number[] = []
  yield* scanLive(view, toSpan(compare.key, compare.rangeEnd), view.revision, (record) => {
    records.push(record)
    return true
  })
  const values = new ValueReader(view, records)
  for (let at = 0; at < records.length; at++) {
    const value: Buffer = values.take(at) ?? (yield* values.more(at))
    if (!meets(compare.result, Buffer.compare(value, compare.wanted))) return false
  }
  return records.length > 0
}

function orderOf(view: View, record: number, compare: Compare): number {
  const { history } = view
  switch (compare.target) {
    case 'version':
      return history.version(record) - compare.wanted
    case 'create':
      return history.createRevision(record) - compare.wanted
    case 'mod':
      return history.revision(record) - compare.wanted
    case 'lease':
      return sign(history.lease(record), compare.wanted)
    case 'value':
      return Buffer.compare(history.value(record), compare.wanted)
  }
}

const sign = (a: bigint, b: bigint): number => (a < b ? -1 : a > b ? 1 : 0)

function meets(result: CompareResult, order: number): boolean {
  switch (result) {
    case 'equal':
      return order === 0
    case 'greater':
      return order > 0
    case 'less':
      return order < 0
    case 'not-equal':
      return order !== 0
  }
}

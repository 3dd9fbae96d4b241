import { toSpan } from './key.ts'
import { scanLive, type View } from './read.ts'
import type { Compare, CompareResult, RequestOp, TxnRequest } from './requests.ts'

/** The way a transaction takes: its branch, and that of each transaction nested in it. */
export type TxnPath = { succeeded: boolean; steps: { op: RequestOp; inner: TxnPath | undefined }[] }

/** Evaluates all compares, nested ones too, against the state before the transaction. */
export function choosePath(view: View, request: TxnRequest): TxnPath {
  const succeeded = request.compare.every((compare) => holds(view, compare))
  const ops = succeeded ? request.success : request.failure
  return {
    succeeded,
    steps: ops.map((op) => ({ op, inner: op.kind === 'txn' ? choosePath(view, op.request) : undefined })),
  }
}

/**
 * A compare over a span holds if every key of it does. No key at all counts as one with zeros, and as no value at
 * all: a value compare is then false whatever its operator (kv.md section 3).
 */
function holds(view: View, compare: Compare): boolean {
  let isFound = false
  let isHeld = true
  scanLive(view, toSpan(compare.key, compare.rangeEnd), view.revision, (record) => {
    isFound = true
    isHeld = meets(compare.result, orderOf(view, record, compare))
    return isHeld
  })
  if (isFound) return isHeld
  if (compare.target === 'value') return false
  return meets(compare.result, sign(0n, BigInt(compare.wanted)))
}

function orderOf(view: View, record: number, compare: Compare): number {
  const fields = view.history.fields(record)
  switch (compare.target) {
    case 'version':
      return fields.version - compare.wanted
    case 'create':
      return fields.createRevision - compare.wanted
    case 'mod':
      return fields.revision - compare.wanted
    case 'lease':
      return sign(fields.lease, compare.wanted)
    case 'value':
      return Buffer.compare(view.history.value(record), compare.wanted)
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

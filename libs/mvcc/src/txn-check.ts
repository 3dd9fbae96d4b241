import { type Refusal, refusals } from './errors.ts'
import { contains, type Key, type Span, toKey, toSpan } from './key.ts'
import type { DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest } from './requests.ts'

/** Operations that a transaction may hold, etcd's `max-txn-ops`. */
export const txnOpsMaxDefault = 128

export function checkRange(request: RangeRequest): Refusal | undefined {
  return request.key.length === 0 ? refusals.emptyKey : undefined
}

export function checkPut(request: PutRequest): Refusal | undefined {
  if (request.key.length === 0) return refusals.emptyKey
  if (request.ignoreValue && request.value.length > 0) return refusals.valueProvided
  if (request.ignoreLease && request.lease) return refusals.leaseProvided
  return undefined
}

export function checkDelete(request: DeleteRangeRequest): Refusal | undefined {
  return request.key.length === 0 ? refusals.emptyKey : undefined
}

/** What can be refused without looking at the store, before a transaction is proposed (kv.md section 3). */
export function checkTxn(request: TxnRequest, opsMax = txnOpsMaxDefault): Refusal | undefined {
  return checkShape(request, opsMax) ?? checkTouched(request)
}

function checkShape(request: TxnRequest, opsMax: number): Refusal | undefined {
  const ops = Math.max(request.compare.length, request.success.length, request.failure.length)
  if (ops > opsMax) return refusals.tooManyOps
  for (const compare of request.compare) if (compare.key.length === 0) return refusals.emptyKey
  for (const op of [...request.success, ...request.failure]) {
    const refusal = checkOp(op, opsMax - ops)
    if (refusal) return refusal
  }
  return undefined
}

function checkOp(op: RequestOp, opsMax: number): Refusal | undefined {
  switch (op.kind) {
    case 'range':
      return checkRange(op.request)
    case 'put':
      return checkPut(op.request)
    case 'delete':
      return checkDelete(op.request)
    case 'txn':
      return checkShape(op.request, opsMax)
    case 'empty':
      return refusals.keyNotFound
  }
}

/** Keys a branch puts and spans it deletes. */
type Touched = { puts: Set<Key>; deletes: Span[] }

function checkTouched(request: TxnRequest): Refusal | undefined {
  const success = touchedBy(request.success)
  const failure = touchedBy(request.failure)
  return success && failure ? undefined : refusals.duplicateKey
}

/**
 * One key may be put once, and not put and deleted, on any path through a branch. The two sides of a nested
 * transaction exclude each other, so both may put a key. Undefined: the rule is broken.
 */
function touchedBy(ops: RequestOp[]): Touched | undefined {
  const puts = new Set<Key>()
  const deletes: Span[] = []
  const isDeleted = (key: Key): boolean => deletes.some((span) => contains(span, key))
  for (const op of ops) if (op.kind === 'delete') deletes.push(toSpan(op.request.key, op.request.rangeEnd))
  for (const op of ops) {
    if (op.kind !== 'txn') continue
    const success = touchedBy(op.request.success)
    const failure = touchedBy(op.request.failure)
    if (!success || !failure) return undefined
    for (const key of [...success.puts, ...failure.puts]) {
      if (puts.has(key) || isDeleted(key)) return undefined
    }
    const inner = [...success.deletes, ...failure.deletes]
    for (const key of puts) if (inner.some((span) => contains(span, key))) return undefined
    for (const key of success.puts) puts.add(key)
    for (const key of failure.puts) puts.add(key)
    deletes.push(...inner)
  }
  for (const op of ops) {
    if (op.kind !== 'put') continue
    const key = toKey(op.request.key)
    if (puts.has(key) || isDeleted(key)) return undefined
    puts.add(key)
  }
  return { puts, deletes }
}

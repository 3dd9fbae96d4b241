import { type Key, toKey, toSpan } from '../key.ts'
import type { DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest } from '../requests.ts'
import { coversKey, coversSpan, type SpanSet } from './span-set.ts'

/** What a request needs a right for (kv.md section 6). */
export type Demand =
  | { kind: 'range'; request: Pick<RangeRequest, 'key' | 'rangeEnd'> }
  | { kind: 'put'; request: PutRequest }
  | { kind: 'delete'; request: DeleteRangeRequest }
  | { kind: 'txn'; request: TxnRequest }
  /** To end a lease is to delete its keys. */
  | { kind: 'lease-revoke'; id: bigint }
  /** To be told the keys of a lease. */
  | { kind: 'lease-keys'; id: bigint }
  /** To be told of a user or role: oneself, or one that one has. */
  | { kind: 'user' | 'role'; name: string }
  /** To be anybody that is known. */
  | { kind: 'login' }
  | { kind: 'admin' }

/** The keys of a lease; none for one that is not there. */
export type AttachedKeys = (lease: bigint) => Iterable<Key>

/** Keys that a user may read and write, over all of its roles. */
export type Grants = { read: SpanSet; write: SpanSet }

/** Whether the grants cover all that a request on keys touches. */
export function mayTouch(
  grants: Grants,
  demand: Demand & { kind: 'range' | 'put' | 'delete' | 'txn' | 'lease-revoke' | 'lease-keys' },
  attached: AttachedKeys,
): boolean {
  switch (demand.kind) {
    case 'range':
      return coversSpan(grants.read, toSpan(demand.request.key, demand.request.rangeEnd))
    case 'put':
      return mayPut(grants, demand.request, attached)
    case 'delete':
      return mayDelete(grants, demand.request)
    case 'txn':
      return mayRun(grants, demand.request, attached)
    case 'lease-revoke':
      return everyKey(attached(demand.id), grants.write)
    case 'lease-keys':
      return everyKey(attached(demand.id), grants.read)
  }
}

/** A lease with keys that the user may not write cannot be taken: ending it would delete them. */
function mayPut(grants: Grants, request: PutRequest, attached: AttachedKeys): boolean {
  const key = toKey(request.key)
  if (!coversKey(grants.write, key)) return false
  if (request.prevKv && !coversKey(grants.read, key)) return false
  return !request.lease || everyKey(attached(request.lease), grants.write)
}

function mayDelete(grants: Grants, request: DeleteRangeRequest): boolean {
  const span = toSpan(request.key, request.rangeEnd)
  return coversSpan(grants.write, span) && (!request.prevKv || coversSpan(grants.read, span))
}

/** Whatever way a transaction takes, nested ones too, must be allowed, and so must what it compares. */
function mayRun(grants: Grants, request: TxnRequest, attached: AttachedKeys): boolean {
  const isAllowed = (op: RequestOp): boolean => op.kind === 'empty' || mayTouch(grants, op, attached)
  return (
    request.compare.every(({ key, rangeEnd }) => coversSpan(grants.read, toSpan(key, rangeEnd))) &&
    request.success.every(isAllowed) &&
    request.failure.every(isAllowed)
  )
}

function everyKey(keys: Iterable<Key>, set: SpanSet): boolean {
  for (const key of keys) if (!coversKey(set, key)) return false
  return true
}

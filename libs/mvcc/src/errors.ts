/** gRPC status codes this package answers with. */
export type StatusCode = 2 | 3 | 5 | 7 | 8 | 9 | 11 | 15 | 16

/** A refusal as etcd words it: clients match on code and exact text (kv.md section 9). */
export type Refusal = { readonly code: StatusCode; readonly text: string }

/** Outcome of an operation: its response, or why it was refused. */
export type Outcome<T> = { ok: true; value: T } | { ok: false; refusal: Refusal }

export const accepted = <T>(value: T): Outcome<T> => ({ ok: true, value })
export const refused = (refusal: Refusal): { ok: false; refusal: Refusal } => ({ ok: false, refusal })

export const refusal = (code: StatusCode, text: string): Refusal =>
  Object.freeze({ code, text: `etcdserver: ${text}` })

export const refusals = {
  emptyKey: refusal(3, 'key is not provided'),
  keyNotFound: refusal(3, 'key not found'),
  valueProvided: refusal(3, 'value is provided'),
  leaseProvided: refusal(3, 'lease is provided'),
  tooManyOps: refusal(3, 'too many operations in txn request'),
  duplicateKey: refusal(3, 'duplicate key given in txn request'),
  invalidSort: refusal(3, 'invalid sort option'),
  compacted: refusal(11, 'mvcc: required revision has been compacted'),
  futureRevision: refusal(11, 'mvcc: required revision is a future revision'),
  leaseNotFound: refusal(5, 'requested lease not found'),
  leaseExists: refusal(9, 'lease already exists'),
  leaseTtlTooLarge: refusal(11, 'too large lease TTL'),
  noSpace: refusal(8, 'mvcc: database space exceeded'),
  corrupt: refusal(15, 'corrupt cluster'),
} as const

/**
 * Requests and responses of the store, in the words of etcd's API without its framing. Revisions are numbers
 * (below 2^53), lease ids 64-bit.
 */

export type KeyValue = {
  key: Uint8Array
  value: Uint8Array
  createRevision: number
  modRevision: number
  version: number
  lease: bigint
}

export type SortOrder = 'none' | 'ascend' | 'descend'
export type SortTarget = 'key' | 'version' | 'create' | 'mod' | 'value'

export type RangeRequest = {
  key: Uint8Array
  rangeEnd: Uint8Array
  limit?: number
  /** 0 or absent is the current revision. */
  revision?: number
  sortOrder?: SortOrder
  sortTarget?: SortTarget
  keysOnly?: boolean
  countOnly?: boolean
  minModRevision?: number
  maxModRevision?: number
  minCreateRevision?: number
  maxCreateRevision?: number
}

/** `revision` of every response is the store's revision when it was answered: it goes into the header. */
export type RangeResponse = { revision: number; kvs: KeyValue[]; more: boolean; count: number }

export type PutRequest = {
  key: Uint8Array
  value: Uint8Array
  lease?: bigint
  prevKv?: boolean
  ignoreValue?: boolean
  ignoreLease?: boolean
}
export type PutResponse = { revision: number; prevKv: KeyValue | undefined }

export type DeleteRangeRequest = { key: Uint8Array; rangeEnd: Uint8Array; prevKv?: boolean }
export type DeleteRangeResponse = { revision: number; deleted: number; prevKvs: KeyValue[] }

export type CompareResult = 'equal' | 'greater' | 'less' | 'not-equal'

export type Compare = { key: Uint8Array; rangeEnd: Uint8Array; result: CompareResult } & (
  | { target: 'version' | 'create' | 'mod'; wanted: number }
  | { target: 'lease'; wanted: bigint }
  | { target: 'value'; wanted: Uint8Array }
)

export type RequestOp =
  | { kind: 'range'; request: RangeRequest }
  | { kind: 'put'; request: PutRequest }
  | { kind: 'delete'; request: DeleteRangeRequest }
  | { kind: 'txn'; request: TxnRequest }
  /** An operation that names none of the above: refused by validation. */
  | { kind: 'empty' }

export type TxnRequest = { compare: Compare[]; success: RequestOp[]; failure: RequestOp[] }

export type ResponseOp =
  | { kind: 'range'; response: RangeResponse }
  | { kind: 'put'; response: PutResponse }
  | { kind: 'delete'; response: DeleteRangeResponse }
  | { kind: 'txn'; response: TxnResponse }

export type TxnResponse = { revision: number; succeeded: boolean; responses: ResponseOp[] }

/** One change of a key. A deletion's `kv` has only key and modRevision. */
export type StoreEvent = { type: 'put' | 'delete'; kv: KeyValue; prevKv: KeyValue | undefined }

import { type Bytes, prefixRange, toBytes, toText } from './bytes.ts'
import { type StoreEntry, storeEntry } from './entry.ts'
import {
  Compare,
  Compare_CompareResult,
  Compare_CompareTarget,
  DeleteRangeRequest,
  PutRequest,
  RangeRequest,
  type RequestOp,
  type ResponseOp,
} from './generated/rpc.ts'

export type CompareOperator = '=' | '!=' | '<' | '>'

/** A condition of a transaction on one key. A missing key has revision, version and lease 0; its value equals nothing. */
export type Comparison = { key: Bytes; operator?: CompareOperator } & (
  | { version: bigint }
  | { createRevision: bigint }
  | { modRevision: bigint }
  | { lease: bigint }
  | { value: Bytes }
)

export type Operation =
  | { kind: 'put'; key: Bytes; value: Bytes; lease?: bigint }
  | { kind: 'delete'; key: Bytes }
  | { kind: 'delete-prefix'; prefix: Bytes }
  | { kind: 'get'; key: Bytes }
  | { kind: 'get-prefix'; prefix: Bytes }

/** What an operation of a transaction answered. */
export type OperationResult =
  | { kind: 'put' }
  | { kind: 'delete'; deleted: number }
  | { kind: 'get'; entries: StoreEntry[] }

const operators = {
  '=': Compare_CompareResult.EQUAL,
  '!=': Compare_CompareResult.NOT_EQUAL,
  '<': Compare_CompareResult.LESS,
  '>': Compare_CompareResult.GREATER,
} as const

export function compareOf(comparison: Comparison): Compare {
  const base = { key: toBytes(comparison.key), result: operators[comparison.operator ?? '='] }
  if ('version' in comparison)
    return Compare.fromPartial({
      ...base,
      target: Compare_CompareTarget.VERSION,
      targetUnion: { $case: 'version', value: comparison.version },
    })
  if ('createRevision' in comparison)
    return Compare.fromPartial({
      ...base,
      target: Compare_CompareTarget.CREATE,
      targetUnion: { $case: 'createRevision', value: comparison.createRevision },
    })
  if ('modRevision' in comparison)
    return Compare.fromPartial({
      ...base,
      target: Compare_CompareTarget.MOD,
      targetUnion: { $case: 'modRevision', value: comparison.modRevision },
    })
  if ('lease' in comparison)
    return Compare.fromPartial({
      ...base,
      target: Compare_CompareTarget.LEASE,
      targetUnion: { $case: 'lease', value: comparison.lease },
    })
  return Compare.fromPartial({
    ...base,
    target: Compare_CompareTarget.VALUE,
    targetUnion: { $case: 'value', value: toBytes(comparison.value) },
  })
}

export function requestOf(operation: Operation): RequestOp {
  switch (operation.kind) {
    case 'put':
      return {
        request: { $case: 'requestPut', value: putOf(operation.key, operation.value, operation.lease) },
      }
    case 'delete':
      return {
        request: {
          $case: 'requestDeleteRange',
          value: DeleteRangeRequest.fromPartial({ key: toBytes(operation.key) }),
        },
      }
    case 'delete-prefix':
      return {
        request: {
          $case: 'requestDeleteRange',
          value: DeleteRangeRequest.fromPartial(prefixRange(operation.prefix)),
        },
      }
    case 'get':
      return {
        request: { $case: 'requestRange', value: RangeRequest.fromPartial({ key: toBytes(operation.key) }) },
      }
    case 'get-prefix':
      return {
        request: { $case: 'requestRange', value: RangeRequest.fromPartial(prefixRange(operation.prefix)) },
      }
  }
}

export function putOf(key: Bytes, value: Bytes, lease = 0n): PutRequest {
  return PutRequest.fromPartial({ key: toBytes(key), value: toBytes(value), lease })
}

export function resultOf({ response }: ResponseOp): OperationResult {
  switch (response?.$case) {
    case 'responseRange':
      return { kind: 'get', entries: response.value.kvs.map(storeEntry) }
    case 'responseDeleteRange':
      return { kind: 'delete', deleted: Number(response.value.deleted) }
    default:
      return { kind: 'put' }
  }
}

/** One line for a fault's message. */
export function describeOperation(operation: Operation): string {
  const key = 'prefix' in operation ? operation.prefix : operation.key
  return `${operation.kind} ${typeof key === 'string' ? key : toText(key)}`
}

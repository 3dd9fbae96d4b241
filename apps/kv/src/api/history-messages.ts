import * as messages from '@kiln/etcd-api/history'
import type {
  Change,
  DeletedKey,
  DeletedRequest,
  Difference,
  DiffRequest,
  RevisionsRequest,
} from '@kiln/mvcc'
import type { TimeMark } from '../state/time-marks.ts'
import type { ResponseHeader } from './context.ts'
import { decode } from './requests.ts'
import { toHeader, toKeyValue } from './responses.ts'

/** Requests and responses of kiln.history.v1 between protobuf and the store's words. */

export function decodeRevisions(bytes: Uint8Array): RevisionsRequest {
  const { key, limit, before, keysOnly } = decode(messages.RevisionsRequest, bytes)
  return { key, limit: Number(limit), before: Number(before), keysOnly }
}

export function decodeDeleted(bytes: Uint8Array): DeletedRequest {
  const { key, rangeEnd, limit } = decode(messages.DeletedRequest, bytes)
  return { key, rangeEnd, limit: Number(limit) }
}

export function decodeDiff(bytes: Uint8Array): DiffRequest {
  const { key, rangeEnd, fromRevision, toRevision, limit, keysOnly } = decode(messages.DiffRequest, bytes)
  return {
    key,
    rangeEnd,
    from: Number(fromRevision),
    to: Number(toRevision),
    limit: Number(limit),
    keysOnly,
  }
}

export function decodeRestore(bytes: Uint8Array): {
  key: Uint8Array
  rangeEnd: Uint8Array
  revision: number
  changesMax: number
} {
  const { key, rangeEnd, revision, changesMax } = decode(messages.RestoreRequest, bytes)
  return { key, rangeEnd, revision: Number(revision), changesMax: Number(changesMax) }
}

export function encodeRevisions(
  header: ResponseHeader,
  { changes, more, compactRevision }: { changes: Change[]; more: boolean; compactRevision: number },
): Uint8Array {
  return messages.RevisionsResponse.encode({
    header: toHeader(header),
    changes: changes.map(({ kind, kv }) => ({
      kind: kind === 'put' ? messages.Change_Kind.PUT : messages.Change_Kind.DELETE,
      kv: toKeyValue(kv),
    })),
    more,
    compactRevision: BigInt(Math.max(compactRevision, 0)),
  }).finish()
}

export function encodeDeleted(
  header: ResponseHeader,
  { keys, more }: { keys: DeletedKey[]; more: boolean },
): Uint8Array {
  return messages.DeletedResponse.encode({
    header: toHeader(header),
    keys: keys.map(({ key, deletedRevision, last }) => ({
      key,
      deletedRevision: BigInt(deletedRevision),
      last: last && toKeyValue(last),
    })),
    more,
  }).finish()
}

export function encodeDiff(
  header: ResponseHeader,
  { differences, more }: { differences: Difference[]; more: boolean },
): Uint8Array {
  return messages.DiffResponse.encode({
    header: toHeader(header),
    differences: differences.map(({ key, before, after }) => ({
      key,
      before: before && toKeyValue(before),
      after: after && toKeyValue(after),
    })),
    more,
  }).finish()
}

export function encodeRestore(
  header: ResponseHeader,
  { put, deleted }: { put: number; deleted: number },
): Uint8Array {
  return messages.RestoreResponse.encode({
    header: toHeader(header),
    put: BigInt(put),
    deleted: BigInt(deleted),
  }).finish()
}

export const decodeRevisionAt = (bytes: Uint8Array): number =>
  Number(decode(messages.RevisionAtRequest, bytes).timeMs)

export function encodeRevisionAt(
  header: ResponseHeader,
  { mark, compactRevision }: { mark: TimeMark; compactRevision: number },
): Uint8Array {
  return messages.RevisionAtResponse.encode({
    header: toHeader(header),
    revision: BigInt(mark.revision),
    seenMs: BigInt(mark.timeMs),
    compactRevision: BigInt(Math.max(compactRevision, 0)),
  }).finish()
}

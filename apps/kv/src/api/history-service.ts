import {
  checkHistory,
  type Refusal,
  readDeleted,
  readDiff,
  readRevisions,
  refusals,
  type Slices,
} from '@kiln/mvcc'
import type { CallInfo } from '@kiln/wire'
import { restoreDemand } from '../state/permission.ts'
import { runSlices } from '../state/slices.ts'
import { restoreStoreVersion, timeStoreVersion } from '../state/store-version.ts'
import {
  acceptedValue,
  checkServing,
  headerOf,
  propose,
  readIndex,
  type ServiceContext,
  unary,
} from './context.ts'
import { fail, statuses } from './errors.ts'
import {
  decodeDeleted,
  decodeDiff,
  decodeRestore,
  decodeRevisionAt,
  decodeRevisions,
  encodeDeleted,
  encodeDiff,
  encodeRestore,
  encodeRevisionAt,
  encodeRevisions,
} from './history-messages.ts'
import type { MethodRegistry } from './method-table.ts'

/** Keys that one restore changes at most, whatever is asked for. */
const restoreChangesMax = 1_000_000

type Range = { key: Uint8Array; rangeEnd: Uint8Array }

/** The history of keys: kiln.history.v1.History (`history.proto`). All reads are linearizable and go in slices. */
export function serveHistory(server: MethodRegistry, context: ServiceContext): void {
  const { state, settings, auth } = context
  const { store } = state

  const readable = async (call: CallInfo, range: Range): Promise<void> => {
    if (range.key.length === 0) fail(refusals.emptyKey)
    if (state.alarms.has('corrupt')) fail(refusals.corrupt)
    checkServing(context, call)
    await readIndex(context, call)
    await auth.admit(call, { kind: 'range', request: range }, 'local')
  }
  const isRefused = (refusal: Refusal | undefined): void => {
    if (refusal) fail(refusal)
  }
  const look = <T>(oldest: number, read: Parameters<typeof store.lookSlices<T>>[1]): Promise<T> =>
    runSlices(store.lookSlices(oldest, read) as Slices<T>, state.values)

  unary(server, '/kiln.history.v1.History/Revisions', async (bytes, call) => {
    const request = decodeRevisions(bytes)
    await readable(call, { key: request.key, rangeEnd: new Uint8Array() })
    return encodeRevisions(headerOf(context), await look(0, (view) => readRevisions(view, request)))
  })

  unary(server, '/kiln.history.v1.History/Deleted', async (bytes, call) => {
    const request = decodeDeleted(bytes)
    await readable(call, request)
    return encodeDeleted(headerOf(context), await look(0, (view) => readDeleted(view, request)))
  })

  unary(server, '/kiln.history.v1.History/Diff', async (bytes, call) => {
    const request = decodeDiff(bytes)
    await readable(call, request)
    isRefused(checkHistory(store, request.from))
    // The newest is what it is now, and stays that while it is read in slices.
    const to = request.to === 0 ? store.revision : request.to
    isRefused(checkHistory(store, to))
    const found = await look(Math.min(request.from, to), (view) => readDiff(view, { ...request, to }))
    return encodeDiff(headerOf(context), found)
  })

  unary(server, '/kiln.history.v1.History/Restore', async (bytes, call) => {
    checkServing(context, call)
    const request = decodeRestore(bytes)
    if (request.key.length === 0) fail(refusals.emptyKey)
    if (bytes.length > settings.requestBytesMax) fail(statuses.requestTooLarge)
    const who = await auth.admit(call, restoreDemand(request))
    // A member of an older program could not read the entry.
    if (state.version < restoreStoreVersion) fail(statuses.restoreUnknown)
    await readIndex(context, call)
    isRefused(checkHistory(store, request.revision))
    const asked = request.changesMax > 0 ? request.changesMax : restoreChangesMax
    const command = {
      kind: 'restore' as const,
      request: bytes,
      changesMax: Math.min(asked, restoreChangesMax),
      bytesMax:
        settings.quotaBytes < 0
          ? Number.MAX_SAFE_INTEGER
          : Math.max(0, settings.quotaBytes - store.sizeBytes),
    }
    const { outcome } = await propose(context, command, who)
    const restored = acceptedValue(outcome)
    return encodeRestore(headerOf(context, restored.revision), restored)
  })
  unary(server, '/kiln.history.v1.History/RevisionAt', async (bytes, call) => {
    checkServing(context, call)
    await readIndex(context, call)
    await auth.admit(call, { kind: 'login' }, 'local')
    if (state.version < timeStoreVersion) fail(statuses.timeUnknown)
    const mark = state.times.at(decodeRevisionAt(bytes)) ?? fail(statuses.timeNotSeen)
    return encodeRevisionAt(headerOf(context), { mark, compactRevision: store.compactRevision })
  })
}

import {
  checkDelete,
  checkPut,
  checkRange,
  checkTxn,
  type RequestOp,
  refusals,
  type TxnRequest,
} from '@kiln/mvcc'
import type { CallInfo } from '@kiln/wire'
import { runSlices } from '../state/slices.ts'
import { mayPut } from '../state/state-machine.ts'
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
import type { MethodRegistry } from './method-table.ts'
import { rangeInSlices } from './range.ts'
import {
  decodeCompaction,
  decodeDelete,
  decodePut,
  decodeRange,
  decodeTxn,
  isSerializableTxn,
} from './requests.ts'
import { encodeDelete, encodeHeaderOnly, encodePut, encodeTxn } from './responses.ts'

/** Keys: etcdserverpb.KV (kv.md sections 2 and 3). */
export function serveKv(server: MethodRegistry, context: ServiceContext): void {
  const { state, consensus, settings, reclaimer, auth } = context
  const { store } = state

  /** A linearizable read waits until this member has all that was acknowledged before. */
  const readable = async (call: CallInfo, isSerializable: boolean): Promise<void> => {
    if (state.alarms.has('corrupt')) fail(refusals.corrupt)
    if (isSerializable) {
      if (call.hasLeader && consensus.leader() === 0n) fail(statuses.noLeader)
      return
    }
    checkServing(context, call)
    await readIndex(context, call)
  }
  const checkSize = (request: Uint8Array): void => {
    if (request.length > settings.requestBytesMax) fail(statuses.requestTooLarge)
  }
  const checkSpace = async (request: Uint8Array): Promise<void> => {
    if (settings.quotaBytes < 0 || store.sizeBytes + request.length < settings.quotaBytes) return
    if (!state.alarms.list('nospace').some(({ member }) => member === consensus.id())) {
      await propose(
        context,
        { kind: 'alarm', raise: true, member: consensus.id(), alarm: 'nospace' },
        'member',
      )
    }
    fail(statuses.noSpace)
  }

  unary(server, '/etcdserverpb.KV/Range', async (bytes, call) => {
    const { serializable, ...request } = decodeRange(bytes)
    const refusal = checkRange(request)
    if (refusal) fail(refusal)
    await readable(call, serializable)
    await auth.admit(call, { kind: 'range', request }, 'local')
    return rangeInSlices(context, request, call)
  })

  unary(server, '/etcdserverpb.KV/Put', async (bytes, call) => {
    checkServing(context, call)
    const request = decodePut(bytes)
    const refusal = checkPut(request)
    if (refusal) fail(refusal)
    checkSize(bytes)
    const who = await auth.admit(call, { kind: 'put', request })
    await checkSpace(bytes)
    const { outcome } = await propose(context, { kind: 'put', request: bytes }, who, call)
    const response = acceptedValue(outcome)
    return encodePut(headerOf(context, response.revision), response)
  })

  unary(server, '/etcdserverpb.KV/DeleteRange', async (bytes, call) => {
    checkServing(context, call)
    const request = decodeDelete(bytes)
    const refusal = checkDelete(request)
    if (refusal) fail(refusal)
    checkSize(bytes)
    const who = await auth.admit(call, { kind: 'delete', request })
    const { outcome } = await propose(context, { kind: 'delete', request: bytes }, who, call)
    const response = acceptedValue(outcome)
    return encodeDelete(headerOf(context, response.revision), response)
  })

  unary(server, '/etcdserverpb.KV/Txn', async (bytes, call) => {
    const request = decodeTxn(bytes)
    const refusal = checkTxn(request, settings.txnOpsMax)
    if (refusal) fail(refusal)
    if (isReadOnly(request)) {
      await readable(call, isSerializableTxn(bytes))
      await auth.admit(call, { kind: 'txn', request }, 'local')
      const response = acceptedValue(await runSlices(store.txnSlices(request), state.values))
      return encodeTxn(headerOf(context, response.revision), response)
    }
    checkServing(context, call)
    checkSize(bytes)
    const who = await auth.admit(call, { kind: 'txn', request })
    if (mayPut(request)) await checkSpace(bytes)
    const { outcome } = await propose(context, { kind: 'txn', request: bytes }, who, call)
    const response = acceptedValue(outcome)
    return encodeTxn(headerOf(context, response.revision), response)
  })

  unary(server, '/etcdserverpb.KV/Compact', async (bytes, call) => {
    checkServing(context, call)
    const { physical } = decodeCompaction(bytes)
    const who = await auth.admit(call, { kind: 'login' })
    const { outcome } = await propose(context, { kind: 'compact', request: bytes }, who, call)
    const { revision } = acceptedValue(outcome)
    if (physical) await reclaimer.done()
    return encodeHeaderOnly(headerOf(context, revision))
  })
}

/** A transaction that writes on no path takes the way of a read and makes no log entry. */
function isReadOnly(request: TxnRequest): boolean {
  const isRead = (op: RequestOp): boolean =>
    op.kind === 'range' || (op.kind === 'txn' && isReadOnly(op.request))
  return request.success.every(isRead) && request.failure.every(isRead)
}

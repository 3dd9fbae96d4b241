import * as rpc from '@kiln/etcd-api/rpc'
import type { CallInfo } from '@kiln/wire'
import type { MethodTable } from '../api/method-table.ts'

/** Seconds of the lease that a lock or a candidacy without one gets. */
const ownLeaseTtl = 60n

/** The store's own methods in the name of a caller: its token decides what is allowed. */
export type StoreCalls = ReturnType<typeof storeCalls>

export function storeCalls(methods: MethodTable, caller: CallInfo) {
  const call = (name: string, request: Uint8Array): Promise<Uint8Array> =>
    methods.call(`/etcdserverpb.${name}`, request, caller)
  return {
    range: async (request: Partial<rpc.RangeRequest>): Promise<rpc.RangeResponse> =>
      rpc.RangeResponse.decode(
        await call('KV/Range', rpc.RangeRequest.encode(rpc.RangeRequest.fromPartial(request)).finish()),
      ),
    delete: async (key: Uint8Array): Promise<rpc.DeleteRangeResponse> =>
      rpc.DeleteRangeResponse.decode(
        await call(
          'KV/DeleteRange',
          rpc.DeleteRangeRequest.encode(rpc.DeleteRangeRequest.fromPartial({ key })).finish(),
        ),
      ),
    txn: async (request: Partial<rpc.TxnRequest>): Promise<rpc.TxnResponse> =>
      rpc.TxnResponse.decode(
        await call('KV/Txn', rpc.TxnRequest.encode(rpc.TxnRequest.fromPartial(request)).finish()),
      ),
    /** The lease given, or a new one if it is 0. */
    leaseOr: async (lease: bigint): Promise<bigint> => {
      if (lease !== 0n) return lease
      const request = rpc.LeaseGrantRequest.encode({ ID: 0n, TTL: ownLeaseTtl }).finish()
      return rpc.LeaseGrantResponse.decode(await call('Lease/LeaseGrant', request)).ID
    },
  }
}

/** Holds if the key was created at this revision; 0 is that there is none. */
export const createdAt = (key: Uint8Array, revision: bigint): rpc.Compare =>
  rpc.Compare.fromPartial({
    key,
    target: rpc.Compare_CompareTarget.CREATE,
    result: rpc.Compare_CompareResult.EQUAL,
    targetUnion: { $case: 'createRevision', value: revision },
  })

export const putOp = (key: Uint8Array, value: Uint8Array, lease: bigint): rpc.RequestOp =>
  rpc.RequestOp.fromPartial({ request: { $case: 'requestPut', value: { key, value, lease } } })

export const getOp = (request: Partial<rpc.RangeRequest>): rpc.RequestOp =>
  rpc.RequestOp.fromPartial({
    request: { $case: 'requestRange', value: rpc.RangeRequest.fromPartial(request) },
  })

export const deleteOp = (key: Uint8Array): rpc.RequestOp =>
  rpc.RequestOp.fromPartial({ request: { $case: 'requestDeleteRange', value: { key } } })

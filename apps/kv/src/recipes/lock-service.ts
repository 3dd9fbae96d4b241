import * as lock from '@kiln/etcd-api/lock'
import type { CallInfo } from '@kiln/wire'
import type { MethodTable } from '../api/method-table.ts'
import type { WatchService } from '../api/watch-service.ts'
import { recipe, recipeRefusal } from './recipe.ts'
import { createdAt, getOp, putOp, storeCalls } from './store-calls.ts'
import { keyOf, oldest, waitForTurn } from './turns.ts'

/** Locks: v3lockpb.Lock (kv.md section 7). The lock is held while its key exists, so for as long as its lease at most. */
export function serveLock(methods: MethodTable, watches: WatchService): void {
  recipe(methods, '/v3lockpb.Lock/Lock', lock.LockRequest, async (request, call, signal) =>
    lock.LockResponse.encode(await acquire({ methods, watches, call, signal }, request)).finish(),
  )
  recipe(methods, '/v3lockpb.Lock/Unlock', lock.UnlockRequest, async ({ key }, call) => {
    const { header } = await storeCalls(methods, call).delete(key)
    return lock.UnlockResponse.encode({ header }).finish()
  })
}

async function acquire(
  ports: { methods: MethodTable; watches: WatchService; call: CallInfo; signal: AbortSignal },
  { name, lease: givenLease }: lock.LockRequest,
): Promise<lock.LockResponse> {
  const store = storeCalls(ports.methods, ports.call)
  const lease = await store.leaseOr(givenLease)
  const key = keyOf(name, lease)
  const { header, succeeded, responses } = await store.txn({
    compare: [createdAt(key, 0n)],
    success: [putOp(key, new Uint8Array(0), lease), getOp(oldest(name))],
    failure: [getOp({ key }), getOp(oldest(name))],
  })
  const kvsOf = (at: number) => {
    const response = responses[at]?.response
    return response?.$case === 'responseRange' ? response.value.kvs : []
  }
  const revision = succeeded ? header!.revision : kvsOf(0)[0]!.createRevision
  const owner = kvsOf(1)[0]
  if (!owner || owner.createRevision === revision) return { header, key }
  try {
    await waitForTurn({ store, watches: ports.watches }, { name, revision }, ports.signal)
  } catch (error) {
    // Nobody waits for this turn any more: it must not hold up the ones behind it. The lease ends it if this fails.
    await store.delete(key).catch(() => undefined)
    throw error
  }
  const held = await store.range({ key })
  if (held.kvs.length === 0) throw recipeRefusal('mutex: session is expired')
  return { header: held.header, key }
}

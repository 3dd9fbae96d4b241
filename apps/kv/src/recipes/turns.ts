import { prefixEnd } from '@kiln/etcd-api'
import type { KeyValue } from '@kiln/etcd-api/mvcc'
import type { RangeRequest } from '@kiln/etcd-api/rpc'
import { RangeRequest_SortOrder, RangeRequest_SortTarget } from '@kiln/etcd-api/rpc'
import type { WatchService } from '../api/watch-service.ts'
import { follow } from './follow.ts'
import type { StoreCalls } from './store-calls.ts'

/**
 * Keys below a name take turns in the order they were created, each bound to its owner's lease: what locks and elections are made
 * of (etcd's concurrency package has the same keys, so that its clients and this service can share a lock).
 */

/** The prefix of all keys of a name, and the key of a lease below it. */
export const prefixOf = (name: Uint8Array): Buffer => Buffer.concat([name, Buffer.from('/')])
export const keyOf = (name: Uint8Array, lease: bigint): Buffer =>
  Buffer.concat([prefixOf(name), Buffer.from(BigInt.asUintN(64, lease).toString(16))])

/** Reads the oldest key below a name. */
export const oldest = (name: Uint8Array): Partial<RangeRequest> => ({
  key: prefixOf(name),
  rangeEnd: prefixEnd(prefixOf(name)),
  limit: 1n,
  sortOrder: RangeRequest_SortOrder.ASCEND,
  sortTarget: RangeRequest_SortTarget.CREATE,
})

/** Resolves when no key below the name is older than the one created at `revision`. */
export async function waitForTurn(
  { store, watches }: { store: StoreCalls; watches: WatchService },
  { name, revision }: { name: Uint8Array; revision: bigint },
  signal: AbortSignal,
): Promise<void> {
  for (;;) {
    const { kvs, header } = await store.range({
      ...oldest(name),
      sortOrder: RangeRequest_SortOrder.DESCEND,
      maxCreateRevision: revision - 1n,
    })
    const before: KeyValue | undefined = kvs[0]
    if (!before) return
    await waitForDeletion(watches, before.key, Number(header!.revision), signal)
  }
}

async function waitForDeletion(
  watches: WatchService,
  key: Uint8Array,
  afterRevision: number,
  signal: AbortSignal,
): Promise<void> {
  const from = { key, rangeEnd: new Uint8Array(0), startRevision: afterRevision + 1, noPut: true }
  for await (const { events } of follow(watches, from, signal)) if (events.length > 0) return
}

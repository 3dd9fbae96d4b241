import type { EtcdClient, WatchEvent } from '@kiln/etcd-api'
import { hashSlices, type RequestOp } from '@kiln/mvcc'
import { Fault } from '@kiln/service'
import type { StoreState } from '../state/state-machine.ts'

export type MirrorSource = Pick<EtcdClient, 'leaseTimeToLive' | 'leaseList' | 'hashKv'>

/** Granted to a lease that ended between its key and our question: the deletions of its keys are already on their way. */
const endedTtlSeconds = 3600
const nothing = new Uint8Array(0)

/**
 * A store that repeats what happens in a running cluster: each of its revisions as one transaction, so that revisions, versions
 * and places are the same. No lease ends here by itself; their ends arrive as deletions.
 */
export class Mirror {
  readonly state: StoreState
  #source: MirrorSource

  constructor(state: StoreState, source: MirrorSource) {
    this.state = state
    this.#source = source
  }

  /** Repeats events, which are in order and of whole revisions. */
  async apply(events: readonly WatchEvent[]): Promise<void> {
    for (let at = 0; at < events.length; ) {
      const revision = revisionOf(events[at]!)
      let end = at + 1
      while (end < events.length && revisionOf(events[end]!) === revision) end++
      await this.#applyRevision(revision, events.slice(at, end))
      at = end
    }
  }

  async #applyRevision(revision: number, events: readonly WatchEvent[]): Promise<void> {
    const { store } = this.state
    const ops: RequestOp[] = []
    for (const event of events) {
      if (event.kind === 'delete') {
        ops.push({ kind: 'delete', request: { key: event.keyBytes, rangeEnd: nothing } })
        continue
      }
      const { keyBytes: key, value, lease } = event.entry
      if (lease !== 0n && !store.leases.has(lease)) await this.#grant(lease)
      ops.push({ kind: 'put', request: { key, value, lease } })
    }
    const outcome = store.txn({ compare: [], success: ops, failure: [] })
    if (!outcome.ok || store.revision !== revision) {
      const found = outcome.ok ? `gives revision ${store.revision}` : `is refused: ${outcome.refusal.text}`
      throw new Fault('STORE_MIRROR_DIVERGED', `repeating revision ${revision} of the source ${found}`)
    }
  }

  async #grant(id: bigint): Promise<void> {
    const lease = await this.#source.leaseTimeToLive(id)
    this.state.store.grantLease(id, lease?.grantedSeconds ?? endedTtlSeconds)
  }

  /** Leases as the source has them now: those without keys as well, and the seconds that are left. */
  async takeLeases(): Promise<void> {
    const { leases } = this.state.store
    const present = new Set(await this.#source.leaseList())
    for (const { id, keys } of leases.list()) {
      if (!present.has(id) && keys.size === 0) this.state.store.revokeLease(id)
    }
    for (const id of present) {
      const found = await this.#source.leaseTimeToLive(id)
      if (!found) continue
      if (!leases.has(id)) this.state.store.grantLease(id, found.grantedSeconds)
      this.state.store.checkpointLease(id, Math.max(1, found.ttlSeconds))
    }
  }

  /** Compacts to where the source is compacted and compares the hash of everything up to our revision. */
  async verify(): Promise<number> {
    const { store } = this.state
    const theirs = await this.#source.hashKv(BigInt(store.revision))
    const compacted = Number(theirs.compactRevision)
    if (compacted > store.compactRevision) store.compact(compacted)
    const slices = hashSlices(store, store.revision)
    let step = slices.next()
    while (!step.done) {
      await new Promise((resume) => setImmediate(resume))
      step = slices.next()
    }
    const ours = step.value
    if (!ours.ok || ours.value.hash !== theirs.hash) {
      throw new Fault('STORE_MIRROR_DIVERGED', `at revision ${store.revision} the source has another hash`, {
        remedy: 'if the source was compacted meanwhile, run the import again',
      })
    }
    return ours.value.hash
  }
}

const revisionOf = (event: WatchEvent): number =>
  Number(event.kind === 'put' ? event.entry.modRevision : event.modRevision)

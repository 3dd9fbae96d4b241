import { accepted, type Outcome, type Refusal, refusals, refused } from './errors.ts'
import type { Key } from './key.ts'

/** etcd's bound on a TTL in seconds (kv.md section 5). */
export const leaseTtlMax = 9_000_000_000

export type Lease = {
  id: bigint
  /** Seconds granted. */
  ttl: number
  /** Seconds left at the last checkpoint, 0 when there was none since the grant or renewal. */
  remainingTtl: number
  keys: Set<Key>
}

/** Leases as all members agree on them: who exists, with which keys. When they end is the leader's affair. */
export class LeaseBook {
  #leases = new Map<bigint, Lease>()

  get(id: bigint): Lease | undefined {
    return this.#leases.get(id)
  }
  has(id: bigint): boolean {
    return this.#leases.has(id)
  }
  list(): Lease[] {
    return [...this.#leases.values()]
  }
  get size(): number {
    return this.#leases.size
  }

  /** Whether a grant with this id and TTL is possible; the id is picked by the proposer. */
  check(id: bigint, ttl: number): Refusal | undefined {
    if (ttl > leaseTtlMax) return refusals.leaseTtlTooLarge
    return this.#leases.has(id) ? refusals.leaseExists : undefined
  }

  grant(id: bigint, ttl: number): Outcome<Lease> {
    const refusal = this.check(id, ttl)
    if (refusal) return refused(refusal)
    const lease: Lease = { id, ttl, remainingTtl: 0, keys: new Set() }
    this.#leases.set(id, lease)
    return accepted(lease)
  }

  remove(id: bigint): Lease | undefined {
    const lease = this.#leases.get(id)
    this.#leases.delete(id)
    return lease
  }

  checkpoint(id: bigint, remainingTtl: number): void {
    const lease = this.#leases.get(id)
    if (lease) lease.remainingTtl = remainingTtl
  }

  attach(id: bigint, key: Key): void {
    this.#leases.get(id)?.keys.add(key)
  }
  detach(id: bigint, key: Key): void {
    this.#leases.get(id)?.keys.delete(key)
  }
}

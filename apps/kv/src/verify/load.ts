import type { EtcdClient, StoreEntry } from '@kiln/etcd-api'
import { Fault } from '@kiln/service'
import type { Random } from '@kiln/simulation'
import type { Asked, Observed, Seen, Told } from './observed.ts'

export const prefix = 'r/'
/** The first key behind the prefix. */
export const prefixEnd = 'r0'

/** By the contract of the client nothing was changed; the check holds the store to it. */
const certain = new Set([
  'STORE_UNREACHABLE',
  'STORE_NO_LEADER',
  'STORE_TIMEOUT',
  'STORE_NO_SPACE',
  'STORE_BUSY',
])
const leaseSeconds = 3
const keysCount = 24

export type Lease = { renewedAt: number; ttlMs: number }

/** Clients that read and write a few keys through all members, and write down what they asked and were told. */
export class Load {
  readonly operations: Observed[] = []
  readonly leases = new Map<string, Lease>()
  readonly #stores: { member: string; store: EtcdClient }[]
  readonly #random: Random
  readonly #now: () => number
  #lastSeen = new Map<string, string>()
  #ids = 0

  constructor(stores: { member: string; store: EtcdClient }[], random: Random, now: () => number) {
    this.#stores = stores
    this.#random = random
    this.#now = now
  }

  get answered(): number {
    return this.#answered
  }
  #answered = 0

  /** One client, an operation after the other, until it shall stop. */
  async client(number: number, isOver: () => boolean): Promise<void> {
    let lease: string | undefined
    while (!isOver()) {
      const at = this.#random.pick(this.#stores)
      const asked = this.#ask(number, lease)
      if (asked.kind === 'lease-revoke') lease = undefined
      const operation: Observed = {
        id: ++this.#ids,
        client: number,
        asked,
        calledAt: this.#now(),
        member: at.member,
      }
      this.operations.push(operation)
      try {
        operation.told = await this.#run(at.store, asked, operation)
        operation.returnedAt = this.#now()
        this.#answered++
        if (asked.kind === 'lease-grant') lease = asked.lease
      } catch (error) {
        if (!(error instanceof Fault)) throw error
        const { code } = error
        if (asked.kind === 'range' || certain.has(code)) operation.refused = code
        else if (code === 'STORE_LEASE_NOT_FOUND') {
          // Its lease ended before the put, or the renewal: an answer, too.
          operation.refused = code
          lease = undefined
        }
        if (operation.refused !== undefined) operation.returnedAt = this.#now()
        // A member that is down refuses at once.
        await new Promise((resume) => setTimeout(resume, 20))
      }
    }
  }

  #ask(client: number, lease: string | undefined): Asked {
    const random = this.#random
    const key = (): string => `${prefix}k${String(random.integer(1, keysCount)).padStart(2, '0')}`
    const value = `v${this.#ids + 1}`
    const roll = random.next()
    if (roll < 0.3) return { kind: 'put', key: key(), value }
    if (roll < 0.6) return { kind: 'range', from: prefix, to: prefixEnd }
    if (roll < 0.68) return { kind: 'delete', key: key() }
    if (roll < 0.9) {
      const compared = key()
      const [first, second, third] = [key(), key(), key()]
      return {
        kind: 'txn',
        compare: { key: compared, value: random.chance(0.8) ? this.#lastSeen.get(compared) : 'none' },
        puts:
          first === second
            ? [{ key: first, value }]
            : [
                { key: first, value },
                { key: second, value: `${value}b` },
              ],
        deletes: third === first || third === second ? [] : [third],
        from: prefix,
        to: prefixEnd,
      }
    }
    if (lease === undefined)
      return { kind: 'lease-grant', lease: String((client + 1) * 1_000_000 + this.#ids + 1) }
    if (roll < 0.95) return { kind: 'put', key: `${prefix}l${client}`, value, lease }
    return roll < 0.98 ? { kind: 'lease-keep', lease } : { kind: 'lease-revoke', lease }
  }

  async #run(store: EtcdClient, asked: Asked, operation: Observed): Promise<Told> {
    switch (asked.kind) {
      case 'put': {
        const lease = asked.lease === undefined ? {} : { lease: BigInt(asked.lease) }
        const { revision } = await store.put(asked.key, asked.value, lease)
        return { revision: Number(revision), done: true }
      }
      case 'delete': {
        const { deleted, revision } = await store.delete(asked.key)
        return { revision: Number(revision), done: deleted > 0 }
      }
      case 'range': {
        const { entries, revision } = await store.getPrefix(prefix)
        const found = entries.map(seen)
        this.#lastSeen = new Map(found.map(({ key, value }) => [key, value]))
        return { revision: Number(revision), found }
      }
      case 'txn': {
        const { compare } = asked
        const read = { kind: 'get-prefix', prefix } as const
        const answer = await store.txn({
          compare: [
            compare.value === undefined
              ? { key: compare.key, modRevision: 0n }
              : { key: compare.key, value: compare.value },
          ],
          success: [
            read,
            ...asked.puts.map(({ key, value }) => ({ kind: 'put' as const, key, value })),
            ...asked.deletes.map((key) => ({ kind: 'delete' as const, key })),
          ],
          failure: [read],
        })
        const [first] = answer.results
        const found = first?.kind === 'get' ? first.entries.map(seen) : []
        return { revision: Number(answer.revision), done: answer.succeeded, found }
      }
      case 'lease-grant': {
        const { ttlSeconds } = await store.leaseGrant(leaseSeconds, { id: BigInt(asked.lease) })
        this.leases.set(asked.lease, { renewedAt: operation.calledAt, ttlMs: ttlSeconds * 1000 })
        return { revision: 0 }
      }
      case 'lease-keep': {
        const ttl = await store.leaseKeepAliveOnce(BigInt(asked.lease))
        if (ttl <= 0) throw new Fault('STORE_LEASE_NOT_FOUND', `lease ${asked.lease} is gone`)
        this.leases.set(asked.lease, { renewedAt: operation.calledAt, ttlMs: ttl * 1000 })
        return { revision: 0 }
      }
      case 'lease-revoke':
        await store.leaseRevoke(BigInt(asked.lease))
        return { revision: 0, done: true }
    }
  }
}

const seen = (entry: StoreEntry): Seen => ({ key: entry.key, value: entry.text })

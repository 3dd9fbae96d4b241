import { createHash } from 'node:crypto'
import type { EtcdClient } from '@kiln/etcd-api'
import { storeKeys } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import { formatBlock, readBlock, sizeOf } from './ipv4-block.ts'
import {
  type OverlayConfig,
  readSubnet,
  readSubnetKey,
  readSubnetRecord,
  type SubnetRecord,
  subnetKey,
} from './overlay-records.ts'

/** As flannel's: a machine that is away for so long may find its subnet taken. */
const leaseSeconds = 24 * 3600
const renewEveryMs = 3_600_000
/** How often a race for subnets may be lost in one go. */
const triesMax = 32

/**
 * The subnet that a machine should ask for: the first of `preferred` that is of the network and nobody's, else one from a place that follows
 * from the machine's name, so that machines which begin together seldom ask for the same. Pure.
 */
export function chooseSubnet(at: {
  config: OverlayConfig
  machine: string
  preferred: readonly string[]
  taken: ReadonlySet<string>
}): string | undefined {
  const { config, taken } = at
  const wish = at.preferred.find(
    (subnet) => readSubnetKey(subnetKey(subnet), config) === subnet && !taken.has(subnet),
  )
  if (wish !== undefined) return wish
  const network = readBlock(config.network)!
  const size = sizeOf(config.subnetLen)
  // The first one is left out: its first address is that of the whole network.
  const count = sizeOf(network.length) / size - 1
  const begin = createHash('sha256').update(at.machine).digest().readUInt32BE() % count
  for (let step = 0; step < count; step++) {
    const first = network.first + (1 + ((begin + step) % count)) * size
    const subnet = formatBlock({ first, length: config.subnetLen })
    if (!taken.has(subnet)) return subnet
  }
  return undefined
}

export type ClaimStore = Pick<
  EtcdClient,
  'createIfMissing' | 'compareAndSwap' | 'compareAndDelete' | 'get' | 'leaseGrant' | 'leaseKeepAliveOnce'
>

/** The claim of one machine on one subnet, kept for a day after it was last renewed. */
export class SubnetClaim {
  #lease = 0n
  /** What was last written, so that a store that still says so is left alone. */
  #written = ''
  #renewedAtMs = Number.NEGATIVE_INFINITY
  readonly #store: ClaimStore
  readonly #nowMs: () => number

  constructor(store: ClaimStore, nowMs: () => number) {
    this.#store = store
    this.#nowMs = nowMs
  }

  /**
   * Makes the store say that one subnet, and no other, is this machine's; the one that it has stays.
   * @returns the subnet
   * @throws Fault `OVERLAY_FULL` when none is free
   */
  async hold(at: {
    config: OverlayConfig
    record: SubnetRecord
    preferred: readonly string[]
    /** Key and value of all below `/kiln/network/`, as last heard. */
    heard: ReadonlyMap<string, string>
  }): Promise<string> {
    const { config, record } = at
    const owners = new Map<string, string>()
    for (const [key, text] of at.heard) {
      const subnet = readSubnetKey(key, config)
      // What cannot be read is somebody's all the same.
      if (subnet !== undefined) owners.set(subnet, readSubnet(key, text, config)?.machine ?? '')
    }
    const own = [...owners].flatMap(([subnet, machine]) => (machine === record.machine ? subnet : []))
    const taken = new Set([...owners.keys()].filter((subnet) => !own.includes(subnet)))
    const kept = own.find((subnet) => at.preferred.includes(subnet)) ?? own[0]
    const preferred = kept === undefined ? at.preferred : [kept]
    // The lease of the last daemon is taken over, so that restarts do not pile up leases.
    if (this.#lease === 0n && kept !== undefined)
      this.#lease = (await this.#store.get(subnetKey(kept)))?.lease ?? 0n
    await this.#renew()
    for (let tries = 0; tries < triesMax; tries++) {
      const subnet = chooseSubnet({ config, machine: record.machine, preferred, taken })
      if (subnet === undefined)
        throw new Fault('OVERLAY_FULL', `no subnet of ${config.network} is free for this machine`, {
          remedy: 'make the network larger, or delete the subnets of machines that are gone',
        })
      if (await this.#write(subnet, record, config, at.heard.get(subnetKey(subnet)))) {
        await this.#giveBackOthers(subnetKey(subnet), record.machine, at.heard)
        return subnet
      }
      taken.add(subnet)
    }
    throw new Fault('OVERLAY_FULL', 'other machines were always faster to take a subnet')
  }

  /** False when the subnet is another machine's. */
  async #write(
    subnet: string,
    record: SubnetRecord,
    config: OverlayConfig,
    heard: string | undefined,
  ): Promise<boolean> {
    const key = subnetKey(subnet)
    const value = JSON.stringify(record)
    const writing = `${key} ${this.#lease} ${value}`
    if (heard === value && this.#written === writing) return true
    try {
      if (!(await this.#put(key, value, record.machine, config))) return false
    } catch (error) {
      // Somebody revoked the lease: the next try asks for another.
      if (error instanceof Fault && error.code === 'STORE_LEASE_NOT_FOUND') this.#lease = 0n
      throw error
    }
    this.#written = writing
    return true
  }

  async #put(key: string, value: string, machine: string, config: OverlayConfig): Promise<boolean> {
    const lease = this.#lease
    const made = await this.#store.createIfMissing(key, value, { lease })
    if (made.created) return true
    const { current } = made
    if (!current || readSubnet(key, current.text, config)?.machine !== machine) return false
    if (current.text === value && current.lease === lease) return true
    const { modRevision } = current
    return (await this.#store.compareAndSwap(key, { modRevision, value, lease })).swapped
  }

  /** Of this network and of one that was configured before. */
  async #giveBackOthers(kept: string, machine: string, heard: ReadonlyMap<string, string>): Promise<void> {
    for (const [key, text] of heard) {
      if (key === kept || !key.startsWith(storeKeys.networkSubnets)) continue
      if (readSubnetRecord(text)?.machine !== machine) continue
      const entry = await this.#store.get(key)
      if (entry && readSubnetRecord(entry.text)?.machine === machine)
        await this.#store.compareAndDelete(key, entry.modRevision)
    }
  }

  /** A new lease is asked for when there is none any more. */
  async #renew(): Promise<void> {
    const fresh = this.#nowMs() - this.#renewedAtMs < renewEveryMs
    if (this.#lease !== 0n && fresh) return
    const left = this.#lease === 0n ? 0 : await this.#store.leaseKeepAliveOnce(this.#lease)
    if (left === 0) this.#lease = (await this.#store.leaseGrant(leaseSeconds)).id
    this.#renewedAtMs = this.#nowMs()
  }
}

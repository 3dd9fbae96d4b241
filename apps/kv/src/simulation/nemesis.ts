import { calm, type Random } from '@kiln/simulation'
import { blockBytes } from '../wal/block.ts'
import { recoverLog } from '../wal/recovery.ts'
import { type Cluster, type SimulatedNode, tickMs } from './cluster.ts'
import type { Operator } from './operator.ts'

/**
 * Makes trouble: cuts, crashes, bad networks, disks that are slow, full or wrong, clocks that jump, processes that stand still, changes
 * of leader. All of it from one seed.
 */
export class Nemesis {
  readonly counters = {
    crashes: 0,
    partitions: 0,
    transfers: 0,
    damages: 0,
    pauses: 0,
    jumps: 0,
    fullDisks: 0,
  }
  #cluster: Cluster
  #operator: Operator
  #random: Random
  #healAt = 0
  #tick = 0
  #startAt = new Map<SimulatedNode, number>()
  #mayDamage: boolean
  #damaged: SimulatedNode | undefined
  /** Times as many troubles, each shorter. */
  #pace: number
  #terms = new Map<SimulatedNode, number>()
  /** The machine whose disk is full, and until when. */
  #full: { node: SimulatedNode; until: number } | undefined

  constructor(
    cluster: Cluster,
    operator: Operator,
    random: Random,
    options: { damage: boolean; hectic: boolean },
  ) {
    this.#cluster = cluster
    this.#operator = operator
    this.#random = random
    this.#mayDamage = options.damage
    this.#pace = options.hectic ? 5 : 1
  }

  act(tick: number): void {
    this.#tick = tick
    const random = this.#random
    this.#restart(tick)
    if (tick >= this.#healAt && this.#healAt > 0) {
      this.#cluster.network.heal()
      this.#healAt = 0
    }
    const pace = this.#pace
    if (random.chance(0.004 * pace)) this.#partition(tick)
    if (random.chance(0.003 * pace)) this.#crashSome(tick)
    if (random.chance(0.005)) this.#changeNetwork()
    if (random.chance(0.005)) this.#changeDisks()
    if (random.chance(0.002 * pace)) this.#transfer()
    if (random.chance(0.003 * pace)) this.#pause()
    if (random.chance(0.001)) this.#jump()
    if (this.#full === undefined) {
      if (random.chance(0.001)) this.#fillDisk(tick)
    } else if (tick >= this.#full.until) this.#freeDisk()
    this.#crashVoters(tick)
  }

  /** Everything works again. */
  stop(): void {
    this.#cluster.network.heal()
    this.#cluster.network.faults = { ...calm }
    this.#freeDisk()
    for (const node of this.#cluster.nodes) {
      Object.assign(node.disk.faults, { delayMin: 0.1, delayMax: 4 })
      node.clock.resume()
    }
    this.#restart(Number.POSITIVE_INFINITY)
  }

  #restart(tick: number): void {
    for (const node of this.#cluster.nodes) {
      // One that ended for a full disk is started when there is room.
      const ended = node.running === undefined && node.startedLife !== node.life
      if (ended && !this.#startAt.has(node) && node !== this.#full?.node) this.#startAt.set(node, tick + 1)
    }
    for (const [node, at] of this.#startAt) {
      if (at > tick) continue
      this.#startAt.delete(node)
      if (!this.#operator.holds(node)) this.#cluster.start(node)
    }
  }

  #partition(tick: number): void {
    const random = this.#random
    const { network, nodes } = this.#cluster
    const ids = random.shuffle(nodes.map((node) => node.id))
    const leader = nodes.find((node) => node.running?.consensus.isLeader())?.id
    network.heal()
    this.counters.partitions++
    this.#healAt = tick + Math.ceil(random.integer(20, 300) / this.#pace)
    const kind = random.next()
    if (kind < 0.4 && leader !== undefined) {
      network.partition(
        [leader],
        ids.filter((id) => id !== leader),
      )
    } else if (kind < 0.7) {
      const at = random.integer(1, ids.length - 1)
      network.partition(ids.slice(0, at), ids.slice(at))
    } else {
      // One-way cuts: heard but not hearing, or the other way round.
      for (let n = random.integer(1, 3); n > 0; n--) network.cut(random.pick(ids), random.pick(ids))
    }
  }

  #crashSome(tick: number): void {
    const random = this.#random
    const all = random.chance(0.15)
    const count = all
      ? this.#cluster.nodes.length
      : random.integer(1, Math.ceil(this.#cluster.nodes.length / 2))
    for (const node of random.shuffle(this.#cluster.nodes).slice(0, count)) {
      if (this.#startAt.has(node) || this.#operator.holds(node)) continue
      this.#crash(node, tick + Math.ceil(random.integer(1, 150) / this.#pace))
      if (this.#mayDamage && random.chance(0.1)) this.#damageLog(node)
    }
  }

  /** The hardest moment to forget something is just after a vote. */
  #crashVoters(tick: number): void {
    for (const node of this.#cluster.nodes) {
      const term = node.running?.consensus.term()
      if (term === undefined || term === this.#terms.get(node)) continue
      this.#terms.set(node, term)
      if (this.#random.chance(0.03 * this.#pace)) this.#crash(node, tick + this.#random.integer(1, 3))
    }
  }

  /** Several members change at once: the hardest moment to lose each other is between the two sets of voters. */
  jointBegins(): void {
    if (!this.#random.chance(0.5)) return
    const ids = this.#random.shuffle(this.#cluster.nodes.map((node) => node.id))
    const at = Math.floor(ids.length / 2)
    const { network } = this.#cluster
    this.#cluster.after(this.#random.next() * 3 * tickMs, () => {
      network.heal()
      network.partition(ids.slice(0, at), ids.slice(at))
      this.#healAt = this.#tick + this.#random.integer(20, 120)
      this.counters.partitions++
    })
  }

  #crash(node: SimulatedNode, startAt: number): void {
    this.counters.crashes++
    this.#cluster.crash(node)
    this.#startAt.set(node, startAt)
  }

  /** A member with a spoiled log is not filled again yet. */
  isHealing(): boolean {
    const damaged = this.#damaged
    return (
      damaged !== undefined && (damaged.running === undefined || damaged.disk.peek('refill') !== undefined)
    )
  }

  /**
   * Spoils the last, acknowledged batch of a log. One member at a time: until a leader has filled it again the others must
   * hold everything.
   */
  #damageLog(node: SimulatedNode): void {
    // With a member missing as well, or not known to all, there may be no majority left that may vote.
    if (this.isHealing() || this.#operator.isSettling()) return
    const at = endOfLog(node)
    if (at === undefined) return
    node.disk.corrupt(at.name, at.offset - blockBytes + this.#random.integer(64, 120))
    this.#damaged = node
    this.counters.damages++
  }

  #changeNetwork(): void {
    const random = this.#random
    this.#cluster.network.faults = random.chance(0.4)
      ? { ...calm }
      : {
          loss: random.next() * 0.25,
          duplication: random.next() * 0.2,
          delayMin: 0.1,
          delayMax: random.pick([2, 10, 40]),
          straggler: random.next() * 0.1,
        }
  }

  #changeDisks(): void {
    for (const node of this.#cluster.nodes) {
      node.disk.faults.delayMax = this.#random.pick([1, 4, 4, 40, 200])
    }
  }

  #pause(): void {
    const { nodes } = this.#cluster
    const leader = nodes.find((node) => node.running?.consensus.isLeader())
    const node = leader !== undefined && this.#random.chance(0.6) ? leader : this.#random.pick(nodes)
    node.clock.pause(this.#random.integer(20, 800))
    this.counters.pauses++
  }

  #jump(): void {
    this.#random.pick(this.#cluster.nodes).clock.jump(this.#random.pick([20, 200, 5_000]))
    this.counters.jumps++
  }

  /** One at a time. Members refuse proposals, and end if they have to write what does not fit any more. */
  #fillDisk(tick: number): void {
    const node = this.#random.pick(this.#cluster.nodes)
    node.disk.faults.capacityBytes = node.disk.usedBytes() + this.#random.pick([0, 10_000, 200_000])
    this.#full = { node, until: tick + Math.ceil(this.#random.integer(50, 500) / this.#pace) }
    this.counters.fullDisks++
  }

  #freeDisk(): void {
    if (this.#full) this.#full.node.disk.faults.capacityBytes = Number.MAX_SAFE_INTEGER
    this.#full = undefined
  }

  #transfer(): void {
    const { nodes } = this.#cluster
    const leader = nodes.find((node) => node.running?.consensus.isLeader())
    if (leader === undefined) return
    this.counters.transfers++
    leader.running!.consensus.transferLeader(this.#random.pick(nodes).id).catch(() => undefined)
  }
}

/** Where the last whole batch of a log ends, if it ends with one. */
function endOfLog(node: SimulatedNode): { name: string; offset: number } | undefined {
  const files = node.disk
    .names()
    .filter((name) => /^wal-\d+\.log$/.test(name))
    .map((name) => ({ name, bytes: node.disk.peek(name)! }))
  const { tail } = recoverLog(files, { clusterId: node.clusterId, memberId: node.id })
  return tail?.state === 'clean' && tail.offset > blockBytes ? tail : undefined
}

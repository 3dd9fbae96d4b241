import type { Random } from '@kiln/simulation'
import type { Consensus } from '../consensus/types.ts'
import type { Cluster, SimulatedNode } from './cluster.ts'

const settleTicks = 200

type Step = 'remove' | 'add' | 'promote' | 'restore'

/**
 * Replaces machines while everything else goes on: removes a member, wipes its machine, adds it again under a new id, first
 * as learner or not, and promotes it, now and then in one step with the demotion of another, which is promoted again in the end.
 * One at a time; each step is tried until the members say that it is done.
 */
export class Operator {
  readonly counters = { replacements: 0, jointChanges: 0 }
  /** Told when it asks for a change of several members at once. */
  onJoint: () => void = () => undefined
  #cluster: Cluster
  #tick = 0
  #doneAt = Number.NEGATIVE_INFINITY
  #random: Random
  #job: { node: SimulatedNode; step: Step; exchange: boolean } | undefined
  #asked: { leader: SimulatedNode; life: number } | undefined

  constructor(cluster: Cluster, random: Random) {
    this.#cluster = cluster
    this.#random = random
  }

  /** True for a machine that nobody may start: it is no member, or not yet. */
  holds(node: SimulatedNode): boolean {
    return this.#job?.node === node && this.#job.step === 'add'
  }

  isBusy(): boolean {
    return this.#job !== undefined
  }

  /** A change was made a moment ago, and not everybody may have heard of it. */
  isSettling(): boolean {
    return this.#job !== undefined || this.#tick < this.#doneAt + settleTicks
  }

  act(tick: number, begin: boolean, chance = 0): void {
    this.#tick = tick
    if (this.#job === undefined && begin && this.#random.chance(chance)) {
      const exchange = this.#random.chance(0.5)
      this.#job = { node: this.#random.pick(this.#cluster.nodes), step: 'remove', exchange }
    }
    if (tick % 10 === 0) this.#advance()
  }

  #advance(): void {
    const leader = this.#cluster.nodes.find((node) => node.running?.consensus.isLeader())
    if (this.#job === undefined || leader === undefined) return
    // One that lost power never answers.
    if (this.#asked && this.#asked.leader.life === this.#asked.life) return
    const asked = { leader, life: leader.life }
    this.#asked = asked
    const done = (): void => {
      if (this.#asked === asked) this.#asked = undefined
    }
    this.#work(leader.running!.consensus).then(done, done)
  }

  /** One step, from what the members are now: a leader may not have applied yet what an earlier one did. */
  async #work(consensus: Consensus<unknown>): Promise<void> {
    const job = this.#job
    await consensus.readIndex()
    if (job === undefined || job !== this.#job) return
    const { node } = job
    const members = consensus.members()
    // Whoever is leaving or to be demoted is still listed as it was.
    if (consensus.status().joint) return
    switch (job.step) {
      case 'remove':
        if (members.some((member) => member.id === node.id)) {
          await consensus.removeMember(node.id)
          return
        }
        this.#cluster.crash(node)
        job.step = 'add'
        return
      case 'add': {
        const member = members.find(({ peerUrls }) => peerUrls[0] === node.peerUrls[0])
        if (member === undefined) {
          const learner = job.exchange || this.#random.chance(0.6)
          await consensus.addMember({ peerUrls: node.peerUrls, learner })
          return
        }
        this.#cluster.replace(node, member.id, members)
        this.#cluster.start(node)
        this.counters.replacements++
        job.step = 'promote'
        return
      }
      case 'promote':
        if (members.some((member) => member.id === node.id && member.learner)) {
          await this.#promote(consensus, job)
          return
        }
        job.step = 'restore'
        return
      case 'restore': {
        const learner = members.find((member) => member.learner)
        if (learner !== undefined) {
          await consensus.promoteMember(learner.id)
          return
        }
        this.#job = undefined
        this.#doneAt = this.#tick
      }
    }
  }
  /** In one step with the demotion of a voter, who may be the leader, or alone. */
  async #promote(
    consensus: Consensus<unknown>,
    job: { node: SimulatedNode; exchange: boolean },
  ): Promise<void> {
    const { id } = job.node
    const voters = consensus.members().filter((member) => !member.learner)
    if (!job.exchange || this.#random.chance(0.2)) {
      await consensus.promoteMember(id)
      return
    }
    this.onJoint()
    await consensus.changeMembers([
      { op: 'promote', id },
      { op: 'demote', id: this.#random.pick(voters).id },
    ])
    this.counters.jointChanges++
  }
}

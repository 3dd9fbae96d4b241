import { randomBytes } from 'node:crypto'
import { LeaseClock } from '@kiln/mvcc'
import { type Clock, describeError, Fault, type Log } from '@kiln/service'
import type { Consensus } from '../consensus/types.ts'
import { encodeCommand } from '../state/command.ts'
import type { Applied, StoreState } from '../state/state-machine.ts'
import {
  decodeAnswer,
  decodeQuestion,
  encodeAnswer,
  encodeQuestion,
  type LeaseAnswer,
  type LeaseQuestion,
} from './lease-frames.ts'

/** How often the leader looks for leases that are over, and how many it ends at once (kv.md section 5). */
const expiryIntervalMs = 500
const expiriesPerRound = 500
const roundsAtOnceMax = 20
const checkpointIntervalMs = 5 * 60_000
/** Shorter leases gain nothing from a checkpoint. */
const checkpointThresholdSeconds = 300
/** Election timeouts that a question about a lease waits for a leader. */
const askElections = 7
/** The leader is gone or unknown: whoever comes next can answer. */
const leaderFaults = ['STORE_NO_LEADER', 'STORE_NOT_LEADER', 'STORE_LEADER_CHANGED']

export type LeaseKeeperOptions = {
  state: StoreState
  clock: Clock
  log: Log
  electionMs: number
}

/**
 * Time of leases. The leader counts, ends what is over by a proposal that only holds in its own term, and answers renewals;
 * every other member asks it.
 */
export class LeaseKeeper {
  readonly #options: LeaseKeeperOptions
  readonly #counted = new LeaseClock()
  #consensus: Consensus<Applied> | undefined
  #expiring: Promise<void> | undefined
  #checkpointAt = 0
  #cancelTimer: () => void = () => undefined
  #isStopped = false

  constructor(options: LeaseKeeperOptions) {
    this.#options = options
  }

  /** The shortest TTL granted: below it a change of leader could not be survived. */
  get ttlMin(): number {
    return Math.ceil((1.5 * this.#options.electionMs) / 1000)
  }

  start(consensus: Consensus<Applied>): void {
    this.#consensus = consensus
    consensus.onLeaderChange(({ isLeader }) => this.#lead(isLeader))
    this.#lead(consensus.isLeader())
    this.#schedule()
  }

  async stop(): Promise<void> {
    this.#isStopped = true
    this.#cancelTimer()
    await this.#expiring
  }

  onGranted(id: bigint, ttl: number): void {
    this.#counted.renew(id, ttl, this.#options.clock.now())
  }
  onGone(id: bigint): void {
    this.#counted.forget(id)
  }

  pickId(): bigint {
    for (;;) {
      const id = randomBytes(8).readBigUInt64BE() & 0x7fff_ffff_ffff_ffffn
      if (id !== 0n && !this.#options.state.store.leases.has(id)) return id
    }
  }

  /**
   * Renews a lease without waiting, which a leader can whose majority was heard of lately: answers the TTL it runs for, 0 if there
   * is no such lease; undefined if it takes `renew`.
   */
  renewNow(id: bigint): number | undefined {
    const { state, clock } = this.#options
    const now = clock.now()
    if (!this.#consensus?.isLeader() || !this.#isConfirmed(now)) return undefined
    const lease = state.store.leases.get(id)
    if (!lease) return 0
    if (lease.remainingTtl > 0 || !this.#counted.extend(id, lease.ttl, now)) return undefined
    return lease.ttl
  }

  /** Renews a lease wherever this member stands; answers the TTL it runs for, 0 if there is no such lease. */
  async renew(id: bigint): Promise<number> {
    const answer = await this.#ask({ kind: 'renew', id })
    return answer.ttl
  }

  /** Seconds left by the leader's count; undefined if there is no such lease. */
  async remaining(id: bigint): Promise<number | undefined> {
    const answer = await this.#ask({ kind: 'remaining', id })
    return answer.ttl < 0 ? undefined : answer.ttl
  }

  /** Answers what other members ask the leader. */
  async onRequest(body: Uint8Array): Promise<Uint8Array> {
    return encodeAnswer(await this.#answer(decodeQuestion(body)))
  }

  /** Asks whoever leads; a question that a change of leader left open is put again, as asking twice does no harm. */
  async #ask(question: LeaseQuestion): Promise<LeaseAnswer> {
    const consensus = this.#consensus!
    const { clock, electionMs } = this.#options
    const deadline = clock.now() + askElections * electionMs
    for (;;) {
      const change = this.#leaderChange()
      try {
        const answer = consensus.isLeader()
          ? this.#answer(question)
          : consensus.requestLeader(encodeQuestion(question)).then(decodeAnswer)
        // It may fail after nobody waits for it any more.
        answer.catch(() => undefined)
        const isLast = clock.now() >= deadline
        const outcome = await (isLast ? answer : Promise.race([answer, change.happened]))
        if (outcome) return outcome
      } catch (error) {
        const isOpen = error instanceof Fault && leaderFaults.includes(error.code)
        if (!isOpen || clock.now() >= deadline) throw error
        await change.happened
      } finally {
        change.forget()
      }
    }
  }

  /** Resolves with nothing at the next change of leader, or after an election timeout. */
  #leaderChange(): { happened: Promise<undefined>; forget: () => void } {
    let forget = (): void => undefined
    const happened = new Promise<undefined>((resolve) => {
      const unsubscribe = this.#consensus!.onLeaderChange(() => resolve(undefined))
      const cancel = this.#options.clock.after(this.#options.electionMs, () => resolve(undefined))
      forget = () => {
        unsubscribe()
        cancel()
      }
    })
    return { happened, forget }
  }

  async #answer({ kind, id }: LeaseQuestion): Promise<LeaseAnswer> {
    const { state, clock } = this.#options
    await this.#confirm()
    // A lease whose time is over is being ended: it can no longer be saved, only waited for.
    while (this.#counted.isExpired(id, clock.now()) && state.store.leases.has(id) && !this.#isStopped) {
      await this.#expire()
      await this.#confirm()
    }
    const lease = state.store.leases.get(id)
    if (kind === 'remaining') return { ttl: lease ? (this.#counted.remaining(id, clock.now()) ?? 0) : -1 }
    if (!lease) return { ttl: 0 }
    if (lease.remainingTtl > 0) {
      // The checkpoint says less than what the client is about to be promised.
      await this.#propose({ id, remainingTtl: 0 })
      if (!state.store.leases.has(id)) return { ttl: 0 }
    }
    this.#counted.renew(id, lease.ttl, clock.now())
    return { ttl: lease.ttl }
  }

  /**
   * A promise of a TTL is only good if no other leader counts already. A successor starts all leases anew plus one
   * election timeout, so a confirmation not older than that is enough.
   */
  async #confirm(): Promise<void> {
    if (!this.#isConfirmed(this.#options.clock.now())) await this.#consensus!.confirmLeadership()
  }

  #isConfirmed(now: number): boolean {
    const confirmedAt = this.#consensus!.leadershipConfirmedAt()
    const { electionMs } = this.#options
    return confirmedAt !== undefined && now - confirmedAt < electionMs && this.#counted.isCounting
  }

  #lead(isLeader: boolean): void {
    const { state, clock, electionMs } = this.#options
    if (!isLeader) this.#counted.stop()
    else {
      this.#counted.start(state.store.leases, clock.now(), electionMs)
      this.#checkpointAt = clock.now() + checkpointIntervalMs
    }
  }

  #schedule(): void {
    this.#cancelTimer = this.#options.clock.after(expiryIntervalMs, () => {
      void this.#round().finally(() => {
        if (!this.#isStopped) this.#schedule()
      })
    })
  }

  async #round(): Promise<void> {
    const { clock, state } = this.#options
    // Very many that are over together are ended one proposal after the other, with room for others between.
    for (let left = roundsAtOnceMax; left > 0; left--) {
      await this.#expire()
      if (this.#isStopped || this.#counted.expired(clock.now(), 1).length === 0) break
    }
    if (!this.#counted.isCounting || clock.now() < this.#checkpointAt) return
    this.#checkpointAt = clock.now() + checkpointIntervalMs
    const due = this.#counted.checkpoints(state.store.leases, clock.now(), checkpointThresholdSeconds)
    for (let at = 0; at < due.length; at += expiriesPerRound) {
      await this.#propose(...due.slice(at, at + expiriesPerRound)).catch((error) => this.#report(error))
    }
  }

  async #propose(...leases: { id: bigint; remainingTtl: number }[]): Promise<void> {
    const consensus = this.#consensus!
    await consensus.propose(encodeCommand({ kind: 'lease-checkpoint', term: consensus.term(), leases }))
  }

  /** One round at a time; whoever comes meanwhile waits for the one that runs. */
  async #expire(): Promise<void> {
    this.#expiring ??= this.#expireOnce()
      .catch((error) => this.#report(error))
      .finally(() => {
        this.#expiring = undefined
      })
    await this.#expiring
  }

  async #expireOnce(): Promise<void> {
    const { clock } = this.#options
    const consensus = this.#consensus!
    if (this.#counted.expired(clock.now(), 1).length === 0) return
    const term = consensus.term()
    await consensus.confirmLeadership()
    const ids = this.#counted.expired(clock.now(), expiriesPerRound)
    if (ids.length > 0) await consensus.propose(encodeCommand({ kind: 'lease-expire', term, ids }))
  }

  #report(error: unknown): void {
    this.#options.log.debug({ reason: describeError(error) }, 'leases could not be ended or checkpointed')
  }
}

import { setTimeout as sleep } from 'node:timers/promises'
import { type EtcdClient, scanPrefix } from '@kiln/etcd-api'

/** Keys the load writes below. */
export const loadPrefix = '/demo/writes/'

/** Enough to hit every moment of a failover, little enough to leave emulated machines their CPU: at least twice what the last write took. */
const pauseMsMin = 50
const pauseMsMax = 2_000

/** A slow cluster has this long to answer what is asked at the end. */
const checkTimeoutMs = 180_000

export type LoadResult = {
  acknowledged: number
  /** Writes whose outcome nobody told; they may be there or not. */
  unknown: number
  refused: number
  /** Acknowledged, and not there afterwards. Must be 0. */
  lost: number
  longestPauseSeconds: number
}

/** Writes numbered keys one after the other until it is stopped, and then looks for every acknowledged one. */
export class WriteLoad {
  readonly #store: EtcdClient
  readonly #run: string
  readonly #acknowledged: string[] = []
  readonly #working: Promise<void>
  #unknown = 0
  #refused = 0
  #lastAcknowledgedAt = performance.now()
  #longestPauseMs = 0
  #stopped = false

  constructor(store: EtcdClient, run: string) {
    this.#store = store
    this.#run = run
    this.#working = this.#write()
  }

  get acknowledged(): number {
    return this.#acknowledged.length
  }

  /** Ends the writing without a look at what is there: the cluster may be why. */
  async abandon(): Promise<void> {
    this.#stopped = true
    await this.#working
  }

  async stop(): Promise<LoadResult> {
    await this.abandon()
    const entries = await this.#patiently(() => scanPrefix(this.#store, this.#prefix))
    const present = new Map(entries.map((entry) => [entry.key, entry.text]))
    const lost = this.#acknowledged.filter((key) => present.get(key) !== demoValue(key)).length
    await this.#patiently(() => this.#store.deletePrefix(this.#prefix))
    return {
      acknowledged: this.#acknowledged.length,
      unknown: this.#unknown,
      refused: this.#refused,
      lost,
      longestPauseSeconds: Math.round(this.#longestPauseMs / 100) / 10,
    }
  }

  get #prefix(): string {
    return `${loadPrefix}${this.#run}/`
  }

  /** Again, until it succeeds or a slow cluster had its time. */
  async #patiently<T>(ask: () => Promise<T>): Promise<T> {
    const deadline = performance.now() + checkTimeoutMs
    for (;;) {
      try {
        return await ask()
      } catch (error) {
        if (performance.now() > deadline) throw error
        await sleep(1000)
      }
    }
  }

  async #write(): Promise<void> {
    for (let number = 0; !this.#stopped; number++) {
      const key = `${this.#prefix}${number.toString().padStart(8, '0')}`
      const begun = performance.now()
      try {
        await this.#store.put(key, demoValue(key))
        this.#acknowledged.push(key)
        const now = performance.now()
        this.#longestPauseMs = Math.max(this.#longestPauseMs, now - this.#lastAcknowledgedAt)
        this.#lastAcknowledgedAt = now
      } catch (error) {
        if ((error as { code?: string }).code === 'STORE_UNKNOWN_OUTCOME') this.#unknown++
        else this.#refused++
      }
      await sleep(Math.min(pauseMsMax, Math.max(pauseMsMin, 2 * (performance.now() - begun))))
    }
  }
}

/** Every key has a value of its own, so that a mixed-up read is seen too. */
const demoValue = (key: string): string => `written as ${key}`

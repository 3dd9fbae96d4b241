import { type EtcdClient, scanPrefix } from '@kiln/etcd-api'
import { Fault } from '@kiln/service'
import { type Acknowledged, findLost, type WriteVerdict } from './write-verdict.ts'

/** Slow enough that writing is not what emulated machines spend their time on. */
const pauseMs = 150
/** A slow cluster has this long to answer what is read back. */
const verifyTimeoutMs = 180_000

/** Writes to the store one key after the other and remembers what was acknowledged. */
export class StoreWriter {
  readonly #store: EtcdClient
  readonly #prefix: string
  readonly #acknowledged: Acknowledged[] = []
  #attempts = 0
  #unknown = 0
  #longestGapMs = 0
  #lastMs = performance.now()
  #stopping = false
  readonly #running: Promise<void>

  /** Starts writing below `prefix`, which nobody else writes to. */
  constructor(store: EtcdClient, prefix: string) {
    this.#store = store
    this.#prefix = prefix
    this.#running = this.#run()
  }

  /** Writes acknowledged so far. */
  get count(): number {
    return this.#acknowledged.length
  }

  /** Stops, reads everything back and says whether something acknowledged is missing or wrong. */
  async finish(): Promise<WriteVerdict> {
    await this.stop()
    const deadline = performance.now() + verifyTimeoutMs
    for (;;) {
      try {
        const entries = await scanPrefix(this.#store, this.#prefix)
        const lost = findLost(this.#acknowledged, entries)
        return {
          acknowledged: this.count,
          lost,
          unknown: this.#unknown,
          attempts: this.#attempts,
          longestGapMs: Math.round(this.#longestGapMs),
        }
      } catch (cause) {
        if (performance.now() > deadline) {
          throw new Fault('STORY_WRONG', 'the writes cannot be read back', { cause })
        }
        await pause(1_000)
      }
    }
  }

  async stop(): Promise<void> {
    this.#stopping = true
    await this.#running
  }

  async #run(): Promise<void> {
    for (let index = 0; !this.#stopping; index++) {
      const key = `${this.#prefix}${index.toString().padStart(8, '0')}`
      const value = `${index}:${process.hrtime.bigint()}`
      this.#attempts++
      try {
        const { revision } = await this.#store.put(key, value)
        this.#acknowledged.push({ key, value, revision })
        const now = performance.now()
        this.#longestGapMs = Math.max(this.#longestGapMs, now - this.#lastMs)
        this.#lastMs = now
      } catch (error) {
        // Every attempt has a key of its own: one of unknown outcome may be there or not.
        if (!(error instanceof Fault) || error.code === 'STORE_UNKNOWN_OUTCOME') this.#unknown++
      }
      await pause(pauseMs)
    }
  }
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

import type { MvccStore } from '@kiln/mvcc'
import type { Clock } from '@kiln/service'
import { runSlices, type ValueSource } from './slices.ts'

/** A read that still looks at old versions holds up the rest: when to look again. */
const heldUpMs = 100

export type ReclaimerOptions = {
  state: { store: MvccStore; values: ValueSource }
  clock: Clock
  /** Revisions freed in one turn, and the pause to the next. */
  batchRevisions: number
  pauseMs: number
}

/**
 * Gives back the memory of compacted versions beside other work: a batch, a pause, the next batch (kv.md section 2,
 * compact pacing). Nothing of it is kept for a restart: what is compacted is not in a snapshot, and a compaction that is
 * replayed from the log begins again.
 */
export class Reclaimer {
  readonly #options: ReclaimerOptions
  #running: Promise<void> | undefined
  #isHurried = false
  #isStopped = false

  constructor(options: ReclaimerOptions) {
    this.#options = options
  }

  /** To be called when something may have been compacted. */
  kick(): void {
    if (this.#running || this.#isStopped || !this.#options.state.store.isReclaimPending) return
    this.#running = this.#run().finally(() => {
      this.#running = undefined
    })
  }

  /** Resolves when all that is compacted now is freed. `hurry` leaves the pauses out. */
  async done(hurry = false): Promise<void> {
    this.#isHurried ||= hurry && this.#options.state.store.isReclaimPending
    this.kick()
    await this.#running
  }

  async stop(): Promise<void> {
    this.#isStopped = true
    this.#isHurried = true
    await this.#running
  }

  async #run(): Promise<void> {
    const { state, clock, batchRevisions, pauseMs } = this.#options
    const { store } = state
    while (store.isReclaimPending && !this.#isStopped) {
      const isMore = await runSlices(store.reclaimSlices(batchRevisions), state.values)
      if (isMore && this.#isHurried) await new Promise<void>((resume) => setImmediate(resume))
      else if (store.isReclaimPending) {
        await new Promise<void>((resume) => void clock.after(isMore ? pauseMs : heldUpMs, resume))
      }
    }
    this.#isHurried = false
  }
}

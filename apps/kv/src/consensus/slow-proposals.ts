import type { Entry } from '@kiln/raft'
import { LogTimes } from './log-times.ts'
import type { OwnProposal } from './proposals.ts'
import type { ConsensusOptions } from './types.ts'

/** Tells of this member's proposals that were slow where their time went. */
export class SlowProposals {
  #slow: ConsensusOptions<unknown>['slow']
  #synced = new LogTimes()
  #committed = new LogTimes()

  constructor(slow: ConsensusOptions<unknown>['slow']) {
    this.#slow = slow
  }

  synced(lastIndex: number, now: number): void {
    this.#synced.reached(lastIndex, now)
  }

  committed(entries: readonly Entry[], now: number): void {
    const last = entries.at(-1)
    if (last) this.#committed.reached(last.index, now)
  }

  applied({ call, addedAt, sentAt }: OwnProposal, index: number, appliedAt: number): void {
    if (!this.#slow || !call || appliedAt - addedAt < this.#slow.ms) return
    const [syncedAt, committedAt] = [this.#synced.at(index), this.#committed.at(index)]
    this.#slow.report(call, { addedAt, sentAt, syncedAt, committedAt, appliedAt })
  }
}

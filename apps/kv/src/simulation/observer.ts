import type { CommittedEntry, ConsensusStatus } from '../consensus/types.ts'

/** A broken promise of the store, with the moment it showed. */
export type Breach = { tick: number; node: string; what: string }

/**
 * Watches all members at once, as nobody can in reality: at most one leader a term, the same entry at the same index
 * everywhere and for ever, and no index applied twice or out of order in one run of a member.
 */
export class Observer {
  readonly breaches: Breach[] = []
  tick = 0
  restores = 0
  #leaders = new Map<number, bigint>()
  #entries = new Map<number, { signature: string; node: string }>()
  /** Terms of the entries that were seen to be the last one applied, those without data too. */
  #appliedTerms = new Map<number, { term: number; node: string }>()

  breach(node: string, what: string): void {
    this.breaches.push({ tick: this.tick, node, what })
  }

  /** A function to be told of each entry that one run of a member applies. */
  follow(node: string): { applied(entry: CommittedEntry): void; restored(): void } {
    let last = 0
    return {
      applied: (entry) => {
        if (entry.index <= last) this.breach(node, `applied entry ${entry.index} after entry ${last}`)
        last = entry.index
        const signature = `${entry.term}:${Buffer.from(entry.data).toString('latin1')}`
        const known = this.#entries.get(entry.index)
        if (known === undefined) this.#entries.set(entry.index, { signature, node })
        else if (known.signature !== signature) {
          this.breach(
            node,
            `entry ${entry.index} is ${signature}, but on ${known.node} it was ${known.signature}`,
          )
        }
      },
      restored: () => {
        this.restores++
      },
    }
  }

  status(node: string, status: ConsensusStatus): void {
    if (status.appliedIndex > status.committedIndex) {
      this.breach(node, `applied ${status.appliedIndex} of ${status.committedIndex} committed`)
    }
    if (status.committedIndex > status.lastIndex) {
      this.breach(node, `committed ${status.committedIndex} of ${status.lastIndex} entries`)
    }
    const applied = this.#appliedTerms.get(status.appliedIndex)
    if (applied === undefined) this.#appliedTerms.set(status.appliedIndex, { term: status.appliedTerm, node })
    else if (applied.term !== status.appliedTerm) {
      this.breach(
        node,
        `applied entry ${status.appliedIndex} of term ${status.appliedTerm}, but on ${applied.node} it is of term ${applied.term}`,
      )
    }
    if (status.role !== 'leader') return
    const known = this.#leaders.get(status.term)
    if (known === undefined) this.#leaders.set(status.term, status.id)
    else if (known !== status.id) this.breach(node, `is a second leader of term ${status.term}`)
  }

  terms(): number {
    return this.#leaders.size
  }

  entries(): number {
    return this.#entries.size
  }
}

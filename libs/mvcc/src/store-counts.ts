import type { TxnPath } from './txn-path.ts'

/** What a store did since it was made, for those who watch it; etcd's counters of the same names. */
export class StoreCounts {
  ranges = 0
  puts = 0
  /** Keys and values of puts. */
  putBytes = 0
  deletes = 0
  /** Transactions of several operations. */
  txns = 0
  leasesGranted = 0
  leasesRevoked = 0

  /** A transaction that runs; its puts and deletions count where they are made. */
  addTxn(path: TxnPath): void {
    if (this.#addReads(path) > 1) this.txns++
  }

  /** Returns how many operations there are. */
  #addReads({ steps }: TxnPath): number {
    let operations = 0
    for (const { op, inner } of steps) {
      if (op.kind === 'range') this.ranges++
      operations += inner ? this.#addReads(inner) : 1
    }
    return operations
  }
}

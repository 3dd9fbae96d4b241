import type { PeerCounters } from '../consensus/tcp-transport.ts'
import type { StateMachine } from '../consensus/types.ts'
import type { ValueKeeper } from '../values/value-keeper.ts'
import type { Disk } from '../wal/disk.ts'
import { doublingBounds, Histogram } from './histogram.ts'
import { SlowCalls } from './slow-calls.ts'

/** Above these etcd calls an apply or a read index slow. */
const slowApplySeconds = 0.1
export const slowReadMs = 500
const peersMax = 64

/** What a member measures of itself while it runs, for `/metrics`. */
export class Measures {
  readonly walSync = new Histogram(doublingBounds(0.001, 14))
  readonly commit = new Histogram(doublingBounds(0.001, 14))
  readonly slowCalls = new SlowCalls()
  readonly roundTrips = new Map<bigint, Histogram>()
  proposalsPending = 0
  proposalsFailed = 0
  slowApplies = 0
  slowReads = 0
  readsFailed = 0
  healthChecks = { good: 0, bad: 0 }
  /** Where the transport's counts are read. */
  peers: () => PeerCounters[] = () => []
  /** What was moved to the disk and read from there; undefined if all values are in memory. */
  values: () => ValueKeeper['counts'] | undefined = () => undefined

  observeRoundTrip(peer: bigint, seconds: number): void {
    let histogram = this.roundTrips.get(peer)
    if (!histogram) {
      if (this.roundTrips.size >= peersMax) this.roundTrips.delete(this.roundTrips.keys().next().value!)
      histogram = new Histogram(doublingBounds(0.0001, 16))
      this.roundTrips.set(peer, histogram)
    }
    histogram.observe(seconds)
  }
}

/** Measures how long writes of the log take to be durable. */
export function measuredDisk(disk: Disk, { walSync }: Measures): Disk {
  return {
    ...disk,
    open: async (name, options) => {
      const file = await disk.open(name, options)
      if (!options.durable) return file
      return {
        ...file,
        write: (bytes, offset, done) => {
          const startedAt = performance.now()
          file.write(bytes, offset, (error) => {
            walSync.observe((performance.now() - startedAt) / 1000)
            done(error)
          })
        },
      }
    },
  }
}

/** Measures how long a batch of entries takes to become part of the state. */
export function measuredStateMachine<Result>(
  machine: StateMachine<Result>,
  measures: Measures,
  onApplied: (seconds: number, entries: number) => void = () => undefined,
): StateMachine<Result> {
  return {
    apply: (entries) => {
      const startedAt = performance.now()
      const done = (): void => {
        const seconds = (performance.now() - startedAt) / 1000
        measures.commit.observe(seconds)
        if (seconds > slowApplySeconds) measures.slowApplies++
        onApplied(seconds, entries.length)
      }
      const results = machine.apply(entries)
      if (!(results instanceof Promise)) {
        done()
        return results
      }
      return results.finally(done)
    },
    snapshot: () => machine.snapshot(),
    restore: (snapshot) => machine.restore(snapshot),
  }
}

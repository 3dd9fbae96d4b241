import type { Clock, Log } from '@kiln/service'
import { encodeCommand } from '../state/command.ts'
import { timeStoreVersion } from '../state/store-version.ts'
import type { TimeMark } from '../state/time-marks.ts'
import type { Consensus } from './types.ts'

export type TimeMarkingPorts = {
  state: {
    readonly version: number
    readonly store: { readonly revision: number }
    readonly times: { readonly last: TimeMark | undefined }
  }
  consensus: Pick<Consensus<unknown>, 'isLeader' | 'propose'>
  clock: Clock
  /** Milliseconds since 1970. */
  wallClock(): number
  log: Log
}

/** How early a watch from a time may begin at the most. */
const intervalMs = 1_000

/** As leader, puts the time into the log once a second while the store changes. Returns the function that ends it. */
export function startTimeMarking(ports: TimeMarkingPorts): () => void {
  const { state, consensus, clock, log } = ports
  let isStopped = false
  let cancel = (): void => undefined
  const mark = async (): Promise<void> => {
    if (!consensus.isLeader() || state.version < timeStoreVersion) return
    if (state.times.last?.revision === state.store.revision) return
    await consensus.propose(encodeCommand({ kind: 'mark-time', timeMs: ports.wallClock() }))
  }
  const plan = (): void => {
    if (isStopped) return
    cancel = clock.after(intervalMs, () => {
      mark()
        .catch((error: unknown) => log.debug({ error }, 'the time could not be put into the log'))
        .finally(plan)
    })
  }
  plan()
  return () => {
    isStopped = true
    cancel()
  }
}

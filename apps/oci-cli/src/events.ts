import { setTimeout } from 'node:timers/promises'
import type { ExecBase } from '@kiln/oci-runtime'
import { goDurationMs } from '@kiln/service'
import { oomKills, readContainer, statistics } from './statistics.ts'

const intervalMsMin = 100
/** How often is looked whether something was killed for want of memory. */
const watchMs = 250

/** A duration as Go writes it: `100ms`, `1m30s`; a number alone is seconds. */
export function durationMs(text: string): number | undefined {
  return /^\d+(\.\d+)?$/.test(text) ? Number(text) * 1000 : goDurationMs(text)
}

/** `events`: a line of statistics each interval, and one when a process was killed for want of memory, until the container is gone. */
export async function printEvents(
  root: string,
  { id, once, interval }: { id: string; once: boolean; interval: string },
): Promise<number> {
  const intervalMs = durationMs(interval)
  if (intervalMs === undefined || intervalMs < intervalMsMin)
    throw new Error(`--interval: ${interval} is no duration of at least ${intervalMsMin}ms`)
  let last: ExecBase | undefined
  let killed = 0
  for (let next = 0; ; ) {
    const container = readContainer(root, id)
    if (!container && (once || !last)) throw new Error(`container ${id} does not exist or has stopped`)
    // The last one killed may be the container itself.
    const kills = oomKills(container ?? last!)
    if (last && kills > killed) console.log(JSON.stringify({ type: 'oom', id }))
    killed = kills
    if (!container) return 0
    if (performance.now() >= next) {
      next = performance.now() + intervalMs
      console.log(JSON.stringify({ type: 'stats', id, data: statistics(container) }))
    }
    if (once) return 0
    last = container
    await setTimeout(Math.min(intervalMs, watchMs))
  }
}

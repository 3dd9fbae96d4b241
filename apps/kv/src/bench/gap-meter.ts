import { readFileSync } from 'node:fs'

export type Gap = { wallMs: number; cpuMs: number }

/** Watches this thread's event loop; `take` answers the worst pause since it was last asked. */
export function watchGaps(everyMs: number): { take(): Gap; stop(): void } {
  let gap: Gap = { wallMs: 0, cpuMs: 0 }
  let at = performance.now()
  let cpu = process.threadCpuUsage()
  const timer = setInterval(() => {
    const used = process.threadCpuUsage(cpu)
    gap.wallMs = Math.max(gap.wallMs, performance.now() - at)
    gap.cpuMs = Math.max(gap.cpuMs, (used.user + used.system) / 1000)
    at = performance.now()
    cpu = process.threadCpuUsage()
  }, everyMs)
  return {
    take: () => {
      const taken = gap
      gap = { wallMs: 0, cpuMs: 0 }
      return taken
    },
    stop: () => clearInterval(timer),
  }
}

/**
 * Worst pause of this thread's event loop while something runs: by the clock, and by the processor time the thread used
 * meanwhile, which other load on the machine does not inflate.
 */
export async function measureGap<T>(work: () => Promise<T>): Promise<{ value: T; ms: number; gap: Gap }> {
  const gaps = watchGaps(1)
  const start = performance.now()
  try {
    const value = await work()
    // One more round, so that a pause at the very end counts.
    await new Promise((resume) => setTimeout(resume, 5))
    return { value, ms: performance.now() - start, gap: gaps.take() }
  } finally {
    gaps.stop()
  }
}

/** Anonymous memory of a process, this one if no other is named, in bytes. */
export function rssAnonBytes(pid: number | 'self' = 'self'): number {
  const kib = /RssAnon:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  return Number(kib) * 1024
}

/** A line of the report. */
export function report(name: string, fields: Record<string, number | string>): void {
  const text = Object.entries(fields).map(
    ([field, value]) => `${field}=${typeof value === 'number' ? value.toFixed(value < 100 ? 1 : 0) : value}`,
  )
  process.stdout.write(`${name.padEnd(28)} ${text.join('  ')}\n`)
}

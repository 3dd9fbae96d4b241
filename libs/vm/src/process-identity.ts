import { readFileSync } from 'node:fs'

/** A process that cannot be confused with a later one of the same number. */
export type ProcessIdentity = { pid: number; startTicks: number; bootId: string }

export type ProcessUsage = { cpuSeconds: number; rssMiB: number }

/** Kernel ticks a second as `/proc/PID/stat` counts them; fixed by the kernel's interface to user space. */
const ticksPerSecond = 100

/** Who has this pid now, or `undefined` if nobody (or only a zombie). */
export function identifyProcess(pid: number): ProcessIdentity | undefined {
  const stat = readStat(pid)
  if (!stat || stat.state === 'Z') return undefined
  return { pid, startTicks: stat.startTicks, bootId: bootId() }
}

/** True while the very process that was recorded still runs. */
export function isAlive(recorded: ProcessIdentity): boolean {
  const now = identifyProcess(recorded.pid)
  return now !== undefined && now.startTicks === recorded.startTicks && now.bootId === recorded.bootId
}

/** Signals the recorded process only if its number was not given to another one meanwhile. */
export function signalProcess(recorded: ProcessIdentity, signal: NodeJS.Signals): boolean {
  if (!isAlive(recorded)) return false
  try {
    return process.kill(recorded.pid, signal)
  } catch {
    return false
  }
}

/** Ends a recorded process: SIGTERM, and SIGKILL when it is still there after `graceMs`. */
export async function endProcess(recorded: ProcessIdentity, graceMs: number): Promise<void> {
  const pollMs = 50
  const ends = async (withinMs: number): Promise<boolean> => {
    for (let waited = 0; waited < withinMs; waited += pollMs) {
      if (!isAlive(recorded)) return true
      await new Promise((resolve) => setTimeout(resolve, pollMs))
    }
    return !isAlive(recorded)
  }
  signalProcess(recorded, 'SIGTERM')
  if (await ends(graceMs)) return
  signalProcess(recorded, 'SIGKILL')
  await ends(5_000)
}

/** CPU time used so far and resident memory, or `undefined` if the process is gone. */
export function processUsage(pid: number): ProcessUsage | undefined {
  const stat = readStat(pid)
  if (!stat) return undefined
  try {
    const resident = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))
    return {
      cpuSeconds: stat.cpuTicks / ticksPerSecond,
      rssMiB: Math.round(Number(resident?.[1] ?? 0) / 1024),
    }
  } catch {
    return undefined
  }
}

function readStat(pid: number): { state: string; cpuTicks: number; startTicks: number } | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The name in parentheses may hold spaces and parentheses, so count from the last one (proc(5)).
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
    return {
      state: fields[0] ?? '?',
      cpuTicks: Number(fields[11]) + Number(fields[12]),
      startTicks: Number(fields[19]),
    }
  } catch {
    return undefined
  }
}

function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
}

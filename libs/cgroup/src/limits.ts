/** What a group of processes may use. Absent is unlimited. */
export type Limits = {
  memoryBytes?: number
  /** Processor time, 0.5 is half a core. */
  cpus?: number
  /** Share of the processors when they are busy, in cores. */
  cpusRequested?: number
  pids?: number
}

export type CgroupWrite = { file: string; value: string }

const periodUs = 100_000
const quotaMinUs = 1_000

/** The files of a cgroup v2 folder that make limits true (kernel, admin-guide/cgroup-v2.rst). */
export function limitWrites(limits: Limits): CgroupWrite[] {
  const writes: CgroupWrite[] = []
  const max = (value: number | undefined): string => (value === undefined ? 'max' : String(Math.floor(value)))
  writes.push({ file: 'memory.max', value: max(limits.memoryBytes) })
  // A limit that swaps is none; and when one process is killed for memory, half a container is no use to anybody.
  if (limits.memoryBytes !== undefined) writes.push({ file: 'memory.swap.max', value: '0' })
  writes.push({ file: 'memory.oom.group', value: '1' })
  const quota =
    limits.cpus === undefined ? 'max' : String(Math.max(quotaMinUs, Math.round(limits.cpus * periodUs)))
  writes.push({ file: 'cpu.max', value: `${quota} ${periodUs}` })
  if (limits.cpusRequested)
    writes.push({ file: 'cpu.weight', value: String(cpuWeight(limits.cpusRequested)) })
  writes.push({ file: 'pids.max', value: max(limits.pids) })
  return writes
}

/** Kubernetes' way from cores to cgroup v1 shares (1024 a core, 2 at least) to a v2 weight of 1 to 10000. */
export function cpuWeight(cpus: number): number {
  const shares = Math.min(262_144, Math.max(2, Math.round(cpus * 1024)))
  return 1 + Math.floor(((shares - 2) * 9999) / 262_142)
}

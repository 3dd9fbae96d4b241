import type { PlanRecord } from '@kiln/linux'
import { type ConfigProcess, refuse } from './config.ts'

const cpusMax = 8192

/** `execCPUAffinity` (config.md, Linux Process): where `exec`'s process runs before and after it enters its cgroup. */
export function affinityRecords({ execCPUAffinity }: Pick<ConfigProcess, 'execCPUAffinity'>): PlanRecord[] {
  return (['initial', 'final'] as const).flatMap((name, when): PlanRecord[] => {
    const list = execCPUAffinity?.[name]
    return list ? [['cpuAffinity', when, cpuMask(list, `process.execCPUAffinity.${name}`)]] : []
  })
}

/** `0-3,7` as the bit mask of sched_setaffinity(2), in whole 64-bit words. */
export function cpuMask(list: string, where: string): Buffer {
  const cpus = list.split(',').flatMap((part) => {
    const [, first = '', last = first] = /^\s*(\d{1,4})(?:-(\d{1,4}))?\s*$/.exec(part) ?? []
    const [from, to] = [Number(first), Number(last)]
    if (first === '' || to < from || to >= cpusMax)
      refuse([`${where}: ${JSON.stringify(list)} is no list of CPUs`])
    return Array.from({ length: to - from + 1 }, (_, at) => from + at)
  })
  const mask = Buffer.alloc((Math.floor(Math.max(...cpus) / 64) + 1) * 8)
  for (const cpu of cpus) mask[cpu >> 3]! |= 1 << (cpu & 7)
  return mask
}

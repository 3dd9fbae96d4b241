import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { decodePlan } from '@kiln/linux'
import type { ExecBase } from '@kiln/oci-runtime'

/** The container's cgroups as `create` left them; undefined when it is gone or its first process is. */
export function readContainer(root: string, id: string): ExecBase | undefined {
  const state = read(join(root, id), 'state')
  const [pid = '0', started = ''] = state?.split(' ') ?? []
  const stat = read('/proc', `${pid}/stat`)
  if (!stat || stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] !== started) return undefined
  const { records } = decodePlan(readFileSync(join(root, id, 'plan')))
  const base = records.find(([operation]) => operation === 'processJson')?.[1]
  return typeof base === 'string' ? (JSON.parse(base) as ExecBase) : undefined
}

/** Every process of the container's cgroup and those below it. */
export function processesOf({ folders }: ExecBase): number[] {
  const folder = (folders.find((one) => one.controllers.includes('pids')) ?? folders[0])?.folder
  if (folder === undefined) return []
  const below = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) =>
    entry.isDirectory(),
  )
  return [folder, ...below.map((entry) => join(entry.parentPath, entry.name))].flatMap((path) =>
    (read(path, 'cgroup.procs') ?? '')
      .split('\n')
      .filter((line) => line !== '')
      .map(Number),
  )
}

function read(folder: string, file: string): string | undefined {
  try {
    return readFileSync(join(folder, file), 'utf8').trim()
  } catch {
    return undefined
  }
}

/** A single number; `max` and what is not there count as nothing said. */
function number(folder: string | undefined, file: string): number | undefined {
  const text = folder === undefined ? undefined : read(folder, file)
  return text === undefined || !/^-?\d+$/.test(text) ? undefined : Number(text)
}

/** `name value` lines. */
function table(folder: string | undefined, file: string): Record<string, number> {
  const lines = (folder === undefined ? undefined : read(folder, file))?.split('\n') ?? []
  return Object.fromEntries(
    lines.flatMap((line) => {
      const [name = '', value = ''] = line.split(/\s+/)
      return /^\d+$/.test(value) ? [[name, Number(value)]] : []
    }),
  )
}

/** How many processes were killed for want of memory, as far as the kernel counts them here. */
export function oomKills({ layout, folders }: ExecBase): number {
  const memory = folders.find((one) => layout.kind === 'v2' || one.controllers.includes('memory'))?.folder
  return table(memory, layout.kind === 'v2' ? 'memory.events' : 'memory.oom_control')['oom_kill'] ?? 0
}

/** What runc's `events --stats` prints under `data`, as far as the kernel says it. */
export function statistics({ layout, folders }: ExecBase): object {
  const of = (controller: string) =>
    folders.find((one) => layout.kind === 'v2' || one.controllers.includes(controller))?.folder
  return layout.kind === 'v2' ? unified(folders[0]?.folder) : legacy(of)
}

function legacy(of: (controller: string) => string | undefined): object {
  const [cpu, account, memory, pids] = [of('cpu'), of('cpuacct'), of('memory'), of('pids')]
  const throttling = table(cpu, 'cpu.stat')
  const usage = (kind: string) => ({
    usage: number(memory, `memory.${kind}usage_in_bytes`),
    max: number(memory, `memory.${kind}max_usage_in_bytes`),
    limit: number(memory, `memory.${kind}limit_in_bytes`),
    failcnt: number(memory, `memory.${kind}failcnt`),
  })
  const raw = table(memory, 'memory.stat')
  return {
    cpu: {
      usage: {
        total: number(account, 'cpuacct.usage'),
        percpu: account && read(account, 'cpuacct.usage_percpu')?.split(/\s+/).map(Number),
        kernel: number(account, 'cpuacct.usage_sys'),
        user: number(account, 'cpuacct.usage_user'),
      },
      throttling: {
        periods: throttling['nr_periods'],
        throttledPeriods: throttling['nr_throttled'],
        throttledTime: throttling['throttled_time'],
      },
    },
    memory: {
      cache: raw['cache'],
      usage: usage(''),
      swap: usage('memsw.'),
      kernel: usage('kmem.'),
      kernelTCP: usage('kmem.tcp.'),
      raw,
    },
    pids: { current: number(pids, 'pids.current'), limit: number(pids, 'pids.max') ?? 0 },
    blkio: blocks(of('blkio')),
    hugetlb: {},
  }
}

function blocks(folder: string | undefined): object {
  const lists = {
    ioServiceBytesRecursive: 'blkio.throttle.io_service_bytes',
    ioServicedRecursive: 'blkio.throttle.io_serviced',
  }
  return Object.fromEntries(
    Object.entries(lists).map(([name, file]) => {
      const lines = (folder === undefined ? undefined : read(folder, file))?.split('\n') ?? []
      return [
        name,
        lines.flatMap((line) => {
          const match = /^(\d+):(\d+) (\w+) (\d+)$/.exec(line)
          if (!match) return []
          return [{ major: Number(match[1]), minor: Number(match[2]), op: match[3], value: Number(match[4]) }]
        }),
      ]
    }),
  )
}

function unified(folder: string | undefined): object {
  const cpu = table(folder, 'cpu.stat')
  const raw = table(folder, 'memory.stat')
  const usage = (kind: string) => ({
    usage: number(folder, `memory.${kind}current`),
    max: number(folder, `memory.${kind}peak`),
    limit: number(folder, `memory.${kind}max`) ?? Number.MAX_SAFE_INTEGER,
    failcnt: table(folder, `memory.${kind}events`)['max'],
  })
  const nanoseconds = (name: string) => (cpu[name] === undefined ? undefined : cpu[name] * 1000)
  const sizes =
    folder === undefined
      ? []
      : readdirSync(folder).flatMap((file) => /^hugetlb\.(\w+)\.current$/.exec(file)?.[1] ?? [])
  return {
    cpu: {
      usage: {
        total: nanoseconds('usage_usec'),
        kernel: nanoseconds('system_usec'),
        user: nanoseconds('user_usec'),
      },
      throttling: {
        periods: cpu['nr_periods'],
        throttledPeriods: cpu['nr_throttled'],
        throttledTime: nanoseconds('throttled_usec'),
      },
    },
    memory: { cache: raw['file'], usage: usage(''), swap: usage('swap.'), raw },
    pids: { current: number(folder, 'pids.current'), limit: number(folder, 'pids.max') ?? 0 },
    hugetlb: Object.fromEntries(
      sizes.map((size) => [
        size,
        { usage: number(folder, `hugetlb.${size}.current`), max: number(folder, `hugetlb.${size}.max`) },
      ]),
    ),
  }
}

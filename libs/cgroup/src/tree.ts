import { mkdir, readdir, readFile, rmdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Fault } from '@kiln/service'
import { type Limits, limitWrites } from './limits.ts'

export type Statistics = {
  memoryBytes: number
  memoryPeakBytes: number | undefined
  cpuMicroseconds: number
  pids: number
  /** Processes killed because the group's memory was used up. */
  oomKills: number
}

const controllers = ['cpu', 'memory', 'pids'] as const

/** True where `root` is the unified hierarchy with the controllers that limits need. */
export async function isUnified(root: string): Promise<boolean> {
  const available = await readText(join(root, 'cgroup.controllers'))
  return available !== undefined && controllers.every((name) => available.split(/\s+/).includes(name))
}

/** Makes a group if it is missing, with its parents. */
export async function createCgroup(path: string): Promise<void> {
  await mkdir(path, { recursive: true })
}

/** Lets the children of a group have limits. The group itself may then hold no processes. */
export async function enableControllers(path: string): Promise<void> {
  await write(path, 'cgroup.subtree_control', controllers.map((name) => `+${name}`).join(' '))
}

/** Applies limits; a file that this kernel lacks (swap accounting off) is passed over. */
export async function applyLimits(path: string, limits: Limits): Promise<void> {
  for (const { file, value } of limitWrites(limits)) {
    const optional = file === 'memory.swap.max' || file === 'memory.oom.group'
    if (optional && (await readText(join(path, file))) === undefined) continue
    await write(path, file, value)
  }
}

/** What the group uses and has used; undefined when it is gone. */
export async function readStatistics(path: string): Promise<Statistics | undefined> {
  const current = await readText(join(path, 'memory.current'))
  if (current === undefined) return undefined
  const cpu = keyed(await readText(join(path, 'cpu.stat')))
  const peak = await readText(join(path, 'memory.peak'))
  return {
    memoryBytes: Number(current),
    memoryPeakBytes: peak === undefined ? undefined : Number(peak),
    cpuMicroseconds: cpu['usage_usec'] ?? 0,
    pids: Number((await readText(join(path, 'pids.current'))) ?? 0),
    oomKills: await readOomKills(path),
  }
}

export async function readOomKills(path: string): Promise<number> {
  return keyed(await readText(join(path, 'memory.events')))['oom_kill'] ?? 0
}

/** The processes directly in a group. */
export async function readProcesses(path: string): Promise<number[]> {
  return ((await readText(join(path, 'cgroup.procs'))) ?? '').split('\n').filter(Boolean).map(Number)
}

/** Kills everything in a group and below it at once. */
export async function killCgroup(path: string): Promise<void> {
  if ((await readText(join(path, 'cgroup.procs'))) === undefined) return
  await write(path, 'cgroup.kill', '1')
}

/** Removes a group and the groups below it; waits a little for the last process to be gone. */
export async function removeCgroup(
  path: string,
  removeDirectory: (path: string) => Promise<void> = rmdir,
): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      await removeBelow(path, removeDirectory)
      return
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'ENOENT') return
      if (code !== 'EBUSY' || attempt >= 40)
        throw new Fault('CGROUP_REMOVE_FAILED', `cannot remove cgroup ${path}`, { cause: error })
      await sleep(25)
    }
  }
}

async function removeBelow(path: string, removeDirectory: (path: string) => Promise<void>): Promise<void> {
  for (const entry of await readdir(path, { withFileTypes: true })) {
    if (entry.isDirectory()) await removeBelow(join(path, entry.name), removeDirectory)
  }
  await removeDirectory(path)
}

async function write(path: string, file: string, value: string): Promise<void> {
  try {
    await writeFile(join(path, file), value)
  } catch (error) {
    throw new Fault('CGROUP_WRITE_FAILED', `cannot write ${value} to ${join(path, file)}`, { cause: error })
  }
}

async function readText(path: string): Promise<string | undefined> {
  return (await readFile(path, 'utf8').catch(() => undefined))?.trim()
}

/** `key value` lines, as in memory.events and cpu.stat. */
function keyed(text: string | undefined): Record<string, number> {
  const values: Record<string, number> = {}
  for (const line of (text ?? '').split('\n')) {
    const [key, value] = line.split(' ')
    if (key && value !== undefined) values[key] = Number(value)
  }
  return values
}

import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { atomicWrite, syncDirectory } from '@kiln/service'

/**
 * The state of a pod is the directory that its folder is in, as rkt has it: `life/<state>/<uuid>`. Every transition is one rename, so a
 * crash leaves a pod in one state or the other.
 */
export const lifeStates = ['embryo', 'prepare', 'prepared', 'run', 'exited-garbage', 'garbage'] as const
export type LifeState = (typeof lifeStates)[number]

export const lifeFolder = (stateDir: string, state: LifeState, uuid = ''): string =>
  join(stateDir, 'life', state, uuid)

/** Held (flock) by the pod's sandbox for as long as that lives: by the process, not by any daemon. */
export const lockFile = (folder: string): string => join(folder, 'lock')

/** Put before a command so that it and what it becomes hold the lock. */
export const flockPrefix = (folder: string): string[] => [
  '/usr/bin/flock',
  '--nonblock',
  '--no-fork',
  lockFile(folder),
]

export async function makeLifeFolders(stateDir: string): Promise<void> {
  for (const state of lifeStates) await mkdir(lifeFolder(stateDir, state), { recursive: true, mode: 0o711 })
}

/** UUIDs of the pods in a state. */
export async function inState(stateDir: string, state: LifeState): Promise<string[]> {
  return (await readdir(lifeFolder(stateDir, state)).catch(() => [])).sort()
}

/** Makes the folder of a new pod with its record, and moves it to its first state. */
export async function bear(stateDir: string, to: LifeState, uuid: string, record: string): Promise<void> {
  await makeLifeFolders(stateDir)
  const embryo = lifeFolder(stateDir, 'embryo', uuid)
  await mkdir(embryo, { recursive: true, mode: 0o711 })
  await atomicWrite(lockFile(embryo), '', { mode: 0o600 })
  await atomicWrite(join(embryo, 'pod.json'), record, { mode: 0o600 })
  await move(stateDir, uuid, { from: 'embryo', to })
}

/** One rename, made durable. False when somebody else moved the pod before. */
export async function move(
  stateDir: string,
  uuid: string,
  { from, to }: { from: LifeState; to: LifeState },
): Promise<boolean> {
  try {
    await rename(lifeFolder(stateDir, from, uuid), lifeFolder(stateDir, to, uuid))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  }
  await syncDirectory(lifeFolder(stateDir, to))
  await syncDirectory(lifeFolder(stateDir, from))
  return true
}

/** Removes a pod that is garbage for good. */
export async function sweep(stateDir: string, uuid: string): Promise<void> {
  await rm(lifeFolder(stateDir, 'garbage', uuid), { recursive: true, force: true })
}

/** Whether a process of the pod holds its lock. */
export function isHeld(folder: string): Promise<boolean> {
  const lock = lockFile(folder)
  if (!existsSync(lock)) return Promise.resolve(false)
  const heldCode = 75
  return new Promise((resolve) => {
    const args = ['--nonblock', '--conflict-exit-code', String(heldCode), lock, '/bin/true']
    execFile('/usr/bin/flock', args, { timeout: 10_000 }, (error) => resolve(error?.code === heldCode))
  })
}

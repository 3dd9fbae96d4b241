import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Fault } from '@kiln/service'
import { identifyProcess, isAlive, type ProcessIdentity } from '@kiln/vm'
import type { StateFolder } from './state-folder.ts'

/**
 * Runs `work` while no other `kiln up` or `kiln down` works on the same folder; a lock of a dead process is none. The
 * lock appears whole, by a link, and a dead one is moved aside before it is judged again: of two commands that find the
 * same dead lock, none removes the other's.
 */
export async function withStateLock<T>(state: StateFolder, work: () => Promise<T>): Promise<T> {
  const path = join(state.root, 'lock')
  const own = join(state.root, `lock.${process.pid}`)
  try {
    writeFileSync(own, JSON.stringify(identifyProcess(process.pid)))
  } catch (cause) {
    throw new Fault('STATE_FOLDER', `cannot write to the state folder ${state.root}`, { cause })
  }
  try {
    if (!takeLock(own, path)) {
      removeDeadLock(path)
      if (!takeLock(own, path)) throw lockedBy(readHolder(path), state)
    }
  } finally {
    rmSync(own, { force: true })
  }
  try {
    return await work()
  } finally {
    rmSync(path, { force: true })
  }

  /** Throws STATE_LOCKED when the holder lives. */
  function removeDeadLock(lock: string): void {
    const holder = readHolder(lock)
    if (holder && isAlive(holder)) throw lockedBy(holder, state)
    const aside = join(state.root, `lock.${process.pid}.dead`)
    try {
      renameSync(lock, aside)
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return
      throw cause
    }
    const moved = readHolder(aside)
    // Somebody took the lock between the two looks: it gets it back.
    if (moved && isAlive(moved)) takeLock(aside, lock)
    rmSync(aside, { force: true })
  }
}

/** Links `own` to `path`; false if there is a lock already. */
function takeLock(own: string, path: string): boolean {
  try {
    linkSync(own, path)
    return true
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw cause
  }
}

function lockedBy(holder: ProcessIdentity | undefined, { root }: StateFolder): Fault {
  return new Fault('STATE_LOCKED', `process ${holder?.pid ?? '?'} works on ${root}`)
}

function readHolder(path: string): ProcessIdentity | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as ProcessIdentity
  } catch {
    return undefined
  }
}

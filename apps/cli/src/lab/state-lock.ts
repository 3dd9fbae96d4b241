import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Fault } from '@kiln/service'
import { identifyProcess, isAlive, type ProcessIdentity } from '@kiln/vm'
import type { StateFolder } from './state-folder.ts'

/** Runs `work` while no other `kiln up` or `kiln down` works on the same folder; a lock of a dead process is none. */
export async function withStateLock<T>(state: StateFolder, work: () => Promise<T>): Promise<T> {
  const path = join(state.root, 'lock')
  for (let attempt = 0; ; attempt++) {
    try {
      writeFileSync(path, JSON.stringify(identifyProcess(process.pid)), { flag: 'wx' })
      break
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== 'EEXIST') {
        throw new Fault('STATE_FOLDER', `cannot write to the state folder ${state.root}`, { cause })
      }
      const holder = readHolder(path)
      if ((holder && isAlive(holder)) || attempt > 0) {
        throw new Fault('STATE_LOCKED', `process ${holder?.pid ?? '?'} works on ${state.root}`, { cause })
      }
      rmSync(path, { force: true })
    }
  }
  try {
    return await work()
  } finally {
    rmSync(path, { force: true })
  }
}

function readHolder(path: string): ProcessIdentity | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as ProcessIdentity
  } catch {
    return undefined
  }
}

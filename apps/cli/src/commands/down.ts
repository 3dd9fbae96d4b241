import { existsSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { Fault } from '@kiln/service'
import { stopLabHost } from '../lab/lab-processes.ts'
import { readLab, readProcesses, type StateFolder, stateFolder } from '../lab/state-folder.ts'
import { withStateLock } from '../lab/state-lock.ts'
import type { CommandContext } from './context.ts'

/** Time a machine has to shut down by itself when its disk is kept. */
const shutdownGraceMs = 15_000

/** `kiln down`: ends the cluster and removes it; with `keep` its disks stay for the next `kiln up`. */
export async function down(
  options: { state?: string; keep: boolean },
  context: CommandContext,
): Promise<void> {
  const state = stateFolder(options.state, context.environment)
  if (!existsSync(state.root)) {
    context.print(`no cluster in ${state.root}`)
    return
  }
  await withStateLock(state, async () => {
    if (!holdsCluster(state)) {
      throw new Fault('CLUSTER_UNKNOWN', `${state.root} holds no cluster of kiln; nothing was removed`)
    }
    await stopLabHost(state, options.keep ? shutdownGraceMs : 0)
    if (options.keep) {
      context.print(`stopped; disks and keys stay in ${state.root}`)
      return
    }
    await rm(state.root, { recursive: true, force: true })
    await rm(state.sockets, { recursive: true, force: true })
    context.print(`removed ${state.root}`)
  })
}

/** Never removes a folder that only happened to be named: there must be a record of ours, readable or not. */
function holdsCluster(state: StateFolder): boolean {
  if (existsSync(state.lab) || existsSync(state.processes) || existsSync(state.bootData)) return true
  return readLab(state) !== undefined || readProcesses(state) !== undefined
}

import { existsSync } from 'node:fs'
import { Fault } from '@kiln/service'
import { stopLabHost } from '../lab/lab-processes.ts'
import { isStateFolder, removeCluster, removeStateFolder, stateFolder } from '../lab/state-folder.ts'
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
  if (!isStateFolder(state))
    throw new Fault('CLUSTER_UNKNOWN', `${state.root} holds no cluster of kiln; nothing was removed`)
  await withStateLock(state, async () => {
    await stopLabHost(state, options.keep ? shutdownGraceMs : 0)
    if (options.keep) {
      context.print(`stopped; disks and keys stay in ${state.root}`)
      return
    }
    await removeCluster(state)
    const foreign = await removeStateFolder(state)
    context.print(
      foreign.length === 0
        ? `removed ${state.root}`
        : `removed the cluster; ${state.root} stays, since it holds ${foreign.slice(0, 3).join(', ')}`,
    )
  })
}

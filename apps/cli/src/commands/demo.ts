import type { EtcdClient } from '@kiln/etcd-api'
import { compareVersions } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import { askLab } from '@kiln/vm'
import { BootClient } from '../lab/boot-client.ts'
import { labGroup } from '../lab/boot-data.ts'
import { machineStatuses, openStore, withStore } from '../lab/cluster-store.ts'
import { type ClusterSummary, summarise, waitForCluster } from '../lab/cluster-summary.ts'
import { stopLabHost } from '../lab/lab-processes.ts'
import { releaseKeyOf, stageRelease } from '../lab/release.ts'
import { type LabRecord, requireLab, type StateFolder, stateFolder } from '../lab/state-folder.ts'
import { type LoadResult, WriteLoad } from '../lab/write-load.ts'
import { requireRepository } from '../programs.ts'
import { runSteps, type Step } from '../progress/steps.ts'
import { buildEverything } from './build.ts'
import type { CommandContext } from './context.ts'

export type DemoResult = {
  version: string
  writes: LoadResult
  leaderLossSeconds: number
  updateSeconds: number
}

const leaderTimeoutMs = 120_000
const updateTimeoutMs = 30 * 60_000

/**
 * The second act: while a client writes, the store's leader loses its power and comes back, and a second image goes
 * over the machines one at a time. No acknowledged write may be lost.
 */
export async function demo(
  options: { state?: string; json: boolean; endOnFailure: boolean },
  context: CommandContext,
): Promise<{ result: DemoResult; summary: ClusterSummary }> {
  const state = stateFolder(options.state, context.environment)
  try {
    return await playDemo(state, options, context)
  } catch (error) {
    if (options.endOnFailure) await stopLabHost(state, 0)
    throw error
  }
}

/** One that is switched off leaves a majority only of three. */
export const demoMachinesMin = 3

async function playDemo(
  state: StateFolder,
  options: { json: boolean },
  context: CommandContext,
): Promise<{ result: DemoResult; summary: ClusterSummary }> {
  const lab = requireLab(state)
  if (lab.kind !== 'virtual') throw new Fault('EMBEDDED_UNSUPPORTED', '--demo needs virtual machines')
  if (lab.machines.length < demoMachinesMin)
    throw new Fault(
      'USAGE',
      `--demo needs ${demoMachinesMin} machines; this cluster has ${lab.machines.length}`,
    )
  const version = await nextVersion(state, lab)
  let summary = await summarise(state, lab)
  const result: Partial<DemoResult> = { version }
  const store = await openStore(state, lab)
  let load: WriteLoad | undefined
  const steps: Step[] = [
    {
      title: `Second image, ${version}`,
      run: async (report) => {
        const built = await buildEverything({
          rootDir: requireRepository(),
          version,
          say: (line) => report.note(line),
        })
        await stageRelease(state, built.dir, (await releaseKeyOf(state)).privateKey)
        load = new WriteLoad(store, version)
        return built.reused ? 'cached' : 'made from the cached tree'
      },
    },
    {
      title: 'The leader loses its power and comes back',
      run: async (report) => {
        result.leaderLossSeconds = await loseLeader(state, lab, store, context.signal)
        report.note(`another leader after ${result.leaderLossSeconds} s`)
        await waitForCluster({ state, lab, report, signal: context.signal, timeoutMs: updateTimeoutMs })
        return `survived leader loss; ${load?.acknowledged ?? 0} writes acknowledged so far`
      },
    },
    {
      title: `Update to ${version}, one machine at a time`,
      run: async (report) => {
        const started = performance.now()
        const boot = new BootClient(state, lab)
        await boot.publish(labGroup, { version })
        summary = await waitForCluster({
          ...{ state, lab, report, version, signal: context.signal },
          timeoutMs: updateTimeoutMs,
          check: async () => {
            const channel = await boot.channel(labGroup).catch(() => undefined)
            if (channel?.state === 'halted') {
              throw new Fault(
                'ROLLOUT_HALTED',
                `the rollout of ${version} was halted: ${channel.reason ?? ''}`,
              )
            }
          },
        })
        result.updateSeconds = Math.round((performance.now() - started) / 1000)
        return `${lab.machines.length} machines in ${result.updateSeconds} s`
      },
    },
    {
      title: 'Every acknowledged write is looked for',
      run: async () => {
        const writes = await load?.stop()
        load = undefined
        const { acknowledged, lost, longestPauseSeconds } = checkWrites(writes)
        result.writes = writes
        return `${acknowledged} acknowledged, ${lost} lost, longest pause ${longestPauseSeconds} s`
      },
    },
  ]
  try {
    await runSteps(steps, {
      live: context.live && !options.json,
      stream: options.json ? process.stderr : process.stdout,
      signal: context.signal,
    })
  } catch (error) {
    await load?.abandon()
    throw error
  } finally {
    store.close()
  }
  return { result: result as DemoResult, summary }
}

/** What became of the writes; fails unless every acknowledged one is there. */
export function checkWrites(writes: LoadResult | undefined): LoadResult {
  if (writes?.lost === 0) return writes
  throw new Fault('WRITES_LOST', `${writes?.lost ?? 'all'} acknowledged writes are gone`)
}

/** Pulls the leader's plug, waits for another one, and switches the machine on again; seconds without a leader. */
async function loseLeader(
  state: StateFolder,
  lab: LabRecord,
  store: EtcdClient,
  signal: AbortSignal,
): Promise<number> {
  const before = (await summarise(state, lab, store)).leader
  if (!before) throw new Fault('STORE_NO_LEADER', 'the store has no leader')
  const started = performance.now()
  const power = (action: 'on' | 'off') => askLab(state.control, { command: 'power', machine: before, action })
  await power('off')
  try {
    for (;;) {
      const { leader } = await summarise(state, lab, store)
      if (leader !== undefined && leader !== before) break
      if (signal.aborted) throw new Fault('CANCELLED', 'cancelled')
      if (performance.now() - started > leaderTimeoutMs) {
        throw new Fault('STORE_NO_LEADER', `no other leader after ${leaderTimeoutMs / 1000} s`)
      }
      await new Promise((resolve) => setTimeout(resolve, 250))
    }
  } catch (error) {
    // Whatever failed is to be told, not that it stays off as well.
    await power('on').catch(() => undefined)
    throw error
  }
  const seconds = Math.round((performance.now() - started) / 100) / 10
  await power('on')
  return seconds
}

/** One minor version above the newest that runs. */
async function nextVersion(state: StateFolder, lab: LabRecord): Promise<string> {
  const statuses = await withStore(state, lab, machineStatuses)
  const newest = [lab.version, ...[...statuses.values()].map((status) => status.version)]
    .sort(compareVersions)
    .at(-1)!
  const [major = 0, minor = 0] = newest.split(/[.-]/).map(Number)
  return `${major}.${minor + 1}.0`
}

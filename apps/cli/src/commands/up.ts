import { existsSync } from 'node:fs'
import { mkdir, open, rename, truncate } from 'node:fs/promises'
import { Fault } from '@kiln/service'
import { checkDisk, checkMemory, checkPort, chooseAccelerator, freePorts, labStatus } from '@kiln/vm'
import { BootClient } from '../lab/boot-client.ts'
import { bootDataFiles, labIgnition, writeBootData } from '../lab/boot-data.ts'
import { type ClusterSummary, describeSummary, summarise, waitForCluster } from '../lab/cluster-summary.ts'
import { demoPods, stageDemoImage } from '../lab/demo-pod.ts'
import { ensureHostPackages, packageHost } from '../lab/host-setup.ts'
import { checkSize, diskBytes, planMachine } from '../lab/lab-plan.ts'
import { startLabHost, stopLabHost } from '../lab/lab-processes.ts'
import { firstVersion, releaseKeyOf, stageRelease } from '../lab/release.ts'
import {
  createStateFolder,
  type Found,
  findCluster,
  type LabRecord,
  readLab,
  removeCluster,
  type StateFolder,
  stateFolder,
  writeLab,
} from '../lab/state-folder.ts'
import { withStateLock } from '../lab/state-lock.ts'
import { watchUntilReady } from '../lab/watch-machines.ts'
import { requireRepository } from '../programs.ts'
import { runSteps, type Step } from '../progress/steps.ts'
import { buildEverything } from './build.ts'
import type { CommandContext } from './context.ts'

export type UpOptions = {
  nodes: number
  memory: number
  /** Leaves everything as it is when it fails. */
  keep: boolean
  json: boolean
  state?: string
  bootPort?: number
  timeoutSeconds: number
}

/** Memory QEMU itself and its translated code need beside a guest's. */
const qemuOverheadMiB = 200
/** What a machine's sparse disk comes to hold, and the room an image build takes. */
const diskMiBPerMachine = 1_500
const buildDiskMiB = 5_000

/** Starts a cluster of virtual machines, or resumes the one that is there. Returns what runs. */
export async function up(options: UpOptions, context: CommandContext): Promise<ClusterSummary> {
  checkSize(options.nodes, options.memory)
  requireRepository()
  const state = stateFolder(options.state, context.environment)
  createStateFolder(state)
  return await withStateLock(state, async () => {
    const before = readLab(state)
    if (before?.kind === 'embedded') {
      throw new Fault('CLUSTER_RUNNING', `${state.root} holds an embedded cluster`, {
        remedy: 'remove it with: kiln down, or choose another folder with --state',
      })
    }
    const found = findCluster(state)
    if (before?.complete && found?.from === 'running') {
      context.note('the cluster runs already')
      return await summarise(state, before)
    }
    if (found?.from === 'running') context.note('a cluster is on its way here already; this goes on with it')
    else if (before && !found) context.note('the cluster here never was whole; it is made anew')
    // Left by an owner that was killed: its machines would hold ports and disks.
    if (found?.from !== 'running') await stopLabHost(state, 0)
    if (!found) await removeCluster(state)
    return await startCluster(state, found, options, context)
  })
}

async function startCluster(
  state: StateFolder,
  found: Found,
  options: UpOptions,
  context: CommandContext,
): Promise<ClusterSummary> {
  const started = performance.now()
  const lab = found?.lab ?? (await planLab(options))
  let summary: ClusterSummary | undefined
  const running = async (): Promise<ReadonlySet<string>> => {
    const { machines } = await labStatus(state.control)
    return new Set(machines.filter(({ power }) => power === 'on').map(({ name }) => name))
  }
  const host: Step = {
    title: 'Host',
    run: async (report) => {
      const installed = await ensureHostPackages(packageHost(context.environment), report)
      checkMemory(lab.machines.length * (lab.memoryMiB + qemuOverheadMiB))
      checkDisk(state.root, found ? 500 : lab.machines.length * diskMiBPerMachine + buildDiskMiB)
      await checkPort(lab.bootPort, 'the boot server')
      await checkPort(lab.bootTlsPort, "the boot server's TLS")
      lab.accelerator = await chooseAccelerator()
      return [installed, `${lab.accelerator}`].filter(Boolean).join(', ')
    },
  }
  const titles = {
    running: 'Machines, on their way',
    disks: 'Machines, from their disks',
    nothing: 'Machines, from empty disks over the network',
  }
  const steps: Step[] = [
    ...(found?.from === 'running' ? [] : [host]),
    ...(found ? [] : installSteps(state, lab, context)),
    {
      title: titles[found?.from ?? 'nothing'],
      run: async (report) => {
        if (found?.from === 'disks') await keepOldConsoles(state, lab)
        if (found?.from !== 'running') await startLabHost(state, context.signal)
        const boot = new BootClient(state, lab)
        await watchUntilReady({
          state,
          lab,
          // Of a resumed cluster the boot server still tells the last boot's stages.
          records: async () => (found?.from === 'disks' ? [] : await boot.machines()),
          running,
          report,
          timeoutMs: options.timeoutSeconds * 1000,
          signal: context.signal,
        })
        return `${lab.machines.length} ready after ${Math.round((performance.now() - started) / 1000)} s`
      },
    },
    {
      title: 'Cluster',
      run: async (report) => {
        summary = await waitForCluster({ state, lab, report, signal: context.signal })
        await writeLab(state, { ...lab, complete: true })
        return `leader ${summary.leader ?? 'unknown'}`
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
    if (!options.keep) await stopLabHost(state, 0)
    throw error
  }
  if (!summary) throw new Fault('CLUSTER_UNKNOWN', 'the cluster did not say what it is')
  return { ...summary, seconds: Math.round((performance.now() - started) / 1000) }
}

function installSteps(state: StateFolder, lab: LabRecord, context: CommandContext): Step[] {
  let imageFolder = ''
  return [
    {
      title: 'Image',
      run: async (report) => {
        const rootDir = requireRepository()
        const built = await buildEverything({
          rootDir,
          version: lab.version,
          say: (line) => report.note(line),
        })
        imageFolder = built.dir
        return `${lab.version}${built.reused ? ', cached' : ''}`
      },
    },
    {
      title: 'State folder',
      run: async () => {
        await prepareCluster(state, lab, imageFolder, context.environment)
        return state.root
      },
    },
  ]
}

async function planLab(options: UpOptions): Promise<LabRecord> {
  const { nodes } = options
  const ports = await freePorts(2 * nodes + 2)
  return {
    formatVersion: 1,
    kind: 'virtual',
    createdAt: new Date().toISOString(),
    version: firstVersion,
    memoryMiB: options.memory,
    cpus: 1,
    accelerator: 'tcg',
    bootPort: options.bootPort ?? ports[2 * nodes]!,
    bootTlsPort: ports[2 * nodes + 1]!,
    machines: Array.from({ length: nodes }, (_, index) => ({
      ...planMachine(index + 1, ports[index]!),
      runtimePort: ports[nodes + index]!,
    })),
    complete: false,
  }
}

async function prepareCluster(
  state: StateFolder,
  lab: LabRecord,
  imageFolder: string,
  environment: NodeJS.ProcessEnv,
): Promise<void> {
  const key = await releaseKeyOf(state)
  const ignition = labIgnition(demoPods)
  await writeBootData(state, bootDataFiles({ lab, releasePublicKey: key.publicKey, ignition }))
  await stageRelease(state, imageFolder, key.privateKey)
  await stageDemoImage(state, environment)
  for (const { name } of lab.machines) {
    const paths = state.machine(name)
    await mkdir(paths.folder, { recursive: true })
    await (await open(paths.disk, 'w')).close()
    await truncate(paths.disk, diskBytes)
  }
  await writeLab(state, lab)
}

/** A console of its own for every run of the cluster, so that old marks are not taken for new ones. */
export async function keepOldConsoles(state: StateFolder, lab: LabRecord): Promise<void> {
  for (const { name } of lab.machines) {
    const { serialLog } = state.machine(name)
    if (existsSync(serialLog)) await rename(serialLog, `${serialLog}.before`)
  }
}

/** `--json`, or the table and what to try next. */
export function printSummary(summary: ClusterSummary, json: boolean, context: CommandContext): void {
  context.print(json ? JSON.stringify(summary, null, 2) : describeSummary(summary))
}

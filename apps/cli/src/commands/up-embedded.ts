import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '@kiln/service'
import { checkDisk, checkMemory, checkPort, freePorts, labStatus } from '@kiln/vm'
import { writeStandInRelease } from '../embedded/stand-in-release.ts'
import { BootClient } from '../lab/boot-client.ts'
import { bootDataFiles, labGroup, labIgnition, writeBootData } from '../lab/boot-data.ts'
import { type ClusterSummary, summarise, waitForCluster } from '../lab/cluster-summary.ts'
import { demoPods } from '../lab/demo-pod.ts'
import { checkNodes, planMachine } from '../lab/lab-plan.ts'
import { startLabHost, stopLabHost } from '../lab/lab-processes.ts'
import { firstVersion, releaseKeyOf, secondVersion, stageRelease } from '../lab/release.ts'
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
import { runSteps, type Step } from '../progress/steps.ts'
import type { CommandContext } from './context.ts'
import { keepOldConsoles } from './up.ts'

const readyTimeoutMs = 120_000

/** Flags of virtual machines that mean nothing for simulated ones are refused by name. */
export function refuseForEmbedded(given: readonly string[]): void {
  if (given.length === 0) return
  const flags = given.map((name) => `--${name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`)
  throw new Fault('USAGE', `only virtual machines take ${flags.join(' and ')}`, {
    remedy: 'leave out --embedded',
  })
}

/** What one member and one simulated machine take at most: three Node processes, and the disk of two small releases. */
const memoryMiBPerNode = 350
const diskMiBPerNode = 200

/**
 * The same control plane with no root and no virtual machine: three store members, the boot server and three simulated
 * machines on the loopback, installed with one release and updated to a second.
 */
export async function upEmbedded(
  options: { nodes: number; keep: boolean; json: boolean; state?: string },
  context: CommandContext,
): Promise<ClusterSummary> {
  checkNodes(options.nodes)
  const state = stateFolder(options.state, context.environment)
  createStateFolder(state)
  return await withStateLock(state, async () => {
    const before = readLab(state)
    if (before?.kind === 'virtual') {
      throw new Fault('CLUSTER_RUNNING', `${state.root} holds a cluster of virtual machines`, {
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
    if (found?.from !== 'running') await stopLabHost(state, 0)
    if (!found) await removeCluster(state)
    return await startEmbedded(state, found, options, context)
  })
}

async function startEmbedded(
  state: StateFolder,
  found: Found,
  options: { nodes: number; keep: boolean; json: boolean },
  context: CommandContext,
): Promise<ClusterSummary> {
  const started = performance.now()
  const lab = found?.lab ?? (await planEmbedded(options.nodes))
  const boot = new BootClient(state, lab)
  let summary: ClusterSummary | undefined
  const at = { state, lab, signal: context.signal, podPhase: 'Refused' as const }
  const folder: Step = {
    title: 'State folder',
    run: async () => {
      checkMemory(lab.machines.length * memoryMiBPerNode)
      checkDisk(state.root, lab.machines.length * diskMiBPerNode)
      await checkPort(lab.bootPort, 'the boot server')
      await checkPort(lab.bootTlsPort, "the boot server's TLS")
      if (!found) await prepareEmbedded(state, lab)
      return state.root
    },
  }
  const steps: Step[] = [
    ...(found?.from === 'running' ? [] : [folder]),
    {
      title: 'Simulated machines, from empty disks over HTTP',
      run: async (report) => {
        if (found?.from === 'disks') await keepOldConsoles(state, lab)
        if (found?.from !== 'running') await startLabHost(state, context.signal)
        const running = async (): Promise<ReadonlySet<string>> =>
          new Set((await labStatus(state.control)).machines.map(({ name }) => name))
        const records = async () => (found?.from === 'disks' ? [] : await boot.machines())
        await watchUntilReady({ ...at, records, running, report, timeoutMs: readyTimeoutMs })
        return `${lab.machines.length} ready after ${Math.round((performance.now() - started) / 1000)} s`
      },
    },
    {
      title: 'Cluster',
      run: async (report) => {
        summary = await waitForCluster({ ...at, report })
        return `leader ${summary.leader ?? 'unknown'}; pods are refused by simulated machines`
      },
    },
    {
      title: `Update to ${secondVersion}, one machine after the other`,
      run: async (report) => {
        await boot.publish(labGroup, { version: secondVersion })
        summary = await waitForCluster({ ...at, report, version: secondVersion })
        await writeLab(state, { ...lab, complete: true })
        return undefined
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

/** A new embedded cluster of so many machines, at free ports. */
export async function planEmbedded(nodes: number): Promise<LabRecord> {
  const ports = await freePorts(2 * nodes + 2)
  return {
    formatVersion: 1,
    kind: 'embedded',
    createdAt: new Date().toISOString(),
    version: firstVersion,
    memoryMiB: 0,
    cpus: 1,
    accelerator: 'tcg',
    bootPort: ports[2 * nodes]!,
    bootTlsPort: ports[2 * nodes + 1]!,
    machines: Array.from({ length: nodes }, (_, index) => ({
      ...planMachine(index + 1, ports[index]!),
      peerPort: ports[nodes + index]!,
    })),
    complete: false,
  }
}

/** The boot server's data, two releases and a folder for each machine. */
export async function prepareEmbedded(state: StateFolder, lab: LabRecord): Promise<void> {
  const key = await releaseKeyOf(state)
  const ignition = labIgnition(demoPods)
  await writeBootData(state, bootDataFiles({ lab, releasePublicKey: key.publicKey, ignition }))
  for (const version of [firstVersion, secondVersion]) {
    const folder = join(state.embedded, 'releases', version)
    await writeStandInRelease(folder, version, new Date())
    await stageRelease(state, folder, key.privateKey)
  }
  for (const { name } of lab.machines) await mkdir(state.machine(name).folder, { recursive: true })
  await writeLab(state, lab)
}

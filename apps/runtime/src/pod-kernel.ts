import { mkdir, open, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  applyLimits,
  createCgroup,
  killCgroup,
  readOomKills,
  readStatistics,
  removeCgroup,
  type Statistics,
} from '@kiln/cgroup'
import {
  type ExitRecord,
  encodePlan,
  isAlive,
  type Plan,
  type ProcessId,
  type RunningRecord,
  signalProcess,
  startPlan,
} from '@kiln/linux'
import type { StoredImage } from '@kiln/oci'
import { containersOf, type PodContainer } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import type { CniNetworks } from './cni/pod-networks.ts'
import { connectSandbox } from './connect-sandbox.ts'
import {
  containerGroup,
  containerRun,
  containerState,
  exitFile,
  type PodPaths,
  planContainer,
  planSandbox,
  runningFile,
  sandboxFile,
  terminationFile,
} from './container-plan.ts'
import { openFilesMax, type Placement, preparePlace } from './host.ts'
import { flockPrefix } from './life/folders.ts'
import type { Network } from './network.ts'
import { type ProgramWanted, planExec, runExec } from './pod-exec.ts'
import { prepareFolders, writeIdentity } from './pod-folders.ts'
import { type PodFacts, planContainerProcess } from './pod-process.ts'
import { type PodRecord, recordFolder } from './pod-record.ts'
import { podAddresses } from './pod-status.ts'
import type { Exit } from './restart-policy.ts'

/** What a pod needs from the machine. The real one runs kiln-init; tests have one of their own. */
export type PodKernel = {
  /** The pod's sandbox if it still runs. */
  findSandbox(record: PodRecord): Promise<ProcessId | undefined>
  /** With all its networks, and the addresses it has there. */
  openSandbox(record: PodRecord): Promise<ProcessId & { addresses?: string[] }>
  startContainer(input: {
    record: PodRecord
    container: PodContainer
    attempt: number
    image: StoredImage
    sandbox: ProcessId
  }): Promise<{ startedAtMs: number }>
  /** How an attempt is: running, ended, or gone without a trace. */
  observe(record: PodRecord, container: string, attempt: number): Promise<{ pid: number } | Exit | 'gone'>
  signal(record: PodRecord, container: string, signal: 'TERM' | 'KILL'): Promise<void>
  /** Runs a program in a running container; fails unless it ends with 0 in time. */
  exec(record: PodRecord, container: string, command: readonly string[], timeoutMs: number): Promise<void>
  /** Writes the plan of a program for a running container; its file is the caller's. */
  planExec(record: PodRecord, wanted: ProgramWanted): Promise<string>
  /** What the containers that run use. */
  statistics(record: PodRecord): Promise<ContainerStatistics[]>
  /** After the exit is in the record. */
  forget(record: PodRecord, container: string, attempt: number): Promise<void>
  /** Ends whatever of the pod still runs, and removes all but its state. */
  close(record: PodRecord): Promise<void>
}

export type ContainerStatistics = {
  container: string
  statistics: Statistics
  memoryLimitBytes: number | undefined
}

export type KernelSettings = {
  stateDir: string
  runDir: string
  initPath: string
  machineId: string
  machineAddress: string | undefined
  journal: boolean
  logFileBytes: number
  podPidsDefault: number
  /** Folders of what the machine's own configuration offers to pods. */
  configMapsDir: string
  seccompDir: string
  network: Network
  /** Absent in tests. */
  cni?: CniNetworks | undefined
  /** The machine's address in the pods' network. */
  podGateway: string | undefined
  treeOf(image: StoredImage): string
  listImages(): Promise<StoredImage[]>
  /** Absent on a machine without cgroup v2, in tests. */
  place: ((unit: string, stopSeconds: number) => Placement) | undefined
}

const startTimeoutMs = 60_000

export function podPaths(
  settings: Pick<KernelSettings, 'stateDir' | 'runDir'>,
  record: Pick<PodRecord, 'uid' | 'byName' | 'manifest'>,
): PodPaths {
  return {
    state: recordFolder(settings.stateDir, record),
    run: join(settings.runDir, 'pods', record.manifest.metadata.name),
    exits: join(settings.stateDir, 'exits'),
  }
}

export function openKernel(settings: KernelSettings): PodKernel {
  const pathsOf = (record: PodRecord): PodPaths => podPaths(settings, record)
  const placeOf = (record: PodRecord): Placement | undefined =>
    record.unit === undefined
      ? undefined
      : settings.place?.(record.unit, record.manifest.spec.terminationGracePeriodSeconds + 5)

  const start = async (plan: Plan, file: string, prefix: string[]): Promise<RunningRecord> => {
    await writeFile(file, encodePlan(plan), { mode: 0o600 })
    return startPlan({ initPath: settings.initPath, planFile: file, prefix, timeoutMs: startTimeoutMs })
  }

  const findSandbox = async (record: PodRecord): Promise<ProcessId | undefined> => {
    const running = await readJson<RunningRecord>(sandboxFile(pathsOf(record)))
    if (!running || !(await isAlive(running))) return undefined
    return { pid: running.pid, startTime: running.startTime }
  }

  const factsOf = (record: PodRecord): PodFacts => ({
    machineId: settings.machineId,
    hostIp: settings.machineAddress,
    podIps: podAddresses(record, settings.machineAddress),
    uid: record.uid,
    filesMax: openFilesMax(),
    seccompDir: settings.seccompDir,
  })

  const planned: PodKernel['planExec'] = async (record, wanted) =>
    await planExec(
      {
        record,
        paths: pathsOf(record),
        groups: placeOf(record)?.groups,
        facts: factsOf(record),
        images: await settings.listImages(),
        treeOf: settings.treeOf,
      },
      wanted,
    )

  return {
    findSandbox,
    planExec: planned,

    exec: async (record, container, command, timeoutMs) =>
      await runExec(settings.initPath, await planned(record, { container, args: command }), timeoutMs),

    openSandbox: async (record) => {
      const paths = pathsOf(record)
      const { manifest } = record
      await mkdir(paths.run, { recursive: true, mode: 0o711 })
      await mkdir(paths.exits, { recursive: true })
      const placement = placeOf(record)
      if (placement) await preparePlace(placement)
      const plan = planSandbox(manifest, paths, placement?.groups)
      const sandbox = await start(plan, join(paths.run, 'sandbox.plan'), [
        ...(placement?.prefix ?? []),
        ...flockPrefix(paths.state),
      ])
      await placement?.prepare()
      const { pid, startTime } = sandbox
      const connection = await connectSandbox(record, { pid, startTime }, settings)
      await writeIdentity(record, paths, connection)
      return { pid, startTime, addresses: connection.addresses }
    },

    startContainer: async ({ record, container, attempt, image, sandbox }) => {
      const paths = pathsOf(record)
      const { manifest: pod, uid } = record
      const groups = placeOf(record)?.groups
      const tree = settings.treeOf(image)
      const process = await planContainerProcess(pod, container, image.config, tree, factsOf(record))
      const subPaths = await prepareFolders(pod, container, paths, settings.configMapsDir)
      // A pod of the same name may have left one.
      await rm(exitFile(paths, pod.metadata.name, container.name, attempt), { force: true })
      if (groups) {
        const group = containerGroup(groups, container.name)
        await removeCgroup(group)
        await createCgroup(group)
        const { limits, requests } = container.resources
        await applyLimits(group, {
          memoryBytes: limits.memory,
          cpus: limits.cpu,
          cpusRequested: requests.cpu ?? limits.cpu,
          pids: limits['kiln.dev/pids'] ?? settings.podPidsDefault,
        })
      }
      const plan = planContainer({
        pod,
        uid,
        machineId: settings.machineId,
        container,
        attempt,
        process,
        tree,
        paths,
        groups,
        sandbox,
        journal: settings.journal,
        logFileBytes: settings.logFileBytes,
        subPaths,
      })
      return start(plan, join(containerRun(paths, container.name), 'plan'), [])
    },

    observe: async (record, container, attempt) => {
      const paths = pathsOf(record)
      const file = exitFile(paths, record.manifest.metadata.name, container, attempt)
      const running = await readJson<RunningRecord>(runningFile(paths, container))
      const watched =
        running !== undefined &&
        ((await isAlive(running)) ||
          (await isAlive({ pid: running.monitorPid, startTime: running.monitorStartTime })))
      // In this order: the monitor writes the status and then ends.
      const exit = await readJson<ExitRecord>(file)
      if (exit) return exitOf(exit, record, container)
      return watched ? { pid: running.pid } : 'gone'
    },

    signal: async (record, container, signal) => {
      const groups = placeOf(record)?.groups
      if (signal === 'KILL' && groups) return killCgroup(containerGroup(groups, container))
      const running = await readJson<RunningRecord>(runningFile(pathsOf(record), container))
      if (running) await signalProcess(settings.initPath, running, signal)
    },

    statistics: async (record) => {
      const groups = placeOf(record)?.groups
      if (!groups)
        throw new Fault(
          'POD_NOT_MEASURED',
          'containers are measured by cgroup v2, which this machine has not',
        )
      const found: ContainerStatistics[] = []
      for (const { name, resources } of containersOf(record.manifest)) {
        const statistics = await readStatistics(containerGroup(groups, name))
        if (statistics) found.push({ container: name, statistics, memoryLimitBytes: resources.limits.memory })
      }
      return found
    },

    forget: async (record, container, attempt) => {
      const paths = pathsOf(record)
      const groups = placeOf(record)?.groups
      await rm(runningFile(paths, container), { force: true })
      await rm(exitFile(paths, record.manifest.metadata.name, container, attempt), { force: true })
      // What a pod that is run once has changed can be exported until it is collected.
      if (!record.once)
        await rm(join(containerState(paths, container), 'layers'), { recursive: true, force: true })
      if (!groups) return
      // In the machine's own pid namespace others of the container outlive its first process.
      if (record.manifest.spec.hostPID) await killCgroup(containerGroup(groups, container))
      await removeCgroup(containerGroup(groups, container))
    },

    close: async (record) => {
      const paths = pathsOf(record)
      const placement = placeOf(record)
      const sandbox = await findSandbox(record)
      for (const container of placement ? [] : containersOf(record.manifest)) {
        const running = await readJson<RunningRecord>(runningFile(paths, container.name))
        if (running) await signalProcess(settings.initPath, running, 'KILL')
      }
      // While the sandbox's namespace is there: plug-ins look into it.
      await settings.cni?.disconnect(record.uid)
      if (sandbox) await endProcess(settings.initPath, sandbox)
      await placement?.clear()
      await settings.network.disconnect(record.uid)
      await rm(paths.run, { recursive: true, force: true })
    },
  }

  async function exitOf(exit: ExitRecord, record: PodRecord, container: string): Promise<Exit> {
    const groups = placeOf(record)?.groups
    const kills = groups ? await readOomKills(containerGroup(groups, container)) : 0
    const { code, signal, finishedAtMs } = exit
    const message = await readStart(terminationFile(pathsOf(record), container))
    return {
      code,
      signal,
      finishedAtMs,
      oomKilled: signal === 9 && kills > 0,
      lost: false,
      ...(message === '' ? {} : { message }),
    }
  }
}

async function endProcess(initPath: string, process: ProcessId): Promise<void> {
  await signalProcess(initPath, process, 'KILL')
  for (let attempt = 0; attempt < 200 && (await isAlive(process)); attempt++) await sleep(10)
}

/** The first 4,096 bytes, as Kubernetes takes of a last word; nothing if there is no such file. */
async function readStart(path: string): Promise<string> {
  const file = await open(path).catch(() => undefined)
  if (!file) return ''
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(4096), 0, 4096, 0)
    return buffer.toString('utf8', 0, bytesRead).replaceAll('\ufffd', '').slice(0, 4096)
  } finally {
    await file.close()
  }
}

async function readJson<T extends { formatVersion: 1 }>(path: string): Promise<T | undefined> {
  try {
    const value = JSON.parse(await readFile(path, 'utf8')) as T
    return value.formatVersion === 1 ? value : undefined
  } catch {
    return undefined
  }
}

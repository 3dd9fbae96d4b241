import { existsSync } from 'node:fs'
import { chmod, mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { applyLimits, createCgroup, killCgroup, readOomKills, removeCgroup } from '@kiln/cgroup'
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
import { containersOf, type PodContainer, type PodManifest } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import type { CniNetworks, PodConnection } from './cni/pod-networks.ts'
import {
  containerGroup,
  containerRun,
  containerState,
  exitFile,
  hostNameFile,
  hostsFile,
  type PodPaths,
  planContainer,
  planSandbox,
  podHostName,
  resolverFile,
  runningFile,
  sandboxFile,
  volumeFolder,
} from './container-plan.ts'
import { openFilesMax, type Placement, preparePlace } from './host.ts'
import type { Network } from './network.ts'
import { planExec, runExec } from './pod-exec.ts'
import { type PodFacts, planProcess, resolveUser } from './pod-process.ts'
import type { PodRecord } from './pod-record.ts'
import { podAddresses, portsOf } from './pod-status.ts'
import type { Exit } from './restart-policy.ts'
import { podResolver } from './services/resolver.ts'

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
  planExec(
    record: PodRecord,
    wanted: { container?: string | undefined; args: readonly string[] },
  ): Promise<string>
  /** After the exit is in the record. */
  forget(record: PodRecord, container: string, attempt: number): Promise<void>
  /** Ends whatever of the pod still runs, and removes all but its state. */
  close(record: PodRecord): Promise<void>
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
const hostsHead = '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n'

export function podPaths(settings: Pick<KernelSettings, 'stateDir' | 'runDir'>, pod: string): PodPaths {
  return {
    state: join(settings.stateDir, 'pods', pod),
    run: join(settings.runDir, 'pods', pod),
    exits: join(settings.stateDir, 'exits'),
  }
}

export function openKernel(settings: KernelSettings): PodKernel {
  const pathsOf = (record: PodRecord): PodPaths => podPaths(settings, record.manifest.metadata.name)
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
      const sandbox = await start(plan, join(paths.run, 'sandbox.plan'), placement?.prefix ?? [])
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
      const user = await resolveUser(tree, image.config, pod, container)
      const process = planProcess(pod, container, image.config, user, factsOf(record))
      await prepareFolders(pod, container, paths)
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

    forget: async (record, container, attempt) => {
      const paths = pathsOf(record)
      const groups = placeOf(record)?.groups
      await rm(runningFile(paths, container), { force: true })
      await rm(exitFile(paths, record.manifest.metadata.name, container, attempt), { force: true })
      await rm(join(containerState(paths, container), 'layers'), { recursive: true, force: true })
      if (groups) await removeCgroup(containerGroup(groups, container))
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
    return { code, signal, finishedAtMs, oomKilled: signal === 9 && kills > 0, lost: false }
  }
}

/** The built-in bridge first: it is `eth0`. */
async function connectSandbox(
  record: PodRecord,
  sandbox: ProcessId,
  settings: KernelSettings,
): Promise<PodConnection> {
  const { manifest, uid, generation, networks, address } = record
  const connection: PodConnection = { addresses: [], gateways: [], nameservers: [] }
  const builtIn = networks?.builtIn ?? !manifest.spec.hostNetwork
  if (builtIn && address !== undefined) {
    await settings.network.connect({ uid, address, sandboxPid: sandbox.pid })
    connection.addresses.push(address)
    if (settings.podGateway !== undefined) connection.gateways.push(settings.podGateway)
  }
  if (!networks || networks.cni.length === 0) return connection
  if (!settings.cni) throw new Fault('POD_NETWORK_FAILED', 'this machine runs no CNI plug-ins')
  const made = await settings.cni.connect({
    uid,
    name: manifest.metadata.name,
    namespace: manifest.metadata.namespace,
    generation,
    sandbox,
    networks: networks.cni,
    ports: builtIn ? [] : portsOf(manifest),
  })
  return {
    addresses: [...connection.addresses, ...made.addresses],
    gateways: [...connection.gateways, ...made.gateways],
    nameservers: made.nameservers,
  }
}

async function writeIdentity(
  record: PodRecord,
  paths: PodPaths,
  { addresses, gateways, nameservers }: PodConnection,
): Promise<void> {
  const name = podHostName(record.manifest)
  const own = addresses.length > 0 ? addresses : ['127.0.1.1']
  const lines = record.manifest.spec.hostNetwork ? [] : own.map((address) => `${address}\t${name}\n`)
  await writeFile(hostsFile(paths), hostsHead + lines.join(''))
  await writeFile(hostNameFile(paths), `${name}\n`)
  const { hostNetwork } = record.manifest.spec
  await writeFile(resolverFile(paths), await podResolver({ hostNetwork, gateways, nameservers }))
}

async function prepareFolders(pod: PodManifest, container: PodContainer, paths: PodPaths): Promise<void> {
  const layers = join(containerState(paths, container.name), 'layers')
  // Each attempt begins with the image as it is.
  await rm(layers, { recursive: true, force: true })
  for (const folder of [
    join(layers, 'upper'),
    join(layers, 'work'),
    join(containerRun(paths, container.name), 'root'),
  ]) {
    await mkdir(folder, { recursive: true, mode: 0o755 })
  }
  await rm(runningFile(paths, container.name), { force: true })
  for (const volume of pod.spec.volumes) {
    if (volume.hostPath) {
      await expectHostPath(volume.name, volume.hostPath)
      continue
    }
    const folder = volumeFolder(paths, { name: volume.name, inMemory: volume.emptyDir?.medium === 'Memory' })
    if (existsSync(folder)) continue
    await mkdir(join(folder, '..'), { recursive: true })
    await mkdir(folder)
    // Whoever the containers run as, as Kubernetes does; the umask must not matter.
    await chmod(folder, 0o777)
  }
}

async function expectHostPath(name: string, wanted: { path: string; type: string }): Promise<void> {
  if (wanted.type === 'DirectoryOrCreate') await mkdir(wanted.path, { recursive: true })
  const found = await stat(wanted.path).catch(() => undefined)
  const right =
    found && (wanted.type === '' || (wanted.type === 'File' ? found.isFile() : found.isDirectory()))
  if (!right)
    throw new Fault(
      'POD_VOLUME_MISSING',
      `volume ${name} needs ${wanted.type || 'something'} at ${wanted.path}`,
    )
}

async function endProcess(initPath: string, process: ProcessId): Promise<void> {
  await signalProcess(initPath, process, 'KILL')
  for (let attempt = 0; attempt < 200 && (await isAlive(process)); attempt++) await sleep(10)
}

async function readJson<T extends { formatVersion: 1 }>(path: string): Promise<T | undefined> {
  try {
    const value = JSON.parse(await readFile(path, 'utf8')) as T
    return value.formatVersion === 1 ? value : undefined
  } catch {
    return undefined
  }
}

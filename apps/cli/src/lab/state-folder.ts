import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { atomicWrite, Fault } from '@kiln/service'
import { clusterSocketFolder, isAlive, type ProcessIdentity } from '@kiln/vm'
import * as z from 'zod'

const Identity = z.object({ pid: z.number(), startTicks: z.number(), bootId: z.string() })

const LabMachine = z.object({
  name: z.string(),
  uuid: z.string(),
  bootMac: z.string(),
  clusterMac: z.string(),
  address: z.string(),
  /** Port of the host's loopback that leads to the machine's store member. */
  storePort: z.number(),
  /** Port of the host's loopback that leads to the machine's kiln-runtime; simulated machines have none. */
  runtimePort: z.number().optional(),
  /** Port of the member for its peers; embedded clusters only, others have a network for it. */
  peerPort: z.number().optional(),
})
export type LabMachine = z.output<typeof LabMachine>

/** `lab.json`: what a cluster of virtual machines is made of; written once by `kiln up`. */
export const LabRecord = z.object({
  formatVersion: z.literal(1),
  kind: z.enum(['virtual', 'embedded']),
  createdAt: z.string(),
  /** Release the machines were installed with. */
  version: z.string(),
  memoryMiB: z.number(),
  cpus: z.number(),
  accelerator: z.enum(['tcg', 'kvm']),
  bootPort: z.number(),
  bootTlsPort: z.number(),
  machines: z.array(LabMachine),
  /** False until the cluster was ready once: a cluster that never was is made anew. */
  complete: z.boolean(),
})
export type LabRecord = z.output<typeof LabRecord>

/** `processes.json`: who runs, so that a stale record is told from a running cluster. */
export const LabProcesses = z.object({ host: Identity, others: z.record(z.string(), Identity) })
export type LabProcesses = z.output<typeof LabProcesses>

/** Paths of one cluster's state folder. */
export type StateFolder = {
  root: string
  lab: string
  processes: string
  hostLog: string
  bootData: string
  bootLog: string
  assets: string
  releaseKey: string
  adminPki: string
  /** Store members of an embedded cluster. */
  embedded: string
  /** Short folder for sockets, see unix(7) on `sun_path`. */
  sockets: string
  control: string
  machine(name: string): { folder: string; disk: string; vars: string; serialLog: string; qemuLog: string }
}

/** `--state DIR`, or `kiln/default` below the user's state directory (XDG base directory specification). */
export function stateFolder(given: string | undefined, environment: NodeJS.ProcessEnv): StateFolder {
  if (given === '') throw new Fault('USAGE', '--state needs the path of a folder, not an empty text')
  const base = environment['XDG_STATE_HOME'] || join(environment['HOME'] || '/root', '.local/state')
  const root = resolve(given ?? join(base, 'kiln/default'))
  const sockets = clusterSocketFolder(root)
  return {
    root,
    lab: join(root, 'lab.json'),
    processes: join(root, 'processes.json'),
    hostLog: join(root, 'host.log'),
    bootData: join(root, 'boot'),
    bootLog: join(root, 'boot.log'),
    assets: join(root, 'boot/assets'),
    releaseKey: join(root, 'release.key'),
    adminPki: join(root, 'boot/pki'),
    embedded: join(root, 'embedded'),
    sockets,
    control: join(sockets, 'control'),
    machine: (name) => {
      const folder = join(root, 'machines', name)
      return {
        folder,
        disk: join(folder, 'disk.raw'),
        vars: join(folder, 'vars.fd'),
        serialLog: join(folder, 'serial.log'),
        qemuLog: join(folder, 'qemu.log'),
      }
    },
  }
}

/** Says that a folder is Kiln's: without it nothing there is overwritten or removed. */
const markerName = 'kiln-cluster.json'

/** Takes a folder that is new, empty, or Kiln's already; one with anything else is refused, and left as it is. */
export function createStateFolder(state: StateFolder): void {
  const refuse = (cause: unknown): Fault =>
    new Fault('STATE_FOLDER', `cannot create the state folder ${state.root}`, { cause })
  try {
    makeFolders(state.root)
  } catch (cause) {
    throw refuse(cause)
  }
  if (isStateFolder(state)) return
  const foreign = readdirSync(state.root).find((name) => name !== markerName && !isLockName(name))
  if (foreign !== undefined)
    throw new Fault('STATE_FOLDER', `${state.root} holds ${foreign}, which is not Kiln's`, {
      remedy: 'choose a new or an empty folder with --state',
    })
  try {
    writeFileSync(join(state.root, markerName), '{"formatVersion":1}\n')
  } catch (cause) {
    throw refuse(cause)
  }
}

/** Whether a folder is Kiln's: by its mark, or by the record of a cluster that an earlier version made. */
export function isStateFolder(state: StateFolder): boolean {
  if (existsSync(join(state.root, markerName))) return true
  try {
    return readLab(state) !== undefined
  } catch {
    return false
  }
}

/** What state-lock.ts writes. */
const isLockName = (name: string): boolean => /^lock(\.\d+(\.dead)?)?$/.test(name)

/** Removes everything of a cluster; the folder stays, with its mark and its lock, and with what is not Kiln's. */
export async function removeCluster(state: StateFolder): Promise<void> {
  const names = [
    'lab.json',
    'processes.json',
    'host.log',
    'boot.log',
    'boot',
    'release.key',
    'machines',
    'embedded',
    'snapshots',
  ]
  for (const name of names) await rm(join(state.root, name), { recursive: true, force: true })
  await rm(state.sockets, { recursive: true, force: true })
}

/** After `removeCluster`, by whoever holds the lock: the folder goes too, unless it holds what is not Kiln's; answers that. */
export async function removeStateFolder(state: StateFolder): Promise<string[]> {
  const foreign = readdirSync(state.root).filter((name) => name !== markerName && !isLockName(name))
  if (foreign.length === 0) await rm(state.root, { recursive: true, force: true })
  else await rm(join(state.root, markerName), { force: true })
  return foreign
}

/** Node's own way of making parents never ends where a file system takes no folder, as /proc. */
function makeFolders(path: string): void {
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) return
  if (dirname(path) !== path) makeFolders(dirname(path))
  mkdirSync(path, { mode: 0o700 })
}

export function readLab(state: StateFolder): LabRecord | undefined {
  return readRecord(state.lab, LabRecord)
}

export async function writeLab(state: StateFolder, record: LabRecord): Promise<void> {
  await atomicWrite(state.lab, JSON.stringify(record, null, 2) + '\n')
}

/** Cluster of this folder, or a fault that says how to get one. */
export function requireLab(state: StateFolder): LabRecord {
  const lab = readLab(state)
  if (lab) return lab
  throw new Fault('CLUSTER_UNKNOWN', `no cluster in ${state.root}`, { remedy: 'start one with: kiln up' })
}

export function requireMachine(lab: LabRecord, name: string): LabMachine {
  const found = lab.machines.find((machine) => machine.name === name)
  if (found) return found
  const names = lab.machines.map((machine) => machine.name).join(', ')
  throw new Fault('MACHINE_UNKNOWN', `no machine ${name}; there are ${names}`)
}

export function readProcesses(state: StateFolder): LabProcesses | undefined {
  return readRecord(state.processes, LabProcesses)
}

/** The process that owns the cluster, if it still is that process. */
export function runningHost(state: StateFolder): ProcessIdentity | undefined {
  const host = readProcesses(state)?.host
  return host && isAlive(host) ? host : undefined
}

/** What `up` finds: no cluster, one that was whole and is switched off, or one whose owner runs. */
export type Found = { lab: LabRecord; from: 'disks' | 'running' } | undefined

/** A cluster that never was whole counts as long as it runs: its `up` was killed, or left it with --keep. */
export function findCluster(state: StateFolder): Found {
  const lab = readLab(state)
  if (lab && runningHost(state)) return { lab, from: 'running' }
  return lab?.complete ? { lab, from: 'disks' } : undefined
}

/** Whether the cluster of a folder runs now. */
export function clusterRuns(given: string | undefined, environment: NodeJS.ProcessEnv): boolean {
  return runningHost(stateFolder(given, environment)) !== undefined
}

/** A cluster is resumed as it was made: another number of machines or another size needs another cluster. */
export function refuseOtherShape(
  given: string | undefined,
  environment: NodeJS.ProcessEnv,
  wanted: { nodes?: number; memoryMiB?: number },
): void {
  const state = stateFolder(given, environment)
  const lab = readLab(state)
  if (!lab?.complete) return
  const has: string[] = []
  if (wanted.nodes !== undefined && wanted.nodes !== lab.machines.length)
    has.push(`${lab.machines.length} machines`)
  if (wanted.memoryMiB !== undefined && wanted.memoryMiB !== lab.memoryMiB)
    has.push(`${lab.memoryMiB} MiB of memory for each`)
  if (has.length === 0) return
  throw new Fault('CLUSTER_RUNNING', `the cluster in ${state.root} has ${has.join(' and ')}`, {
    remedy:
      'leave the option out to resume it, remove it with kiln down, or choose another folder with --state',
  })
}

function readRecord<T>(path: string, schema: z.ZodType<T>): T | undefined {
  if (!existsSync(path)) return undefined
  try {
    return schema.parse(JSON.parse(readFileSync(path, 'utf8')))
  } catch (cause) {
    const why =
      cause instanceof z.ZodError
        ? cause.issues.slice(0, 3).map(({ path: at, message }) => `${at.join('.')}: ${message}`)
        : ['it is not JSON']
    throw new Fault('STATE_INVALID', `${path} cannot be read: ${why.join('; ')}`, {
      cause,
      remedy: 'remove the cluster with: kiln down, or, if this is none, choose another folder with --state',
    })
  }
}

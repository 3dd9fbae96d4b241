import { createHash, randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { type PodManifest, parsePod } from '@kiln/schemas'
import { atomicWrite, type Log } from '@kiln/service'
import type { PodNetworks } from './cni/network-choice.ts'
import { bear, lifeFolder, move, sweep } from './life/folders.ts'
import type { ContainerState } from './restart-policy.ts'

export type PodSource = 'file' | 'store' | 'api'

/** What is remembered of one container. Times are wall clock: they must mean something after a reboot. */
export type ContainerRecord = {
  state: ContainerState
  imageId?: string
  chainId?: string
}

/** A pod that is run once: when it is over its name is free, and its folder stays until it is collected. */
export type OncePod = { preparedAt: string; startedAt?: string; exitedAt?: string }

/** `life/<state>/<uid>/pod.json`: what must survive the daemon and the machine. */
export type PodRecord = {
  formatVersion: 1
  /** Names its folder. */
  uid: string
  /** An earlier daemon made its folder, `pods/<name>`. */
  byName?: true
  once?: OncePod
  source: PodSource
  manifest: PodManifest
  /** Of the manifest: another one is another pod. */
  hash: string
  /** The operator stopped it. */
  stopped: boolean
  bootId: string
  /** Starts of the sandbox; names its unit. */
  generation: number
  /** Unit of the sandbox that may be running. */
  unit?: string
  address?: string
  /** All addresses, `address` first; absent where an earlier daemon gave the one. */
  addresses?: string[]
  /** What the sandbox is connected to; absent where an earlier daemon used the built-in bridge. */
  networks?: PodNetworks
  /** The sandbox may be there without its networks: written before they are made, and gone when they are. */
  connecting?: true
  createdAt: string
  containers: Record<string, ContainerRecord>
}

export function manifestHash(manifest: PodManifest): string {
  return createHash('sha256').update(JSON.stringify(manifest)).digest('hex')
}

export function newRecord(manifest: PodManifest, source: PodSource, bootId: string): PodRecord {
  return {
    formatVersion: 1,
    uid: manifest.metadata.uid ?? randomUUID(),
    source,
    manifest,
    hash: manifestHash(manifest),
    stopped: false,
    bootId,
    generation: 0,
    createdAt: new Date().toISOString(),
    containers: {},
  }
}

/** Records on disk of pods that run or are to run, one folder a pod. */
export type Records = {
  load(): Promise<PodRecord[]>
  save(record: PodRecord): Promise<void>
  remove(record: PodRecord): Promise<void>
  /**
   * Forgets exits that no container waits for: of pods that are gone, of attempts that are over, and of another boot,
   * as what ended because the machine went down has not done its work, whatever its code.
   */
  removeStaleExits(records: PodRecord[], bootId: string): Promise<void>
}

/** Where a pod that runs has its state. */
export const recordFolder = (
  stateDir: string,
  record: Pick<PodRecord, 'uid' | 'byName' | 'manifest'>,
): string =>
  record.byName
    ? join(stateDir, 'pods', record.manifest.metadata.name)
    : lifeFolder(stateDir, 'run', record.uid)

export async function readRecord(folder: string): Promise<PodRecord> {
  const record = JSON.parse(await readFile(join(folder, 'pod.json'), 'utf8')) as PodRecord
  const { pod, problems } = parsePod(record.manifest)
  if (record.formatVersion !== 1 || !pod) throw new Error(problems[0]?.message ?? 'another format')
  // What a newer program adds to a manifest by itself makes it no other pod.
  return { ...record, manifest: pod, hash: manifestHash(pod) }
}

export const writeRecord = (folder: string, record: PodRecord): Promise<void> =>
  atomicWrite(join(folder, 'pod.json'), `${JSON.stringify(record)}\n`, { mode: 0o600 })

export function openRecords(stateDir: string, log: Log): Records {
  const exitsFolder = join(stateDir, 'exits')
  return {
    load: async () => {
      const records: PodRecord[] = []
      const readAll = async (folder: string, belongs: (record: PodRecord, id: string) => boolean) => {
        for (const id of (await readdir(folder).catch(() => [])).sort()) {
          try {
            const record = await readRecord(join(folder, id))
            if (!belongs(record, id)) throw new Error('another name')
            if (record.once?.exitedAt === undefined) records.push(record)
          } catch (error) {
            // A folder without a readable record never ran anything: the record is written first.
            log.warn({ pod: id, error }, 'pod record is unreadable and left alone')
          }
        }
      }
      await readAll(join(stateDir, 'pods'), (record, id) => {
        record.byName = true
        return record.manifest.metadata.name === id
      })
      await readAll(lifeFolder(stateDir, 'run'), ({ uid }, id) => uid === id)
      return records
    },
    save: async (record) => {
      const folder = recordFolder(stateDir, record)
      if (existsSync(folder)) await writeRecord(folder, record)
      else await bear(stateDir, 'run', record.uid, `${JSON.stringify(record)}\n`)
    },
    remove: async (record) => {
      if (record.byName) return await rm(recordFolder(stateDir, record), { recursive: true, force: true })
      await move(stateDir, record.uid, { from: 'run', to: 'garbage' })
      await sweep(stateDir, record.uid)
    },
    removeStaleExits: async (records, bootId) => {
      const awaited = new Set(
        records
          .filter((record) => record.bootId === bootId)
          .flatMap(({ manifest, containers }) =>
            Object.entries(containers)
              .filter(([, { state }]) => state.kind === 'running')
              .map(([name, { state }]) => `${manifest.metadata.name}.${name}.${state.attempt}.json`),
          ),
      )
      await mkdir(exitsFolder, { recursive: true })
      for (const name of await readdir(exitsFolder)) {
        if (!awaited.has(name)) await rm(join(exitsFolder, name), { force: true })
      }
    },
  }
}

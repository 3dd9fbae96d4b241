import { createHash, randomUUID } from 'node:crypto'
import { mkdir, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { type PodManifest, parsePod } from '@kiln/schemas'
import { atomicWrite, type Log } from '@kiln/service'
import type { PodNetworks } from './cni/network-choice.ts'
import type { ContainerState } from './restart-policy.ts'

export type PodSource = 'file' | 'store' | 'api'

/** What is remembered of one container. Times are wall clock: they must mean something after a reboot. */
export type ContainerRecord = {
  state: ContainerState
  imageId?: string
  chainId?: string
}

/** `pods/<name>/pod.json`: what must survive the daemon and the machine. */
export type PodRecord = {
  formatVersion: 1
  uid: string
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

/** Records on disk, one folder a pod. */
export type Records = {
  load(): Promise<PodRecord[]>
  save(record: PodRecord): Promise<void>
  remove(name: string): Promise<void>
  /**
   * Forgets exits that no container waits for: of pods that are gone, of attempts that are over, and of another boot,
   * as what ended because the machine went down has not done its work, whatever its code.
   */
  removeStaleExits(records: PodRecord[], bootId: string): Promise<void>
}

export function openRecords(stateDir: string, log: Log): Records {
  const podsFolder = join(stateDir, 'pods')
  const exitsFolder = join(stateDir, 'exits')
  const file = (name: string): string => join(podsFolder, name, 'pod.json')
  return {
    load: async () => {
      await mkdir(podsFolder, { recursive: true })
      const records: PodRecord[] = []
      for (const name of (await readdir(podsFolder)).sort()) {
        try {
          const record = JSON.parse(await readFile(file(name), 'utf8')) as PodRecord
          const { pod, problems } = parsePod(record.manifest)
          if (record.formatVersion !== 1 || !pod || pod.metadata.name !== name)
            throw new Error(problems[0]?.message ?? 'another format or name')
          // What a newer program adds to a manifest by itself makes it no other pod.
          records.push({ ...record, manifest: pod, hash: manifestHash(pod) })
        } catch (error) {
          // A folder without a readable record never ran anything: the record is written first.
          log.warn({ pod: name, error }, 'pod record is unreadable and left alone')
        }
      }
      return records
    },
    save: async (record) => {
      const { name } = record.manifest.metadata
      await mkdir(join(podsFolder, name), { recursive: true })
      await atomicWrite(file(name), `${JSON.stringify(record)}\n`, { mode: 0o600 })
    },
    remove: (name) => rm(join(podsFolder, name), { recursive: true, force: true }),
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

import { randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { StoredImage } from '@kiln/oci'
import { containersOf, type PodManifest, type PodStatus } from '@kiln/schemas'
import { describeError, Fault, type Log } from '@kiln/service'
import type { NewEvent } from '../events/event-log.ts'
import type { ImageUser } from '../image-service.ts'
import type { Images } from '../images.ts'
import type { Manager } from '../manager.ts'
import { newRecord, type PodRecord, readRecord, writeRecord } from '../pod-record.ts'
import { created } from '../restart-policy.ts'
import type { NetworkOptions } from './app-flags.ts'
import { withNetwork } from './app-options.ts'
import {
  bear,
  inState,
  isHeld,
  type LifeState,
  lifeFolder,
  lifeStates,
  makeLifeFolders,
  move,
  sweep,
} from './folders.ts'
import { entryOf, type PodEntry } from './pod-entry.ts'

export type LifePorts = {
  stateDir: string
  bootId: string
  images: Pick<Images, 'acquire'>
  treeOf(image: StoredImage): string
  listImages(): Promise<StoredImage[]>
  manager: Pick<Manager, 'records' | 'statuses' | 'runOnce' | 'expectFree'>
  /** Containers write to journald rather than to files. */
  journal: boolean
  now(): number
  tell(event: NewEvent): void
  log: Log
}

export type CollectRequest = { graceSeconds: number; expirePreparedSeconds: number; markOnly: boolean }

type Kept = { state: LifeState; record: PodRecord | undefined; createdMs: number }

/** Prepared pods and those that are over, by uuid: what the manager of running pods does not have. */
export class PodLife {
  readonly #ports: LifePorts
  readonly #kept = new Map<string, Kept>()
  /** Pods that are being made by this process: those in the same state without one were left by a crash. */
  readonly #held = new Set<string>()
  #collecting: Promise<unknown> = Promise.resolve()

  constructor(ports: LifePorts) {
    this.#ports = ports
  }

  /** Takes up what an earlier daemon left. Pods that run are the manager's. */
  async adopt(): Promise<void> {
    const { stateDir } = this.#ports
    await makeLifeFolders(stateDir)
    for (const state of lifeStates) {
      for (const uuid of await inState(stateDir, state)) {
        const folder = lifeFolder(stateDir, state, uuid)
        const record = await readRecord(folder).catch(() => undefined)
        if (state === 'run' && record?.once?.exitedAt === undefined) continue
        this.#kept.set(uuid, { state, record, createdMs: (await stat(folder)).ctimeMs })
      }
    }
  }

  /**
   * Fetches what a pod needs and makes its folder; answers its uuid. A pod whose preparation fails or is given up stays as
   * `aborted prepare` until it is collected.
   */
  async prepare(manifest: PodManifest, signal: AbortSignal): Promise<string> {
    const { stateDir, bootId, images, now } = this.#ports
    const record = newRecord(manifest, 'api', bootId)
    record.uid = this.#freeUuid(manifest.metadata.uid)
    record.once = { preparedAt: record.createdAt }
    const { uid } = record
    this.#held.add(uid)
    try {
      const kept: Kept = { state: 'embryo', record, createdMs: now() }
      this.#kept.set(uid, kept)
      await bear(stateDir, 'prepare', uid, `${JSON.stringify(record)}\n`)
      kept.state = 'prepare'
      for (const { name, image, imagePullPolicy } of containersOf(manifest)) {
        const stored = await unlessGivenUp(images.acquire(image, imagePullPolicy), signal)
        record.containers[name] = {
          state: created,
          imageId: stored.configDigest,
          chainId: stored.chainId,
        }
      }
      await writeRecord(lifeFolder(stateDir, 'prepare', uid), record)
      await this.#move(uid, 'prepared')
      const pod = manifest.metadata.name
      this.#ports.tell({ pod, uuid: uid, reason: 'Prepared', message: 'can be run' })
      return uid
    } finally {
      this.#held.delete(uid)
    }
  }

  /** Of several that run one prepared pod at once, one does and the others fail. What flags choose of its network replaces the manifest's. */
  async runPrepared(uuid: string, network: NetworkOptions = {}): Promise<void> {
    const { stateDir, bootId, manager, now } = this.#ports
    const kept = this.#kept.get(uuid)
    const record = kept?.record
    const taken = new Fault('POD_NOT_PREPARED', `pod ${uuid} is not prepared, or runs already`)
    if (kept?.state !== 'prepared' || !record || this.#held.has(uuid)) throw taken
    manager.expectFree(record.manifest.metadata.name)
    const running = {
      ...record,
      manifest: withNetwork(record.manifest, network),
      bootId,
      once: { ...record.once!, startedAt: new Date(now()).toISOString() },
    }
    this.#held.add(uuid)
    try {
      if (!(await move(stateDir, uuid, { from: 'prepared', to: 'run' }))) throw taken
      await writeRecord(lifeFolder(stateDir, 'run', uuid), running)
      manager.runOnce(running)
      this.#kept.delete(uuid)
    } catch (error) {
      // Nothing of it has run: it is prepared as before.
      if (await move(stateDir, uuid, { from: 'run', to: 'prepared' }))
        await writeRecord(lifeFolder(stateDir, 'prepared', uuid), record)
      throw error
    } finally {
      this.#held.delete(uuid)
    }
  }

  /** A pod that ran is over. */
  over(record: PodRecord): void {
    this.#kept.set(record.uid, { state: 'run', record, createdMs: Date.parse(record.createdAt) })
  }

  list(): PodEntry[] {
    const { manager } = this.#ports
    this.#letGoOfTaken()
    const statuses = new Map<string, PodStatus>(manager.statuses().map((status) => [status.uid, status]))
    const live = manager
      .records()
      .map((record) => entryOf(record.uid, record, 'running', statuses.get(record.uid)))
    const kept = [...this.#kept].map(([uuid, { state, record }]) =>
      entryOf(uuid, record, this.#wordOf(uuid, state)),
    )
    return [...live, ...kept].sort((a, b) => (a.createdAt < b.createdAt ? -1 : 1))
  }

  /** The pod of a name, a uuid, or the beginning of one that is unique. A pod that the daemon keeps comes before others of its name. */
  find(id: string): PodEntry {
    const entries = this.list()
    const supervised = entries.find((each) => each.name === id && each.supervised)
    const exact = supervised ?? entries.find(({ uuid }) => uuid === id)
    if (exact) return exact
    const found = entries.filter(({ uuid, name }) => name === id || uuid.startsWith(id))
    if (found.length === 1 && id !== '') return found[0]!
    if (found.length === 0 || id === '') throw new Fault('POD_NOT_FOUND', `there is no pod ${id}`)
    throw new Fault(
      'POD_AMBIGUOUS',
      `${id} may be ${found
        .slice(0, 4)
        .map(({ uuid }) => uuid)
        .join(', ')}`,
      {
        remedy: 'give more of the uuid',
      },
    )
  }

  manifest(uuid: string): PodManifest {
    const record =
      this.#kept.get(uuid)?.record ?? this.#ports.manager.records().find(({ uid }) => uid === uuid)
    if (!record) throw new Fault('POD_NOT_FOUND', `pod ${uuid} has no manifest`)
    return record.manifest
  }

  /** Where the containers of a pod write, whether it runs or is over. */
  logs(uuid: string): { journal: boolean; files: string[]; containers: string[] } {
    const state = this.#kept.get(uuid)?.state ?? 'run'
    const containers = containersOf(this.manifest(uuid)).map(({ name }) => name)
    const place = lifeFolder(this.#ports.stateDir, state, uuid)
    return {
      journal: this.#ports.journal,
      files: containers.map((name) => join(place, `c-${name}`, 'log')),
      containers,
    }
  }

  /** The layers of a container that has ended, the uppermost first. */
  async layers(uuid: string, container?: string): Promise<string[]> {
    const kept = this.#kept.get(uuid)
    const place = kept && lifeFolder(this.#ports.stateDir, kept.state, uuid)
    if (!place || !kept.record?.once?.exitedAt)
      throw new Fault('POD_NOT_EXITED', `pod ${uuid} has not ended`, {
        remedy: 'stop it, or wait until it ends',
      })
    const names = Object.keys(kept.record.containers)
    const name = container ?? (names.length === 1 ? names[0] : undefined)
    if (name === undefined) throw new Fault('POD_AMBIGUOUS', `name one of ${names.join(', ')} by --app`)
    const { chainId } = kept.record.containers[name] ?? {}
    const upper = join(place, `c-${name}`, 'layers/upper')
    const image = (await this.#ports.listImages()).find((each) => each.chainId === chainId)
    if (!image || !existsSync(upper))
      throw new Fault('POD_NOT_FOUND', `pod ${uuid} has no container ${name} that ran`)
    return [upper, this.#ports.treeOf(image)]
  }

  /** Removes a pod that does not run. */
  async remove(uuid: string): Promise<void> {
    this.#letGoOfTaken()
    const kept = this.#kept.get(uuid)
    if (!kept || this.#held.has(uuid))
      throw new Fault('POD_RUNS', `pod ${uuid} is in use`, { remedy: 'stop it first' })
    if (await this.#discard(uuid, kept)) return
    throw new Fault('POD_RUNS', `a process of pod ${uuid} still runs`, { remedy: 'stop it first' })
  }

  /**
   * Marks pods that are over, that were never finished or that were prepared too long ago, each by one rename; then removes those that were
   * marked longer ago than the grace. One at a time.
   */
  collect(request: CollectRequest): Promise<{ marked: string[]; removed: string[] }> {
    const next = this.#collecting.then(() => this.#collect(request))
    this.#collecting = next.catch(() => undefined)
    return next
  }

  async #collect(request: CollectRequest): Promise<{ marked: string[]; removed: string[] }> {
    const { stateDir, now } = this.#ports
    const marked: string[] = []
    const removed: string[] = []
    this.#letGoOfTaken()
    for (const [uuid, kept] of [...this.#kept]) {
      const to = this.#held.has(uuid) ? undefined : this.#mark(kept, request)
      if (!to || (await isHeld(lifeFolder(stateDir, kept.state, uuid)))) continue
      if (await this.#move(uuid, to)) marked.push(uuid)
    }
    for (const [uuid, kept] of request.markOnly ? [] : [...this.#kept]) {
      if (kept.state !== 'garbage' && kept.state !== 'exited-garbage') continue
      if (kept.state === 'exited-garbage') {
        // The rename that marked it set the time.
        const markedMs = await stat(lifeFolder(stateDir, kept.state, uuid)).then(
          ({ ctimeMs }) => ctimeMs,
          () => 0,
        )
        if (now() < markedMs + request.graceSeconds * 1000) continue
      }
      const gone = await this.#discard(uuid, kept).catch((error: unknown) => {
        this.#ports.log.warn({ pod: uuid, error: describeError(error) }, 'a pod cannot be removed')
        return false
      })
      if (gone) removed.push(uuid)
    }
    return { marked, removed }
  }

  /** Images of the pods that are prepared, or that can be exported. */
  imageUsers(): ImageUser[] {
    return [...this.#kept.values()].flatMap(({ record }) =>
      record
        ? {
            pod: record.manifest.metadata.name,
            references: containersOf(record.manifest).map(({ image }) => image),
            chains: Object.values(record.containers).flatMap(({ chainId }) => chainId ?? []),
          }
        : [],
    )
  }

  /** A pod of a file or the store may have the uid of one that is over, and then its folder as well. */
  #letGoOfTaken(): void {
    for (const { uid } of this.#ports.manager.records()) if (!this.#held.has(uid)) this.#kept.delete(uid)
  }

  #mark(kept: Kept, { expirePreparedSeconds }: CollectRequest): LifeState | undefined {
    if (kept.state === 'run') return 'exited-garbage'
    if (kept.state === 'embryo' || kept.state === 'prepare') return 'garbage'
    const expired = this.#ports.now() >= kept.createdMs + expirePreparedSeconds * 1000
    return kept.state === 'prepared' && expired ? 'garbage' : undefined
  }

  async #discard(uuid: string, kept: Kept): Promise<boolean> {
    const { stateDir } = this.#ports
    if (await isHeld(lifeFolder(stateDir, kept.state, uuid))) return false
    if (kept.state !== 'garbage' && !(await this.#move(uuid, 'garbage'))) return false
    await sweep(stateDir, uuid)
    this.#kept.delete(uuid)
    return true
  }

  async #move(uuid: string, to: LifeState): Promise<boolean> {
    const kept = this.#kept.get(uuid)
    if (!kept || !(await move(this.#ports.stateDir, uuid, { from: kept.state, to }))) return false
    kept.state = to
    return true
  }

  #freeUuid(wanted: string | undefined): string {
    if (wanted === undefined) return randomUUID()
    const taken = this.#kept.has(wanted) || this.#ports.manager.records().some(({ uid }) => uid === wanted)
    if (taken)
      throw new Fault('POD_UUID_TAKEN', `there is a pod with the uid ${wanted}`, {
        remedy: 'remove it first',
      })
    return wanted
  }

  #wordOf(uuid: string, state: LifeState): PodEntry['state'] {
    if (state === 'prepare') return this.#held.has(uuid) ? 'preparing' : 'aborted prepare'
    if (state === 'run') return 'exited'
    if (state === 'exited-garbage') return 'exited garbage'
    return state === 'garbage' ? 'deleting' : state
  }
}

/** The work itself may go on: an image that is fetched for nothing is collected with its like. */
function unlessGivenUp<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const giveUp = (): void => reject(new Fault('POD_PREPARE_ABORTED', 'the preparation was given up'))
    if (signal.aborted) giveUp()
    signal.addEventListener('abort', giveUp, { once: true })
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', giveUp))
  })
}

import { containersOf, type PodManifest, type PodStatus } from '@kiln/schemas'
import { describeError, Fault, type Log } from '@kiln/service'
import type { NetworkLeft } from './cni/pod-networks.ts'
import type { NewEvent } from './events/event-log.ts'
import type { ImageUser } from './image-service.ts'
import type { Network } from './network.ts'
import { freeAddress, type PodNetwork } from './network-plan.ts'
import { Pod, type PodPorts } from './pod.ts'
import type { PodProblem } from './pod-files.ts'
import { manifestHash, newRecord, type PodRecord, type PodSource } from './pod-record.ts'
import { portMapping, refusedStatus } from './pod-status.ts'
import { whyNotFromStore } from './store-policy.ts'

export type ManagerOptions = Omit<PodPorts, 'freeAddress' | 'changed' | 'removed' | 'over' | 'tell'> & {
  log: Log
  network: Network
  podNetwork: PodNetwork
  /** Why this machine runs no pods. */
  refusal: Fault | undefined
  storePodsMayUseHost: boolean
  changed(statuses: PodStatus[]): void
  tell?(event: NewEvent): void
  /** A pod that was run once is over: its record is no longer of those that run. */
  over?(record: PodRecord): void
}

type Wanted = { manifest: PodManifest; source: PodSource }

const from = (source: PodSource): string =>
  ({ file: 'a file', store: 'the store', api: 'the command line' })[source]

/** Files win over the store, and the store over what was asked for by hand. */
const sources: PodSource[] = ['file', 'store', 'api']

/**
 * The pods of this machine: compares what the three sources want with what there is, and lets each pod do the rest.
 */
export class Manager {
  readonly #options: ManagerOptions
  readonly #pods = new Map<string, Pod>()
  readonly #wanted: Record<PodSource, Map<string, PodManifest>> = {
    file: new Map(),
    store: new Map(),
    api: new Map(),
  }
  readonly #since = new Date().toISOString()
  readonly #problems: Record<'file' | 'store', PodProblem[]> = { file: [], store: [] }
  #mapping: Promise<void> = Promise.resolve()
  /** While the machine drains: how long pods get, and what ends it by itself. */
  #drain: { graceSeconds: number; cancel(): void } | undefined

  constructor(options: ManagerOptions) {
    this.#options = options
  }

  /** Takes up what an earlier daemon left, running or not. */
  async adopt(): Promise<void> {
    const records = await this.#options.records.load()
    await this.#options.records.removeStaleExits(records, this.#options.bootId)
    // Pods of an earlier boot have no sandbox that would be closed.
    await this.#collectNetworks(records.filter(({ bootId }) => bootId === this.#options.bootId))
    for (const record of records) {
      // Until its source speaks, what was wanted is wanted.
      this.#wanted[record.source].set(record.manifest.metadata.name, record.manifest)
      if (!this.#options.refusal) this.#add(record)
    }
  }

  /**
   * All pods of a source. While one of the files is broken nothing of them is removed: a slip of an editor must not stop a pod. What is
   * broken in the store has a name, and touches no other pod.
   */
  want(source: 'file' | 'store', pods: Map<string, PodManifest>, problems: PodProblem[] = []): void {
    this.#wanted[source] =
      source === 'file' && problems.length > 0 ? new Map([...this.#wanted[source], ...pods]) : pods
    this.#problems[source] = problems
    this.#reconcile()
  }

  /** Runs a pod that somebody asked for. The same manifest again starts it if it is stopped. */
  async run(manifest: PodManifest): Promise<PodStatus> {
    const { name } = manifest.metadata
    if (this.#options.refusal) throw this.#options.refusal
    const holder = sources.find((source) => this.#wanted[source].has(name))
    if (holder !== undefined && holder !== 'api')
      throw new Fault('POD_NAME_TAKEN', `pod ${name} comes from ${from(holder)}`)
    this.#wanted.api.set(name, manifest)
    const pod = this.#pods.get(name)
    if (pod && !pod.removing && pod.record.hash === manifestHash(manifest)) await pod.start()
    this.#reconcile()
    return this.#statusOf(name)
  }

  /** Fails if there is a pod of that name, or none can run here. */
  expectFree(name: string): void {
    if (this.#options.refusal) throw this.#options.refusal
    if (this.#pods.has(name) || sources.some((source) => this.#wanted[source].has(name)))
      throw new Fault('POD_NAME_TAKEN', `a pod ${name} runs already`, { remedy: 'stop or remove it first' })
  }

  /** Runs a pod that was prepared, until it is over. */
  runOnce(record: PodRecord): void {
    const { name } = record.manifest.metadata
    this.expectFree(name)
    this.#wanted.api.set(name, record.manifest)
    this.#add(record)
    this.#changed()
  }

  /** Records of the pods that run or are to run. */
  records(): PodRecord[] {
    return [...this.#pods.values()].map(({ record }) => record)
  }

  async stop(name: string, graceSeconds?: number): Promise<PodStatus> {
    await this.#get(name).stop(graceSeconds)
    return this.#statusOf(name)
  }

  async start(name: string): Promise<PodStatus> {
    await this.#get(name).start()
    return this.#statusOf(name)
  }

  remove(name: string, graceSeconds?: number): void {
    const pod = this.#get(name)
    if (pod.record.source !== 'api') {
      throw new Fault('POD_NAME_TAKEN', `pod ${name} comes from ${from(pod.record.source)}`, {
        remedy: 'remove it there, or stop it',
      })
    }
    this.#wanted.api.delete(name)
    pod.remove('somebody asked the runtime to remove it', graceSeconds)
  }

  /**
   * Gets the machine ready to go down: withdraws its services, waits until `withdrawn`, then ends the pods. Answers the
   * pods that still run; asking again tells how far it got. Nobody asking for `forSeconds` ends it, as `resume` does: the
   * machine did not go down.
   */
  async drain(at: {
    graceSeconds: number
    forSeconds: number
    withdrawn(): Promise<void>
  }): Promise<string[]> {
    this.#drain?.cancel()
    const cancel = this.#options.clock.after(at.forSeconds * 1000, () => {
      this.#options.log.warn({}, 'the machine did not go down: its pods run again')
      this.resume().catch((error: unknown) =>
        this.#options.log.error({ error: describeError(error) }, 'pods do not run again'),
      )
    })
    const drain = { graceSeconds: at.graceSeconds, cancel }
    this.#drain = drain
    this.#options.changed(this.statuses())
    await at.withdrawn()
    const pods = [...this.#pods.values()]
    if (this.#drain === drain) for (const pod of pods) pod.suspend(at.graceSeconds)
    return pods.filter((pod) => pod.running).map((pod) => pod.name)
  }

  /** The machine stays: services and pods come back. */
  async resume(): Promise<void> {
    this.#drain?.cancel()
    this.#drain = undefined
    await Promise.all([...this.#pods.values()].map((pod) => pod.resume()))
    this.#options.changed(this.statuses())
  }

  record(name: string): PodRecord {
    return this.#get(name).record
  }

  wake(name: string): void {
    this.#pods.get(name)?.wake()
  }

  statuses(): PodStatus[] {
    const all = [...this.#pods.values()].map((pod): PodStatus => {
      const status = pod.status()
      return this.#drain ? { ...status, ready: false, message: 'the machine is about to reboot' } : status
    })
    const known = new Set(all.map((status) => status.name))
    for (const { manifest, source } of this.#allWanted().values()) {
      const refused = known.has(manifest.metadata.name) ? undefined : this.#whyRefused({ manifest, source })
      if (!refused) continue
      const { code, message } = refused
      all.push(
        refusedStatus(manifest, {
          machineId: this.#options.machineId,
          source,
          code,
          message,
          since: this.#since,
        }),
      )
      known.add(manifest.metadata.name)
    }
    return [...all, ...this.#problemStatuses(known)].sort((a, b) => (a.name < b.name ? -1 : 1))
  }

  /** What images pods use: those they name, and those whose trees their containers run on. */
  imageUsers(): ImageUser[] {
    return [...this.#pods.values()].map(({ name, record }) => ({
      pod: name,
      references: containersOf(record.manifest).map(({ image }) => image),
      chains: Object.values(record.containers).flatMap(({ chainId }) => chainId ?? []),
    }))
  }

  /** Removes networks of sandboxes that no pod has; answers those that stay. */
  collectNetworks(): Promise<NetworkLeft[]> {
    return this.#collectNetworks([...this.#pods.values()].map(({ record }) => record))
  }

  async #collectNetworks(records: PodRecord[]): Promise<NetworkLeft[]> {
    try {
      return (await this.#options.cni?.collect(new Set(records.map(({ uid }) => uid)))) ?? []
    } catch (error) {
      this.#options.log.error({ error: describeError(error) }, 'networks of pods that are gone stay')
      return [{ pod: '-', network: '-', message: describeError(error) }]
    }
  }

  /** Lets go of all pods; they go on. */
  async leave(): Promise<void> {
    this.#drain?.cancel()
    await Promise.all([...this.#pods.values()].map((pod) => pod.leave()))
    await this.#mapping
  }

  #allWanted(): Map<string, Wanted> {
    const wanted = new Map<string, Wanted>()
    for (const source of sources) {
      for (const [name, manifest] of this.#wanted[source]) {
        if (!wanted.has(name)) wanted.set(name, { manifest, source })
      }
    }
    return wanted
  }

  #whyRefused({ manifest, source }: Wanted): { code: string; message: string } | undefined {
    const { refusal } = this.#options
    if (refusal) return { code: refusal.code, message: refusal.message }
    const reason =
      source === 'store' && !this.#options.storePodsMayUseHost ? whyNotFromStore(manifest) : undefined
    return reason === undefined ? undefined : { code: 'POD_NOT_ALLOWED', message: reason }
  }

  #reconcile(): void {
    const wanted = this.#allWanted()
    for (const [name, pod] of this.#pods) {
      const now = wanted.get(name)
      const same = now && !this.#whyRefused(now) && manifestHash(now.manifest) === pod.record.hash
      if (same) pod.record.source = now.source
      else if (!pod.removing)
        pod.remove(now ? `${from(now.source)} has it otherwise` : `${from(pod.record.source)} has it no more`)
    }
    for (const [name, entry] of wanted) {
      if (this.#pods.has(name) || this.#whyRefused(entry)) continue
      const record = newRecord(entry.manifest, entry.source, this.#options.bootId)
      const message = `${from(entry.source)} asks for it`
      this.#options.tell?.({ pod: name, uuid: record.uid, reason: 'Created', message })
      this.#add(record)
    }
    this.#changed()
  }

  #add(record: PodRecord): void {
    const pod = new Pod(record, {
      ...this.#options,
      tell: (event) => this.#options.tell?.(event),
      freeAddress: () =>
        freeAddress(
          this.#options.podNetwork,
          [...this.#pods.values()].flatMap((other) => other.record.address ?? []),
        ),
      changed: () => this.#changed(),
      removed: (gone) => {
        this.#pods.delete(gone.name)
        this.#reconcile()
      },
      over: (gone) => {
        this.#pods.delete(gone.name)
        if (this.#wanted.api.get(gone.name) === gone.record.manifest) this.#wanted.api.delete(gone.name)
        this.#options.over?.(gone.record)
        void gone.leave()
        this.#reconcile()
      },
    })
    this.#pods.set(pod.name, pod)
    if (this.#drain) pod.suspend(this.#drain.graceSeconds)
    pod.wake()
  }

  #changed(): void {
    const mappings = [...this.#pods.values()].flatMap((pod) => portMapping(pod.record) ?? [])
    if (!this.#options.refusal) {
      this.#mapping = this.#mapping
        .then(() => this.#options.network.mapPorts(mappings))
        .catch((error: unknown) =>
          this.#options.log.error({ error: describeError(error) }, 'ports are not mapped'),
        )
    }
    this.#options.changed(this.statuses())
  }

  #get(name: string): Pod {
    const pod = this.#pods.get(name)
    if (pod) return pod
    const wanted = this.#allWanted().get(name)
    const refused = wanted && this.#whyRefused(wanted)
    if (refused) throw new Fault(refused.code, refused.message)
    throw new Fault('POD_NOT_FOUND', `there is no pod ${name}`)
  }

  #statusOf(name: string): PodStatus {
    const status = this.statuses().find((each) => each.name === name)
    if (!status) throw new Fault('POD_NOT_FOUND', `there is no pod ${name}`)
    return status
  }

  #problemStatuses(known: Set<string>): PodStatus[] {
    return (['file', 'store'] as const)
      .flatMap((source) => this.#problems[source].map((problem) => ({ ...problem, source })))
      .filter(({ name }) => !known.has(name) && known.add(name))
      .map(({ name, message, source }) => ({
        formatVersion: 1 as const,
        name,
        machine: this.#options.machineId,
        uid: '',
        phase: 'Refused' as const,
        ready: false,
        code: 'POD_INVALID',
        message: message.slice(0, 4096),
        source,
        service: name,
        ports: [],
        containers: [],
        since: this.#since,
      }))
  }
}

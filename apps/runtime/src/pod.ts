import type { ProcessId } from '@kiln/linux'
import type { StoredImage } from '@kiln/oci'
import { containersOf, type PodContainer, type PodStatus } from '@kiln/schemas'
import { describeError, Fault, type Log } from '@kiln/service'
import { choosePodNetworks } from './cni/network-choice.ts'
import type { CniNetworks } from './cni/pod-networks.ts'
import type { EventReason, NewEvent } from './events/event-log.ts'
import type { Images } from './images.ts'
import { exitCodeOfPod } from './life/pod-entry.ts'
import { PodCares } from './pod-cares.ts'
import type { PodKernel } from './pod-kernel.ts'
import type { ContainerRecord, PodRecord, Records } from './pod-record.ts'
import { podStatus } from './pod-status.ts'
import {
  backOffMostMs,
  type ContainerEvent,
  type ContainerState,
  created,
  describeExit,
  type Exit,
  step,
  type WaitReason,
} from './restart-policy.ts'
import { initToRepeat, isOver, whoseTurn } from './start-order.ts'

/** Wall time, as it is compared with what other boots have written. */
export type WallClock = { now(): number; after(ms: number, fn: () => void): () => void }

export type PodPorts = {
  kernel: PodKernel
  images: Pick<Images, 'acquire'>
  records: Records
  clock: WallClock
  log: Log
  machineId: string
  machineAddress: string | undefined
  bootId: string
  /** Absent on a machine without CNI plug-ins, in tests. */
  cni?: CniNetworks | undefined
  /** An address of the pods' network that no pod has. */
  freeAddress(): string | undefined
  /** The first delay of the back-off; Kubernetes' by default. */
  backOffFirstMs?: number
  tell(event: NewEvent): void
  changed(): void
  removed(pod: Pod): void
  /** A pod that is run once is over: nothing of it runs, and its record says how it ended. */
  over(pod: Pod): void
}

type Goal = 'run' | 'stop' | 'remove'

const failureEvents: Record<WaitReason, EventReason> = {
  Creating: 'StartFailed',
  BackOff: 'StartFailed',
  StartFailed: 'StartFailed',
  ImageMissing: 'ImageFailed',
  NetworkFailed: 'NetworkFailed',
}

/** How often a running pod is looked at, should a notification be lost. */
const lookMs = 5_000

/**
 * One pod of this machine, from its record to its removal. It works in rounds: look at what there is, then do what is
 * due; anything that may have changed wakes it, and rounds never overlap. It may be left at any time and be taken up
 * from its record by another process.
 */
export class Pod {
  readonly record: PodRecord
  readonly #ports: PodPorts
  readonly #log: Log
  #goal: Goal
  #killAtMs: number | undefined
  /** The machine is about to go down: containers end, and what was wanted stays wanted. */
  #suspended = false
  /** Containers that were asked to end: once is enough. */
  readonly #asked = new Set<string>()
  #closed = false
  #left = false
  #round: Promise<void> | undefined
  #again = false
  #cancelTimer: (() => void) | undefined
  #sandbox: ProcessId | undefined
  readonly #pids = new Map<string, number>()
  readonly #cares: PodCares
  /** Images that are here or on their way, for the next attempt. */
  readonly #images = new Map<string, StoredImage | 'pulling'>()

  constructor(record: PodRecord, ports: PodPorts) {
    this.record = record
    this.#ports = ports
    this.#log = ports.log.child({ pod: record.manifest.metadata.name })
    this.#goal = record.stopped ? 'stop' : 'run'
    this.#cares = new PodCares(record, {
      ...ports,
      log: this.#log,
      changed: () => this.wake(),
      tell: (...event) => this.#tell(...event),
    })
    for (const { name } of containersOf(record.manifest)) record.containers[name] ??= { state: created }
    if (record.bootId !== ports.bootId) this.#enterNewBoot()
  }

  get name(): string {
    return this.record.manifest.metadata.name
  }

  get removing(): boolean {
    return this.#goal === 'remove'
  }

  status(): PodStatus {
    return podStatus(this.record, {
      machineId: this.#ports.machineId,
      machineAddress: this.#ports.machineAddress,
      pids: this.#pids,
      ready: this.#cares.ready,
    })
  }

  /** Containers that run now. */
  get running(): boolean {
    return this.#containers().some(([, { state }]) => state.kind === 'running')
  }

  /** Something may have changed. */
  wake(): void {
    if (this.#left) return
    this.#again = true
    if (this.#round) return
    this.#round = this.#work().finally(() => {
      this.#round = undefined
      if (this.#again) this.wake()
    })
  }

  async start(): Promise<void> {
    if (this.#goal === 'remove') return
    this.#goal = 'run'
    this.#killAtMs = undefined
    this.#asked.clear()
    this.record.stopped = false
    for (const { name } of containersOf(this.record.manifest)) this.#apply(name, { kind: 'reset' })
    await this.#save()
    this.wake()
  }

  async stop(graceSeconds?: number): Promise<void> {
    if (this.#goal === 'remove') return
    if (this.#goal !== 'stop') this.#tell('Stopping', 'somebody asked the runtime to stop it')
    this.#goal = 'stop'
    this.record.stopped = true
    if (graceSeconds !== undefined) this.#shortenGrace(graceSeconds)
    await this.#save()
    this.wake()
  }

  /** `why`: who wants it to go, for the events. */
  remove(why: string, graceSeconds?: number): void {
    this.#goal = 'remove'
    this.#tell('Stopping', why)
    if (graceSeconds !== undefined) this.#shortenGrace(graceSeconds)
    this.wake()
  }

  /**
   * Ends the containers before the machine goes down, within the pod's grace or a shorter one. It is no stop: the next boot, or
   * `resume`, starts them again, and what they had not finished counts as not finished.
   */
  suspend(graceSeconds: number): void {
    if (this.#suspended) return
    this.#suspended = true
    if (this.running) this.#tell('Stopping', 'the machine is about to reboot')
    if (this.running) this.#shortenGrace(Math.min(graceSeconds, this.#graceSeconds))
    this.wake()
  }

  /** The machine stays: the containers come back. */
  async resume(): Promise<void> {
    if (!this.#suspended) return
    this.#suspended = false
    this.#tell('Resumed', 'the machine did not reboot')
    if (this.#goal !== 'run') return
    this.#killAtMs = undefined
    for (const [name, { state }] of this.#containers())
      if (state.kind === 'waiting') this.#apply(name, { kind: 'reset' })
    await this.#save()
    this.wake()
  }

  /** Lets go of the pod without touching it: the daemon stops, the pod does not. */
  async leave(): Promise<void> {
    this.#left = true
    this.#cancelTimer?.()
    await this.#round
    this.#cares.close()
  }

  async #work(): Promise<void> {
    while (this.#again && !this.#left) {
      this.#again = false
      this.#cancelTimer?.()
      try {
        await this.#observe()
        await this.#failTogether()
        if (this.#goal === 'run' && !this.#suspended) await this.#runRound()
        else await this.#stopRound()
        if (this.#left || (await this.#endOnce())) return
      } catch (error) {
        this.#log.error({ error: describeError(error) }, 'a round of the pod failed')
      }
      this.#ports.changed()
    }
    if (this.#left || (this.#goal === 'remove' && this.#closed)) return
    this.#cancelTimer = this.#ports.clock.after(this.#nextLookMs(), () => this.wake())
  }

  /** As in rkt: of a pod that is run once and restarts nothing, the first container that fails ends the others. */
  async #failTogether(): Promise<void> {
    const { once, manifest } = this.record
    if (!once || this.#goal !== 'run' || manifest.spec.restartPolicy !== 'Never' || !this.running) return
    const failed = this.#containers().find(
      ([, { state }]) => state.kind === 'exited' && state.lastExit?.code !== 0,
    )
    if (!failed) return
    this.#tell('Stopping', `container ${failed[0]} failed`)
    this.#goal = 'stop'
    this.record.stopped = true
    await this.#save()
  }

  /** A pod that is run once and is over lets go of its name. True if it did. */
  async #endOnce(): Promise<boolean> {
    const { once } = this.record
    if (!once || this.#goal === 'remove' || this.#suspended) return false
    if (!isOver(this.record) || this.running || this.record.unit !== undefined) return false
    once.exitedAt = new Date(this.#ports.clock.now()).toISOString()
    await this.#save()
    this.#left = true
    this.#log.info({}, 'pod is over')
    const exitCode = exitCodeOfPod(this.record)
    this.#tell('Over', `is over with code ${exitCode}`, { exitCode, warning: exitCode !== 0 })
    this.#ports.over(this)
    return true
  }

  #nextLookMs(): number {
    const now = this.#ports.clock.now()
    let next = this.running ? lookMs : Number.POSITIVE_INFINITY
    if (this.#goal === 'run' && !this.#suspended) {
      for (const { name } of whoseTurn(this.record)) {
        const { state } = this.record.containers[name]!
        if (state.kind === 'waiting' && this.#images.get(name) !== 'pulling')
          next = Math.min(next, state.dueMs - now)
      }
    }
    next = Math.min(next, this.#cares.nextMs - now)
    if (this.#killAtMs !== undefined) next = Math.min(next, this.#killAtMs - now)
    // A wall clock that was set back must not keep a container waiting for years.
    return Math.max(10, Math.min(next, this.#goal === 'run' ? backOffMostMs : lookMs))
  }

  /** Brings the record to what the machine shows. */
  async #observe(): Promise<void> {
    const { kernel } = this.#ports
    // One that a daemon before this left without its networks is closed and opened again.
    this.#sandbox = this.record.connecting ? undefined : await kernel.findSandbox(this.record)
    for (const [name, { state }] of this.#containers()) {
      if (state.kind !== 'running') continue
      const seen = await kernel.observe(this.record, name, state.attempt)
      if (seen !== 'gone' && 'pid' in seen) {
        this.#pids.set(name, seen.pid)
        this.#cares.begin(name, state.startedAtMs)
        continue
      }
      // What is ended for a reboot has not done its work, whatever its code.
      const interrupted = this.#goal === 'run' && this.#asked.has(name)
      const exit: Exit = seen === 'gone' || interrupted ? this.#lostExit() : seen
      this.#pids.delete(name)
      this.#cares.end(name)
      this.#apply(name, { kind: 'exited', exit })
      this.#log.info(
        { container: name, code: exit.code, signal: exit.signal, oom: exit.oomKilled },
        'container ended',
      )
      this.#tellExit(name, exit)
      await this.#save()
      await kernel.forget(this.record, name, state.attempt)
    }
  }

  async #runRound(): Promise<void> {
    const now = this.#ports.clock.now()
    await this.#cares.endUnhealthy(now)
    if (!this.#sandbox) for (const { name } of initToRepeat(this.record)) this.#apply(name, { kind: 'reset' })
    const waiting = whoseTurn(this.record).filter(({ name }) => {
      const { state } = this.record.containers[name]!
      return state.kind === 'waiting' && (state.dueMs <= now || state.dueMs > now + backOffMostMs)
    })
    const ready: [PodContainer, StoredImage][] = []
    for (const container of waiting) {
      const image = this.#images.get(container.name)
      if (image === undefined) this.#pull(container)
      else if (image !== 'pulling') ready.push([container, image])
    }
    if (ready.length > 0 && (await this.#ensureSandbox(ready.map(([{ name }]) => name)))) {
      for (const [container, image] of ready) await this.#startContainer(container, image)
    }
    if (isOver(this.record) && this.record.unit !== undefined) await this.#close()
  }

  #pull(container: PodContainer): void {
    this.#images.set(container.name, 'pulling')
    const settle = async (): Promise<void> => {
      try {
        const image = await this.#ports.images.acquire(container.image, container.imagePullPolicy)
        this.#images.set(container.name, image)
        const record = this.record.containers[container.name]!
        this.record.containers[container.name] = {
          ...record,
          imageId: image.configDigest,
          chainId: image.chainId,
        }
        this.#tell('ImagePulled', `image ${container.image} is there`, { container: container.name })
      } catch (error) {
        this.#images.delete(container.name)
        await this.#fail(container.name, 'ImageMissing', error)
      }
      this.wake()
    }
    settle().catch((error: unknown) =>
      this.#log.error({ error: describeError(error) }, 'pulling an image failed'),
    )
  }

  /** Opens what the containers share; a sandbox that died takes what ran in it along. */
  async #ensureSandbox(waiting: string[]): Promise<boolean> {
    if (this.#sandbox) return true
    const { kernel } = this.#ports
    try {
      if (this.record.unit !== undefined) {
        await this.#endAll()
        await this.#close()
      }
      this.record.generation++
      this.record.unit = `kiln-pod-${this.name}-${this.record.uid.slice(0, 8)}-${this.record.generation}`
      const configured = (await this.#ports.cni?.configured())?.networks
      const networks = choosePodNetworks(this.record.manifest, configured?.has('default') ?? false)
      this.record.networks = networks
      if (networks.builtIn && this.record.address === undefined) {
        const address = this.#ports.freeAddress()
        if (address === undefined)
          throw new Fault('POD_NETWORK_FULL', 'the pods\u2019 network has no free address')
        this.record.address = address
      }
      this.#closed = false
      this.record.connecting = true
      await this.#save()
      const { addresses, ...sandbox } = await kernel.openSandbox(this.record)
      delete this.record.connecting
      if (addresses?.[0] !== undefined) {
        this.record.addresses = addresses
        this.record.address = addresses[0]
      }
      await this.#save()
      this.#sandbox = sandbox
      this.#log.info({ address: this.record.address, unit: this.record.unit }, 'sandbox opened')
      const reached = this.record.addresses ?? (this.record.address ? [this.record.address] : [])
      this.#tell(
        'NetworkAttached',
        reached.length > 0 ? `has ${reached.join(' ')}` : 'has no address of its own',
      )
      return true
    } catch (error) {
      const network = error instanceof Fault && /^(POD_NETWORK|CNI)_/.test(error.code)
      await kernel
        .close(this.record)
        .catch((failure: unknown) =>
          this.#log.warn({ error: describeError(failure) }, 'a sandbox that failed cannot be cleared'),
        )
      this.#sandbox = undefined
      for (const name of waiting) await this.#fail(name, network ? 'NetworkFailed' : 'StartFailed', error)
      return false
    }
  }

  async #startContainer(container: PodContainer, image: StoredImage): Promise<void> {
    const { name } = container
    const { kernel, clock } = this.#ports
    this.#images.delete(name)
    this.#asked.delete(name)
    this.#cares.expect(name)
    this.#apply(name, { kind: 'attempted' })
    const { attempt } = this.record.containers[name]!.state
    // Written before the start: after a crash in between, the running file tells whether it happened.
    this.#apply(name, { kind: 'started', atMs: clock.now() })
    await this.#save()
    try {
      const sandbox = this.#sandbox!
      const { startedAtMs } = await kernel.startContainer({
        record: this.record,
        container,
        attempt,
        image,
        sandbox,
      })
      this.#apply(name, { kind: 'started', atMs: startedAtMs })
      this.#log.info({ container: name, attempt, image: image.digest }, 'container started')
      this.#tell('Started', `started, attempt ${attempt}`, { container: name })
      await this.#save()
      await this.#observe()
    } catch (error) {
      await this.#fail(name, 'StartFailed', error)
      await kernel.forget(this.record, name, attempt)
    }
  }

  async #stopRound(): Promise<void> {
    const { kernel, clock } = this.#ports
    const running = this.#containers().filter(([, { state }]) => state.kind === 'running')
    if (running.length > 0 && this.#killAtMs === undefined) {
      this.#killAtMs = clock.now() + this.#graceSeconds * 1000
    }
    const kill = this.#killAtMs !== undefined && clock.now() >= this.#killAtMs
    for (const [name] of running) {
      if (!kill && this.#asked.has(name)) continue
      this.#asked.add(name)
      if (kill) await kernel.signal(this.record, name, 'KILL')
      else await this.#cares.askToEnd(name, this.#killAtMs! - clock.now())
    }
    if (kill) this.#killAtMs = clock.now() + 1000
    if (running.length > 0) return
    this.#killAtMs = undefined
    if (!this.#closed) await this.#close()
    // It may have been started again meanwhile.
    if (this.#goal === 'run') return
    if (this.#goal === 'stop') {
      for (const [name, entry] of this.#containers()) {
        const { attempt, restarts, lastExit } = entry.state
        const state: ContainerState = {
          kind: 'exited',
          attempt,
          restarts,
          failures: 0,
          ...(lastExit ? { lastExit } : {}),
        }
        this.record.containers[name] = { ...entry, state }
      }
      await this.#save()
      return
    }
    await this.#ports.records.remove(this.record)
    this.#left = true
    this.#log.info({}, 'pod removed')
    this.#tell('Removed', 'is gone with its files')
    this.#ports.removed(this)
  }

  async #endAll(): Promise<void> {
    for (const [name, { state }] of this.#containers()) {
      if (state.kind !== 'running') continue
      await this.#ports.kernel.signal(this.record, name, 'KILL')
      this.#cares.end(name)
      this.#apply(name, { kind: 'exited', exit: this.#lostExit() })
    }
  }

  async #close(): Promise<void> {
    await this.#ports.kernel.close(this.record)
    this.#forgetSandbox()
    this.#sandbox = undefined
    this.#closed = true
    await this.#save()
  }

  /** The machine went down: nothing runs any more, and back-off of the last boot means nothing. */
  #enterNewBoot(): void {
    for (const [name, { state }] of this.#containers()) {
      if (state.kind === 'running') this.#apply(name, { kind: 'exited', exit: this.#lostExit() })
      if (this.record.containers[name]!.state.kind === 'waiting') this.#apply(name, { kind: 'reset' })
    }
    this.record.bootId = this.#ports.bootId
    this.#forgetSandbox()
  }

  #forgetSandbox(): void {
    for (const field of ['unit', 'address', 'addresses', 'networks', 'connecting'] as const)
      delete this.record[field]
  }

  async #fail(name: string, reason: WaitReason, error: unknown): Promise<void> {
    const code = error instanceof Fault ? error.code : 'UNEXPECTED'
    const message = describeError(error).slice(0, 2000)
    this.#apply(name, { kind: 'failed', waiting: { reason, code, message } })
    this.#log.warn({ container: name, reason, error: message }, 'container cannot start')
    const { state } = this.record.containers[name]!
    const delayMs = state.kind === 'waiting' ? Math.max(0, state.dueMs - this.#ports.clock.now()) : undefined
    this.#tell(failureEvents[reason], message, {
      container: name,
      warning: true,
      fault: code,
      ...(delayMs === undefined ? {} : { delayMs }),
    })
    await this.#save()
  }

  #tell(reason: EventReason, message: string, more: Partial<NewEvent> = {}): void {
    this.#ports.tell({ pod: this.name, uuid: this.record.uid, reason, message, ...more })
  }

  /** How a container ended and, if it is started again, when. */
  #tellExit(name: string, exit: Exit): void {
    const { code: exitCode, signal, oomKilled } = exit
    this.#tell(oomKilled ? 'OOMKilled' : 'Exited', describeExit(exit), {
      container: name,
      warning: exitCode !== 0,
      exitCode,
      ...(signal > 0 ? { signal } : {}),
    })
    const { state } = this.record.containers[name]!
    if (state.kind !== 'waiting' || this.#goal !== 'run' || this.#suspended) return
    const delayMs = Math.max(0, state.dueMs - this.#ports.clock.now())
    this.#tell('BackOff', `starts again ${delayMs === 0 ? 'at once' : `in ${Math.ceil(delayMs / 1000)} s`}`, {
      container: name,
      delayMs,
      warning: delayMs > 0,
    })
  }

  get #graceSeconds(): number {
    return this.record.manifest.spec.terminationGracePeriodSeconds
  }

  #shortenGrace(graceSeconds: number): void {
    this.#killAtMs = Math.min(
      this.#killAtMs ?? Number.POSITIVE_INFINITY,
      this.#ports.clock.now() + graceSeconds * 1000,
    )
  }

  #apply(name: string, event: ContainerEvent): void {
    const entry = this.record.containers[name]!
    const { initContainers, restartPolicy } = this.record.manifest.spec
    const isInit = initContainers.some((container) => container.name === name)
    const wanted = isInit && restartPolicy === 'Always' ? 'OnFailure' : restartPolicy
    const policy = this.#goal === 'run' ? wanted : 'Never'
    const state = step(entry.state, event, policy, this.#ports.clock.now(), this.#ports.backOffFirstMs)
    this.record.containers[name] = { ...entry, state }
  }

  #containers(): [string, ContainerRecord][] {
    return containersOf(this.record.manifest).map(({ name }) => [name, this.record.containers[name]!])
  }

  #lostExit(): Exit {
    return { code: 255, signal: 0, oomKilled: false, lost: true, finishedAtMs: this.#ports.clock.now() }
  }

  async #save(): Promise<void> {
    await this.#ports.records.save(this.record)
  }
}

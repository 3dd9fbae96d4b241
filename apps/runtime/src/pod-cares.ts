import { containersOf } from '@kiln/schemas'
import { describeError, type Log } from '@kiln/service'
import { runAction } from './container-actions.ts'
import { ContainerCare } from './container-care.ts'
import type { EventReason, NewEvent } from './events/event-log.ts'
import type { WallClock } from './pod.ts'
import type { PodKernel } from './pod-kernel.ts'
import type { PodRecord } from './pod-record.ts'

export type CaresPorts = {
  kernel: Pick<PodKernel, 'exec' | 'signal'>
  clock: WallClock
  machineAddress: string | undefined
  log: Log
  tell(reason: EventReason, message: string, more?: Partial<NewEvent>): void
  /** The health of a container may be another now. */
  changed(): void
}

/** Hooks and probes of the containers of one pod that run. */
export class PodCares {
  readonly #record: PodRecord
  readonly #ports: CaresPorts
  readonly #cares = new Map<string, ContainerCare>()
  /** Containers that this process started itself. */
  readonly #expected = new Set<string>()
  /** Containers that are ended as their probes or hooks failed, and when they are killed. */
  readonly #killAtMs = new Map<string, number>()

  constructor(record: PodRecord, ports: CaresPorts) {
    this.#record = record
    this.#ports = ports
  }

  /** Names of the containers that are ready. */
  get ready(): Set<string> {
    return new Set([...this.#cares].flatMap(([name, care]) => (care.ready ? [name] : [])))
  }

  /** When `endUnhealthy` has something to do. */
  get nextMs(): number {
    return Math.min(...this.#killAtMs.values(), Number.POSITIVE_INFINITY)
  }

  /** The container is about to be started by this process. */
  expect(name: string): void {
    this.#expected.add(name)
  }

  /** The container was seen to run. */
  begin(name: string, startedAtMs: number): void {
    if (this.#cares.has(name)) return
    const { manifest } = this.#record
    const container = containersOf(manifest).find((each) => each.name === name)!
    const { kernel, clock, machineAddress, log, tell, changed } = this.#ports
    const address = manifest.spec.hostNetwork ? (machineAddress ?? '127.0.0.1') : this.#record.address
    const target = {
      container,
      address,
      exec: (command: readonly string[], timeoutMs: number) =>
        kernel.exec(this.#record, name, command, timeoutMs),
    }
    const care = new ContainerCare(container, {
      clock,
      startedAtMs,
      adopted: !this.#expected.delete(name),
      act: (action, timeoutMs) => runAction(action, target, timeoutMs),
      changed,
      tell: (reason, message) =>
        tell(reason, message, { container: name, warning: reason !== 'ProbePassed' }),
      log: log.child({ container: name }),
    })
    this.#cares.set(name, care)
  }

  end(name: string): void {
    this.#cares.get(name)?.close()
    this.#cares.delete(name)
    this.#killAtMs.delete(name)
  }

  close(): void {
    for (const care of this.#cares.values()) care.close()
  }

  /** Containers whose probes or hooks failed end within their grace; their restart is the policy's. */
  async endUnhealthy(now: number): Promise<void> {
    const { kernel, log, tell } = this.#ports
    for (const [name, { failure }] of this.#cares) {
      if (!failure) continue
      const killAtMs = this.#killAtMs.get(name)
      if (killAtMs === undefined) {
        const seconds = failure.graceSeconds ?? this.#record.manifest.spec.terminationGracePeriodSeconds
        this.#killAtMs.set(name, now + seconds * 1000)
        log.warn({ container: name, error: failure.message }, 'container is unhealthy and ends')
        tell('Unhealthy', `ends as its ${failure.message}`, { container: name, warning: true })
        await this.askToEnd(name, seconds * 1000)
      } else if (now >= killAtMs) {
        this.#killAtMs.set(name, now + 1000)
        await kernel.signal(this.#record, name, 'KILL')
      }
    }
  }

  /** Runs the container's hook, if it has one, and then asks it to end, unless it has ended meanwhile. */
  async askToEnd(name: string, graceMs: number): Promise<void> {
    const { attempt } = this.#record.containers[name]!.state
    const ask = async (): Promise<void> => {
      const { state } = this.#record.containers[name]!
      if (state.kind === 'running' && state.attempt === attempt)
        await this.#ports.kernel.signal(this.#record, name, 'TERM')
    }
    const hook = this.#cares.get(name)?.beforeStop(graceMs)
    if (!hook) return await ask()
    hook.then(ask).catch((error: unknown) => {
      this.#ports.log.warn(
        { container: name, error: describeError(error) },
        'container cannot be asked to end',
      )
    })
  }
}

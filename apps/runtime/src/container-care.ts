import type { PodAction, PodContainer } from '@kiln/schemas'
import { describeError, type Log } from '@kiln/service'
import { Prober, type ProberPorts } from './prober.ts'

/** A hook that never ends must not keep a container from ever being ready unnoticed. */
const hookTimeoutMs = 600_000

/** What probes need, without `note`, which goes to the log. The hook of a container that was adopted ran before. */
export type CarePorts = Omit<ProberPorts, 'note'> & {
  log: Log
  tell(reason: 'ProbeFailed' | 'ProbePassed', message: string): void
}

/** What one run of a container gets beside being supervised: its hook after the start, its probes, its hook before the end. */
export class ContainerCare {
  readonly #container: PodContainer
  readonly #ports: CarePorts
  #prober: Prober | undefined
  #failure: { message: string; graceSeconds?: number } | undefined
  #closed = false
  #stopping = false

  constructor(container: PodContainer, ports: CarePorts) {
    this.#container = container
    this.#ports = ports
    const hook = container.lifecycle?.postStart
    if (ports.adopted || !hook) this.#probe()
    else void this.#afterStart(hook)
  }

  get ready(): boolean {
    return this.failure === undefined && (this.#prober?.ready ?? false)
  }

  /** Why the container must be ended, and within which grace if not the pod's. */
  get failure(): { message: string; graceSeconds?: number } | undefined {
    const probed = this.#prober?.failure
    return this.#failure ?? (probed && { ...probed, message: `${probed.kind} probe: ${probed.message}` })
  }

  /** Runs the hook before the end, if there is one and it has not run, for as long as the grace allows; its failure keeps nothing from ending. */
  beforeStop(timeoutMs: number): Promise<void> | undefined {
    const hook = this.#stopping ? undefined : this.#container.lifecycle?.preStop
    this.#stopping = true
    this.close()
    return (
      hook &&
      this.#ports.act(hook, timeoutMs).catch((error: unknown) => {
        this.#ports.log.warn({ error: describeError(error) }, 'the hook before the stop failed')
      })
    )
  }

  close(): void {
    this.#closed = true
    this.#prober?.close()
  }

  async #afterStart(hook: PodAction): Promise<void> {
    const failed = await this.#ports.act(hook, hookTimeoutMs).then(
      () => undefined,
      (error: unknown) => describeError(error).slice(0, 1000),
    )
    if (this.#closed) return
    if (failed === undefined) this.#probe()
    else {
      this.#failure = { message: `hook after the start: ${failed}` }
      this.#ports.log.warn({ error: failed }, 'the hook after the start failed')
    }
    this.#ports.changed()
  }

  #probe(): void {
    const { log, tell, ...ports } = this.#ports
    const note = (kind: string, passes: boolean, message: string | undefined): void => {
      if (passes) log.info({ probe: kind }, 'probe passes')
      else log.warn({ probe: kind, error: message }, 'probe fails')
      tell(passes ? 'ProbePassed' : 'ProbeFailed', `${kind} probe ${passes ? 'passes' : `fails: ${message}`}`)
    }
    this.#prober = new Prober(this.#container, { ...ports, note })
  }
}

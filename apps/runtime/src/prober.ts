import type { PodAction, PodContainer, Probe } from '@kiln/schemas'
import { describeError } from '@kiln/service'
import type { WallClock } from './pod.ts'

export type ProbeKind = 'startup' | 'liveness' | 'readiness'

export type ProberPorts = {
  clock: WallClock
  /** When the container was started. */
  startedAtMs: number
  /** It ran before this process did: it counts as started and ready until it fails. */
  adopted: boolean
  act(action: PodAction, timeoutMs: number): Promise<void>
  changed(): void
  /** Told of each probe that turned out otherwise than before. */
  note(kind: ProbeKind, passes: boolean, message: string | undefined): void
}

/** Looks at one run of a container by its probes, from its start until it is closed. */
export class Prober {
  /** The startup probe, if there is one, has passed. */
  started: boolean
  /** Why the container must be ended, once it must. */
  failure: { kind: ProbeKind; message: string; graceSeconds?: number } | undefined
  readonly #container: PodContainer
  readonly #ports: ProberPorts
  readonly #verdicts = new Map<ProbeKind, Verdict>()
  readonly #cancels = new Map<ProbeKind, () => void>()
  #closed = false

  constructor(container: PodContainer, ports: ProberPorts) {
    this.#container = container
    this.#ports = ports
    this.started = ports.adopted || container.startupProbe === undefined
    this.#verdicts.set('startup', { passes: false, streak: 0 })
    this.#verdicts.set('liveness', { passes: true, streak: 0 })
    this.#verdicts.set('readiness', { passes: ports.adopted || !container.readinessProbe, streak: 0 })
    if (this.started) this.#begin('liveness', 'readiness')
    else this.#begin('startup')
  }

  get ready(): boolean {
    return this.started && this.failure === undefined && this.#verdicts.get('readiness')!.passes
  }

  close(): void {
    this.#closed = true
    for (const cancel of this.#cancels.values()) cancel()
  }

  #begin(...kinds: ProbeKind[]): void {
    const { clock, startedAtMs } = this.#ports
    for (const kind of kinds) {
      const probe = this.#probe(kind)
      if (probe) this.#after(kind, startedAtMs + probe.initialDelaySeconds * 1000 - clock.now())
    }
  }

  #after(kind: ProbeKind, ms: number): void {
    this.#cancels.set(
      kind,
      this.#ports.clock.after(Math.max(0, ms), () => void this.#look(kind)),
    )
  }

  async #look(kind: ProbeKind): Promise<void> {
    const probe = this.#probe(kind)!
    const message = await this.#ports.act(probe, probe.timeoutSeconds * 1000).then(
      () => undefined,
      (error: unknown) => describeError(error).slice(0, 1000),
    )
    if (this.#closed || this.failure) return
    const before = this.#verdicts.get(kind)!
    const verdict = judge(before, probe, message === undefined)
    this.#verdicts.set(kind, verdict)
    const isOver = kind === 'startup' && verdict.passes
    const fails = kind !== 'readiness' && message !== undefined && isSettled(verdict, probe)
    if (verdict.passes !== before.passes || fails) {
      this.#ports.note(kind, verdict.passes, message)
      if (isOver) this.started = true
      if (fails) this.failure = { kind, message, graceSeconds: probe.terminationGracePeriodSeconds }
      this.#ports.changed()
    }
    if (isOver) this.#begin('liveness', 'readiness')
    else if (!this.failure) this.#after(kind, probe.periodSeconds * 1000)
  }

  #probe(kind: ProbeKind): Probe | undefined {
    return this.#container[`${kind}Probe`]
  }
}

/** How a probe stands: what counts, and how many looks in a row said so or, if they differ from it, otherwise. */
export type Verdict = { passes: boolean; streak: number }

/** The verdict after one more look: it turns once enough looks in a row say so. */
export function judge(
  { passes, streak }: Verdict,
  { successThreshold, failureThreshold }: Pick<Probe, 'successThreshold' | 'failureThreshold'>,
  passed: boolean,
): Verdict {
  const inRow = Math.sign(streak) === (passed ? 1 : -1) ? Math.abs(streak) + 1 : 1
  const turns = inRow >= (passed ? successThreshold : failureThreshold)
  return { passes: turns ? passed : passes, streak: passed ? inRow : -inRow }
}

const isSettled = ({ streak }: Verdict, { failureThreshold }: Probe): boolean => -streak >= failureThreshold

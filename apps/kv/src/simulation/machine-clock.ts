import type { Clock } from '@kiln/service'
import type { VirtualClock } from '@kiln/simulation'

/**
 * The clock of one machine: its timers may be slow or fast, its time may jump ahead, and while its process is stopped (as by SIGSTOP, a
 * long garbage collection or a host that is busy with others) nothing of it runs though time passes.
 */
export class MachineClock {
  #clock: VirtualClock
  #aheadMs = 0
  #awakeAt = 0

  constructor(clock: VirtualClock) {
    this.#clock = clock
  }

  /** For one run of the member: timers of a machine that lost power do not fire. */
  start(isAlive: () => boolean, pace: number): Clock {
    return {
      now: () => this.#clock.now() + this.#aheadMs,
      after: (ms, fn) => {
        let cancelled = false
        this.#clock.after(ms * pace, () =>
          this.whenAwake(() => {
            if (!cancelled && isAlive()) fn()
          }),
        )
        return () => {
          cancelled = true
        }
      },
    }
  }

  /** Calls it now, or when the process goes on. */
  whenAwake(fn: () => void): void {
    const waitMs = this.#awakeAt - this.#clock.now()
    if (waitMs <= 0) fn()
    else this.#clock.after(waitMs, () => this.whenAwake(fn))
  }

  pause(ms: number): void {
    this.#awakeAt = Math.max(this.#awakeAt, this.#clock.now() + ms)
  }

  resume(): void {
    this.#awakeAt = 0
  }

  jump(ms: number): void {
    this.#aheadMs += ms
  }
}

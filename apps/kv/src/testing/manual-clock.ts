import type { Clock } from '@kiln/service'

/** A clock that stands still until it is told to move. */
export type ManualClock = Clock & { advance(ms: number): Promise<void> }

export function manualClock(): ManualClock {
  let now = 0
  let timers: { at: number; fn: () => void }[] = []
  /** Lets promises and immediates that a timer set off run. */
  const settle = async (): Promise<void> => {
    for (let turn = 0; turn < 3; turn++) await new Promise((resume) => setImmediate(resume))
  }
  return {
    now: () => now,
    after: (ms, fn) => {
      const timer = { at: now + ms, fn }
      timers.push(timer)
      return () => {
        timers = timers.filter((each) => each !== timer)
      }
    },
    advance: async (ms) => {
      const end = now + ms
      await settle()
      for (;;) {
        const next = timers.filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0]
        if (!next) break
        timers = timers.filter((each) => each !== next)
        now = Math.max(now, next.at)
        next.fn()
        await settle()
      }
      now = end
    },
  }
}

/** Time as an argument: real in daemons, simulated in tests. `now` and `after` are in milliseconds. */
export type Clock = {
  /** Milliseconds of a clock that never goes back. */
  now(): number
  /** Calls `fn` once after `ms`; the returned function cancels. */
  after(ms: number, fn: () => void): () => void
}

export const systemClock: Clock = {
  now: () => performance.now(),
  after: (ms, fn) => {
    const timer = setTimeout(fn, ms)
    return () => clearTimeout(timer)
  },
}

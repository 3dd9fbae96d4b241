import type { LeaseBook } from './lease-book.ts'

/**
 * When leases end, as the leader counts it. Nobody else counts: a new leader starts every lease anew with what
 * the book says is left, so that a TTL is a minimum (kv.md section 5). Time comes as an argument, in
 * milliseconds of a clock that never goes back.
 */
export class LeaseClock {
  #deadlines = new Map<bigint, number>()
  #isCounting = false

  get isCounting(): boolean {
    return this.#isCounting
  }

  /** This member now leads: all leases run from `now`, plus the time an election may have taken. */
  start(book: LeaseBook, now: number, extraMs: number): void {
    this.#deadlines.clear()
    this.#isCounting = true
    for (const lease of book.list()) {
      this.#deadlines.set(lease.id, now + (lease.remainingTtl || lease.ttl) * 1000 + extraMs)
    }
  }

  stop(): void {
    this.#isCounting = false
    this.#deadlines.clear()
  }

  /** A granted or kept alive lease runs its whole TTL from `now`. */
  renew(id: bigint, ttl: number, now: number): void {
    if (this.#isCounting) this.#deadlines.set(id, now + ttl * 1000)
  }

  forget(id: bigint): void {
    this.#deadlines.delete(id)
  }

  /** Seconds left, rounded down, below 0 when it is over; undefined for a lease not counted. */
  remaining(id: bigint, now: number): number | undefined {
    const deadline = this.#deadlines.get(id)
    return deadline === undefined ? undefined : Math.floor((deadline - now) / 1000)
  }

  isExpired(id: bigint, now: number): boolean {
    const deadline = this.#deadlines.get(id)
    return deadline !== undefined && deadline <= now
  }

  /** Up to `max` leases whose time is over, the longest over first. */
  expired(now: number, max: number): bigint[] {
    const over: [bigint, number][] = []
    for (const entry of this.#deadlines) if (entry[1] <= now) over.push(entry)
    return over
      .sort((a, b) => a[1] - b[1])
      .slice(0, max)
      .map(([id]) => id)
  }

  /** Seconds left of every lease with more than `thresholdSeconds` granted, for a checkpoint. */
  checkpoints(
    book: LeaseBook,
    now: number,
    thresholdSeconds: number,
  ): { id: bigint; remainingTtl: number }[] {
    const checkpoints: { id: bigint; remainingTtl: number }[] = []
    for (const lease of book.list()) {
      const deadline = this.#deadlines.get(lease.id)
      if (deadline === undefined || lease.ttl <= thresholdSeconds) continue
      checkpoints.push({ id: lease.id, remainingTtl: Math.max(1, Math.ceil((deadline - now) / 1000)) })
    }
    return checkpoints
  }
}

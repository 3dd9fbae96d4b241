import type { LeaseBook } from './lease-book.ts'
import { LeaseQueue } from './lease-queue.ts'

/**
 * When leases end, as the leader counts it. Nobody else counts: a new leader starts every lease anew with what
 * the book says is left, so that a TTL is a minimum (kv.md section 5). Time comes as an argument, in
 * milliseconds of a clock that never goes back.
 */
export class LeaseClock {
  readonly #queue = new LeaseQueue()
  #isCounting = false

  get isCounting(): boolean {
    return this.#isCounting
  }

  /** This member now leads: all leases run from `now`, plus the time an election may have taken. */
  start(book: LeaseBook, now: number, extraMs: number): void {
    this.#queue.clear()
    this.#isCounting = true
    for (const lease of book.list()) {
      this.#queue.set(lease.id, now + (lease.remainingTtl || lease.ttl) * 1000 + extraMs)
    }
  }

  stop(): void {
    this.#isCounting = false
    this.#queue.clear()
  }

  /** A granted or kept alive lease runs its whole TTL from `now`. */
  renew(id: bigint, ttl: number, now: number): void {
    if (this.#isCounting) this.#queue.set(id, now + ttl * 1000)
  }

  /** The same unless its time is over; false then. */
  extend(id: bigint, ttl: number, now: number): boolean {
    return !this.#isCounting || this.#queue.extend(id, now + ttl * 1000, now)
  }

  forget(id: bigint): void {
    this.#queue.delete(id)
  }

  /** Seconds left, rounded down, below 0 when it is over; undefined for a lease not counted. */
  remaining(id: bigint, now: number): number | undefined {
    const deadline = this.#queue.deadline(id)
    return deadline === undefined ? undefined : Math.floor((deadline - now) / 1000)
  }

  isExpired(id: bigint, now: number): boolean {
    const deadline = this.#queue.deadline(id)
    return deadline !== undefined && deadline <= now
  }

  /** Up to `max` leases whose time is over, the longest over first. They stay counted until they are forgotten. */
  expired(now: number, max: number): bigint[] {
    return this.#queue.due(now, max)
  }

  /** Seconds left of every lease with more than `thresholdSeconds` granted, for a checkpoint. */
  checkpoints(
    book: LeaseBook,
    now: number,
    thresholdSeconds: number,
  ): { id: bigint; remainingTtl: number }[] {
    const checkpoints: { id: bigint; remainingTtl: number }[] = []
    for (const lease of book.list()) {
      const deadline = this.#queue.deadline(lease.id)
      if (deadline === undefined || lease.ttl <= thresholdSeconds) continue
      checkpoints.push({ id: lease.id, remainingTtl: Math.max(1, Math.ceil((deadline - now) / 1000)) })
    }
    return checkpoints
  }
}

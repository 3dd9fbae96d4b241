/** Allows a burst, then so many a second. */
export class TokenBucket {
  private tokens: number
  private last = Number.NEGATIVE_INFINITY
  private readonly burst: number
  private readonly perSecond: number

  constructor(burst: number, perSecond: number) {
    this.tokens = burst
    this.burst = burst
    this.perSecond = perSecond
  }

  /** False if there are not as many left. */
  take(nowMs: number, count = 1): boolean {
    const earned = ((nowMs - this.last) / 1000) * this.perSecond
    this.last = nowMs
    this.tokens = Math.min(this.burst, this.tokens + earned)
    if (this.tokens < count) return false
    this.tokens -= count
    return true
  }
}

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

  /** False if there is none left. */
  take(nowMs: number): boolean {
    const earned = ((nowMs - this.last) / 1000) * this.perSecond
    this.last = nowMs
    this.tokens = Math.min(this.burst, this.tokens + earned)
    if (this.tokens < 1) return false
    this.tokens--
    return true
  }
}

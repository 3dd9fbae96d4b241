/** Keys remembered at once; beyond them everybody starts afresh. */
const keysMax = 8192

/** A token bucket for each key: a burst of so many, and so many a second after it. True when one more may pass. */
export function rateLimit(perSecond: number, now: () => number): (key: string) => boolean {
  const buckets = new Map<string, { tokens: number; at: number }>()
  return (key) => {
    const at = now()
    const bucket = buckets.get(key) ?? { tokens: perSecond, at }
    bucket.tokens = Math.min(perSecond, bucket.tokens + ((at - bucket.at) / 1000) * perSecond)
    bucket.at = at
    if (!buckets.has(key) && buckets.size >= keysMax) buckets.clear()
    buckets.set(key, bucket)
    if (bucket.tokens < 1) return false
    bucket.tokens -= 1
    return true
  }
}

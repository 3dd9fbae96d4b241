export type Acknowledged = { key: string; value: string; revision: bigint }

export type WriteVerdict = {
  acknowledged: number
  /** Keys that were acknowledged and are not there as they were written. */
  lost: string[]
  unknown: number
  attempts: number
  /** Longest time without an acknowledged write. */
  longestGapMs: number
}

/** Acknowledged writes that the store does not have as they were acknowledged: missing, another value or revision. */
export function findLost(
  acknowledged: readonly Acknowledged[],
  found: Iterable<{ key: string; text: string; modRevision: bigint }>,
): string[] {
  const byKey = new Map([...found].map((entry) => [entry.key, entry]))
  return acknowledged
    .filter(({ key, value, revision }) => {
      const entry = byKey.get(key)
      return entry?.text !== value || entry.modRevision !== revision
    })
    .map(({ key }) => key)
}

import { normaliseMac } from '@kiln/schemas'

/** What a machine says about itself in a request's query: the words that groups select by. */
export type Labels = ReadonlyMap<string, string>

const labelsMax = 64
const labelCharsMax = 512

/**
 * Labels of a query string, by matchbox's rules: the first value of a repeated key wins, keys keep their case, the
 * MAC becomes lower-case with colons and is dropped when it is none. The UUID becomes lower-case (a gain over matchbox).
 */
export function labelsOf(query: URLSearchParams): Labels {
  const labels = new Map<string, string>()
  for (const [key, value] of query) {
    if (labels.has(key) || labels.size >= labelsMax || key.length > 128 || value.length > labelCharsMax)
      continue
    const normal = normaliseLabel(key, value)
    if (normal !== undefined) labels.set(key, normal)
  }
  return labels
}

/** A label's value as it is compared, on both sides; undefined for a MAC that is none. */
export function normaliseLabel(key: string, value: string): string | undefined {
  switch (key) {
    case 'mac':
      return normaliseMac(value)
    case 'uuid':
      return value.toLowerCase()
    default:
      return value
  }
}

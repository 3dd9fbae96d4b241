import type { Key, Span } from '../key.ts'

/** Spans in order that neither overlap nor touch. */
export type SpanSet = readonly Span[]

const isEmpty = ({ start, end }: Span): boolean => end !== undefined && start >= end

/** The keys of all spans together, as few spans as possible: `[a,c)` and `[c,e)` become `[a,e)`. */
export function mergeSpans(spans: readonly Span[]): SpanSet {
  const merged: Span[] = []
  const ordered = spans
    .filter((span) => !isEmpty(span))
    .sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0))
  for (const span of ordered) {
    const last = merged.at(-1)
    if (last === undefined || (last.end !== undefined && last.end < span.start)) merged.push({ ...span })
    else if (last.end !== undefined && (span.end === undefined || span.end > last.end)) last.end = span.end
  }
  return merged
}

/** Whether the set has every key of the span. A span without keys names nothing that could be allowed. */
export function coversSpan(set: SpanSet, span: Span): boolean {
  if (isEmpty(span)) return false
  const found = lastFrom(set, span.start)
  if (found === undefined) return false
  return found.end === undefined || (span.end !== undefined && span.end <= found.end)
}

/** Whether the set has this key. */
export function coversKey(set: SpanSet, key: Key): boolean {
  const found = lastFrom(set, key)
  return found !== undefined && (found.end === undefined || key < found.end)
}

/** The last span that does not begin behind `key`. */
function lastFrom(set: SpanSet, key: Key): Span | undefined {
  let low = 0
  let high = set.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (set[middle]!.start <= key) low = middle + 1
    else high = middle
  }
  return set[low - 1]
}

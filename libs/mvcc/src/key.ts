/**
 * Keys inside the store are latin1 strings: one char a byte, so `<` orders them bytewise, a Map finds them, and
 * a key costs a string header and its bytes. They become bytes again only where they leave the store.
 */
export type Key = string

export function toKey(bytes: Uint8Array): Key {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1')
}

export function fromKey(key: Key): Buffer {
  return Buffer.from(key, 'latin1')
}

/** A span of keys: `end` undefined means to the last key; `start >= end` holds nothing. */
export type Span = { start: Key; end: Key | undefined }

/** The span that a request's `key` and `range_end` mean (kv.md section 2). */
export function toSpan(key: Uint8Array, rangeEnd: Uint8Array): Span {
  const start = toKey(key)
  if (rangeEnd.length === 0) return { start, end: start + '\0' }
  if (rangeEnd.length === 1 && rangeEnd[0] === 0) return { start, end: undefined }
  return { start, end: toKey(rangeEnd) }
}

export const isSingle = (span: Span): boolean => span.end === span.start + '\0'

export const isEmpty = ({ start, end }: Span): boolean => end !== undefined && end <= start

export const contains = (span: Span, key: Key): boolean =>
  key >= span.start && (span.end === undefined || key < span.end)

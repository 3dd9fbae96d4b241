/** Keys and values as callers have them: text is UTF-8. */
export type Bytes = string | Uint8Array

const encoder = new TextEncoder()
const decoder = new TextDecoder()

export function toBytes(value: Bytes): Uint8Array {
  return typeof value === 'string' ? encoder.encode(value) : value
}

export function toText(bytes: Uint8Array): string {
  return decoder.decode(bytes)
}

/**
 * The end of the range of all keys with a prefix: its last byte that can be raised is. A prefix without one, like the empty prefix,
 * reaches to the end of all keys, which the API writes as one zero byte.
 */
export function prefixEnd(prefix: Uint8Array): Uint8Array {
  let length = prefix.length
  while (length > 0 && prefix[length - 1] === 0xff) length--
  if (length === 0) return new Uint8Array(1)
  // A Buffer's own slice would be a view: raising its last byte would change the prefix.
  const end = Uint8Array.from(prefix.subarray(0, length))
  end[length - 1] = end[length - 1]! + 1
  return end
}

/** The key and range end of all keys with a prefix. */
export function prefixRange(prefix: Bytes): { key: Uint8Array; rangeEnd: Uint8Array } {
  const key = toBytes(prefix)
  // An empty key is none; the first there can be is one zero byte.
  return { key: key.length === 0 ? new Uint8Array(1) : key, rangeEnd: prefixEnd(key) }
}

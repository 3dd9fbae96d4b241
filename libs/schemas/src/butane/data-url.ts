import { gzipSync } from 'node:zlib'

/**
 * The reference's gzip ends a stream with an empty block, which zlib leaves out. Counting it makes both choose the
 * same of the encodings.
 */
const emptyBlockBytes = 5
/** Header, trailer and the smallest block: what is shorter than this in base64 is not worth trying. */
const zippedBytesMin = 20 + emptyBlockBytes

const zippedLength = (bytes: number): number => ';base64,'.length + 4 * Math.ceil(bytes / 3) + 'gzip'.length

/** Which encodings there are to choose from: the oldest configs are always escaped, some are never compressed. */
export type Encoding = 'escaped' | 'uncompressed' | 'compressed'

/**
 * A `data:` URL of these bytes: escaped, in base64, or compressed and in base64, whatever is shortest (RFC 2397).
 * `compression` is what the config has to say about it, undefined when the user's own setting stays.
 */
export function makeDataUrl(
  bytes: Uint8Array,
  options: { compression: string | undefined; encoding: Encoding },
): { source: string; compression: string | undefined } {
  if (options.encoding === 'escaped') return { source: `data:,${escapeBytes(bytes)}`, compression: undefined }
  const userCompressed = options.compression !== undefined && options.compression !== ''
  let content = `,${escapeBytes(bytes)}`
  let compression = userCompressed ? undefined : ''
  const base64 = `;base64,${Buffer.from(bytes).toString('base64')}`
  if (base64.length < content.length) content = base64
  if (!userCompressed && options.encoding === 'compressed' && zippedLength(zippedBytesMin) < content.length) {
    const zipped = gzipSync(bytes, { level: 9 })
    if (zippedLength(zipped.length + emptyBlockBytes) < content.length) {
      content = `;base64,${zipped.toString('base64')}`
      compression = 'gzip'
    }
  }
  return { source: `data:${content}`, compression }
}

const unreserved = /[A-Za-z0-9\-_.!~*'()]/

/** Bytes that are not unreserved characters become percent escapes. */
export function escapeBytes(bytes: Uint8Array): string {
  let escaped = ''
  for (const byte of bytes) escaped += escapes[byte]!
  return escaped
}

const escapes = Array.from({ length: 256 }, (_, byte) => {
  const character = String.fromCharCode(byte)
  return unreserved.test(character) ? character : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
})

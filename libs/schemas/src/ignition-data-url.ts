/** Content of a `data:` URL (RFC 2397); undefined when it cannot be decoded. */
export function decodeDataUrl(url: string): Uint8Array | undefined {
  const comma = url.indexOf(',')
  if (!/^data:/i.test(url) || comma < 0) return undefined
  const base64 = /;base64$/i.test(url.slice(5, comma))
  const bytes = percentDecoded(url.slice(comma + 1))
  if (!bytes || !base64) return bytes
  const text = Buffer.from(bytes).toString('latin1').replaceAll(/\s/g, '')
  if (!/^[A-Za-z0-9+/_-]*={0,2}$/.test(text)) return undefined
  return Buffer.from(text, 'base64')
}

/** A `data:` URL of these bytes. */
export function encodeDataUrl(bytes: Uint8Array): string {
  return `data:;base64,${Buffer.from(bytes).toString('base64')}`
}

/** Percent escapes give bytes, not characters, so that any content survives. */
function percentDecoded(text: string): Uint8Array | undefined {
  if (!text.includes('%')) return Buffer.from(text, 'utf8')
  if (/%(?![0-9a-f]{2})/i.test(text)) return undefined
  const parts = text.split(/((?:%[0-9a-f]{2})+)/i)
  return Buffer.concat(
    parts.map((part, index) =>
      index % 2 === 1 ? Buffer.from(part.replaceAll('%', ''), 'hex') : Buffer.from(part, 'utf8'),
    ),
  )
}

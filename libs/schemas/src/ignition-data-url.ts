const token = String.raw`[^\s()<>@,;:\\"/[\]?=\u0000-\u001f\u007f-\uffff]+`
const mediaType = `(?:text|image|audio|video|application|message|multipart|x-${token})/(?:${token})?`
const parameter = String.raw`;${token}=(?:${token}|"[^"\n]*")`
/** `data:[type/subtype][;attribute=value]...[;base64],` (RFC 2397), the way the specification's decoder has it. */
const headPattern = new RegExp(`^data:(?:${mediaType})?(?:${parameter})*(;base64)?,`)
const notText = /[^A-Za-z0-9;/?:@&=+$,\-_.!~*'()%]|%(?![0-9A-Fa-f]{2})/
const base64Pattern = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/

/** Content of a `data:` URL (RFC 2397); undefined when it is not one to the letter. */
export function decodeDataUrl(url: string): Uint8Array | undefined {
  const head = headPattern.exec(url)
  if (!head) return undefined
  const data = url.slice(head[0].length)
  if (head[1] === undefined) return notText.test(data) ? undefined : percentDecoded(data)
  return base64Pattern.test(data) ? Buffer.from(data, 'base64') : undefined
}

/** A `data:` URL of these bytes. */
export function encodeDataUrl(bytes: Uint8Array): string {
  return `data:;base64,${Buffer.from(bytes).toString('base64')}`
}

/** Percent escapes give bytes, not characters, so that any content survives; the quick way is for escapes that are text. */
function percentDecoded(text: string): Uint8Array {
  try {
    return Buffer.from(decodeURIComponent(text), 'utf8')
  } catch {
    return bytesOfEscapes(text)
  }
}

function bytesOfEscapes(text: string): Uint8Array {
  const parts = text.split(/((?:%[0-9a-f]{2})+)/i)
  return Buffer.concat(
    parts.map((part, index) =>
      index % 2 === 1 ? Buffer.from(part.replaceAll('%', ''), 'hex') : Buffer.from(part, 'utf8'),
    ),
  )
}

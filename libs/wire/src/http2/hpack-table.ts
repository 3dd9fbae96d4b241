/** A header field as the tables hold it; decoded heads share these objects. */
export type HeaderField = {
  name: string
  value: string
  /** Which request header it is, for a switch without string comparisons: see `slotOf`. */
  slot: number
}

const slotNames = [
  ':method',
  ':scheme',
  ':path',
  ':authority',
  'content-type',
  'te',
  'grpc-timeout',
  'grpc-encoding',
  'token',
  'authorization',
  'hasleader',
  'connection',
  'upgrade',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
] as const

const slots = new Map<string, number>(slotNames.map((name, at) => [name, at + 1]))

/** A small number for each header name the engine looks at; 0 for all others. */
export function slotOf(name: (typeof slotNames)[number]): number {
  return slots.get(name)!
}

export function headerField(name: string, value: string): HeaderField {
  return { name, value, slot: slots.get(name) ?? 0 }
}

/** RFC 7541, section 4.1. */
export function fieldSize(field: HeaderField): number {
  return field.name.length + field.value.length + 32
}

/** RFC 7541, appendix A; index 1 is the first. */
export const staticTable: HeaderField[] = [
  ':authority|:method=GET|:method=POST|:path=/|:path=/index.html|:scheme=http|:scheme=https|:status=200',
  ':status=204|:status=206|:status=304|:status=400|:status=404|:status=500|accept-charset',
  'accept-encoding=gzip, deflate|accept-language|accept-ranges|accept|access-control-allow-origin|age',
  'allow|authorization|cache-control|content-disposition|content-encoding|content-language',
  'content-length|content-location|content-range|content-type|cookie|date|etag|expect|expires|from|host',
  'if-match|if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|link|location',
  'max-forwards|proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|server',
  'set-cookie|strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate',
]
  .flatMap((line) => line.split('|'))
  .map((entry) => {
    const [name = '', value = ''] = entry.split('=')
    return headerField(name, value)
  })

/** The dynamic table of a decoder (RFC 7541, section 2.3.2): a ring, newest entry first by index. */
export class DynamicTable {
  private ring: (HeaderField | undefined)[] = new Array(32)
  /** Where the newest entry is. */
  private newest = 0
  length = 0
  sizeBytes = 0
  sizeMax: number

  constructor(sizeMax: number) {
    this.sizeMax = sizeMax
  }

  /** The entry at `index`, 0 being the newest. */
  at(index: number): HeaderField | undefined {
    return index < this.length ? this.ring[(this.newest - index) & (this.ring.length - 1)] : undefined
  }

  insert(field: HeaderField): void {
    const size = fieldSize(field)
    this.evictTo(this.sizeMax - size)
    // An entry larger than the table empties it and is not kept (section 4.4).
    if (size > this.sizeMax) return
    if (this.length === this.ring.length) this.grow()
    this.newest = (this.newest + 1) & (this.ring.length - 1)
    this.ring[this.newest] = field
    this.length++
    this.sizeBytes += size
  }

  resize(sizeMax: number): void {
    this.sizeMax = sizeMax
    this.evictTo(sizeMax)
  }

  private evictTo(sizeBytes: number): void {
    while (this.length > 0 && this.sizeBytes > sizeBytes) {
      const oldest = (this.newest - this.length + 1) & (this.ring.length - 1)
      this.sizeBytes -= fieldSize(this.ring[oldest]!)
      this.ring[oldest] = undefined
      this.length--
    }
  }

  private grow(): void {
    const larger: (HeaderField | undefined)[] = new Array(2 * this.ring.length)
    for (let index = 0; index < this.length; index++) larger[this.length - 1 - index] = this.at(index)
    this.newest = this.length - 1
    this.ring = larger
  }
}

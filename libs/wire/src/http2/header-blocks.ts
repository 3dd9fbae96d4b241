import type { WireLimits } from '../limits.ts'
import { ConnectionError, errorCode, frameFlag } from './frames.ts'
import { HpackDecoder } from './hpack-decoder.ts'
import type { HeaderField } from './hpack-table.ts'

const cachedBytesMax = 256
const cachedMax = 64

/** Fields read as a head; `tooLarge` if the list went over the limit and only its first fields are known. */
type AnyHead = { readonly tooLarge: boolean; readonly fields: readonly HeaderField[] }

/**
 * The header blocks of a connection: put together over CONTINUATION frames, decoded, and remembered by their exact bytes while
 * the compression table stays as it is, since peers send the same few blocks again and again.
 */
export class HeaderBlocks<Head> {
  /** The stream whose CONTINUATION must come next, or 0. */
  expecting = 0
  /** Whether the block read last ends its stream. */
  endsStream = false
  private readonly decoder = new HpackDecoder()
  private readonly limits: WireLimits
  private readonly readHead: (fields: readonly HeaderField[]) => (Head & AnyHead) | string
  private readonly cache = new Map<string, Head>()
  private parts: Buffer[] = []
  private partBytes = 0
  private block: Buffer = Buffer.alloc(0)
  private start = 0
  private end = 0

  /** `readHead` makes a head of the fields; a string says why they are malformed. */
  constructor(limits: WireLimits, readHead: (fields: readonly HeaderField[]) => (Head & AnyHead) | string) {
    this.limits = limits
    this.readHead = readHead
  }

  /** Takes a HEADERS frame; true if the block is complete. */
  begin(flags: number, streamId: number, bytes: Buffer, start: number, end: number): boolean {
    let from = start
    let to = end
    if (flags & frameFlag.padded) {
      to -= bytes[from] ?? 0
      from++
    }
    if (flags & frameFlag.priority) from += 5
    if (from > to) throw new ConnectionError(errorCode.protocolError, 'HEADERS shorter than its padding')
    this.endsStream = (flags & frameFlag.endStream) !== 0
    if (flags & frameFlag.endHeaders) {
      this.block = bytes
      this.start = from
      this.end = to
      return true
    }
    this.expecting = streamId
    this.parts = []
    this.partBytes = 0
    this.add(bytes, from, to)
    return false
  }

  /** Takes a CONTINUATION frame; true if the block is complete. */
  continue(flags: number, streamId: number, bytes: Buffer, start: number, end: number): boolean {
    if (streamId !== this.expecting || streamId === 0)
      throw new ConnectionError(errorCode.protocolError, 'CONTINUATION out of place')
    this.add(bytes, start, end)
    if (!(flags & frameFlag.endHeaders)) return false
    this.expecting = 0
    this.block = Buffer.concat(this.parts)
    this.parts = []
    this.start = 0
    this.end = this.block.length
    return true
  }

  /** The complete block as a head, to be shared and never changed; a string says why it is malformed. */
  read(): Head | string {
    const { block, start, end, cache, decoder } = this
    this.block = Buffer.alloc(0)
    // Without hits to expect (a client whose every block changes the table) the key is not worth its cost.
    const small = end - start <= cachedBytesMax
    if (small && cache.size > 0) {
      const hit = cache.get(block.toString('latin1', start, end))
      if (hit !== undefined) return hit
    }
    const before = decoder.changes
    const { fields, tooLarge } = decoder.decode(block, start, end, this.limits.headerListBytesMax)
    const head = this.readHead(fields)
    if (decoder.changes !== before) cache.clear()
    if (typeof head === 'string') return head
    if (tooLarge) return { ...head, tooLarge }
    if (decoder.changes === before && small && cache.size < cachedMax)
      cache.set(block.toString('latin1', start, end), head)
    return head
  }

  /** Decodes the complete block for the sake of the compression state only. */
  skip(): void {
    const before = this.decoder.changes
    this.decoder.decode(this.block, this.start, this.end, 0)
    this.block = Buffer.alloc(0)
    if (this.decoder.changes !== before) this.cache.clear()
  }

  private add(bytes: Buffer, start: number, end: number): void {
    this.partBytes += end - start
    // A frame without content still costs a place in the list.
    if (this.partBytes > this.limits.headerBlockBytesMax || this.parts.length >= 64)
      throw new ConnectionError(errorCode.enhanceYourCalm, 'header block too large')
    this.parts.push(bytes.subarray(start, end))
  }
}

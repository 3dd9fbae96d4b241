import { frameHeaderBytes } from './frames.ts'

const initialBytes = 4096
/** A buffer that grew beyond this is not kept for the next turn. */
const keptBytesMax = 64 * 1024

/** Bytes on their way to one socket: frames are written into it and taken all at once, once a turn. */
export class OutBuffer {
  bytes: Buffer = Buffer.allocUnsafeSlow(initialBytes)
  length = 0

  /** Makes room for `count` more bytes and returns where they start. The caller adds to `length`. */
  reserve(count: number): number {
    const needed = this.length + count
    if (needed > this.bytes.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(needed, 2 * this.bytes.length))
      this.bytes.copy(larger, 0, 0, this.length)
      this.bytes = larger
    }
    return this.length
  }

  byte(value: number): void {
    const at = this.reserve(1)
    this.bytes[at] = value
    this.length++
  }

  append(source: Uint8Array, start = 0, end = source.length): void {
    const at = this.reserve(end - start)
    if (end - start < 32) {
      const bytes = this.bytes
      for (let from = start, to = at; from < end; from++, to++) bytes[to] = source[from]!
    } else this.bytes.set(start === 0 && end === source.length ? source : source.subarray(start, end), at)
    this.length += end - start
  }

  latin1(text: string): void {
    const at = this.reserve(text.length)
    this.bytes.write(text, at, 'latin1')
    this.length += text.length
  }

  uint32(value: number): void {
    const at = this.reserve(4)
    this.bytes[at] = value >>> 24
    this.bytes[at + 1] = value >>> 16
    this.bytes[at + 2] = value >>> 8
    this.bytes[at + 3] = value
    this.length += 4
  }

  frameHeader(payloadBytes: number, type: number, flags: number, streamId: number): void {
    const at = this.reserve(frameHeaderBytes)
    const bytes = this.bytes
    bytes[at] = payloadBytes >>> 16
    bytes[at + 1] = payloadBytes >>> 8
    bytes[at + 2] = payloadBytes
    bytes[at + 3] = type
    bytes[at + 4] = flags
    bytes[at + 5] = streamId >>> 24
    bytes[at + 6] = streamId >>> 16
    bytes[at + 7] = streamId >>> 8
    bytes[at + 8] = streamId
    this.length = at + frameHeaderBytes
  }

  /** Fills in the length of a frame whose header was written at `at` before its payload was known. */
  closeFrame(at: number): void {
    const payloadBytes = this.length - at - frameHeaderBytes
    this.bytes[at] = payloadBytes >>> 16
    this.bytes[at + 1] = payloadBytes >>> 8
    this.bytes[at + 2] = payloadBytes
  }

  /** Everything written so far, for the socket. Call `consumed` when it was written through, else `handedOver`. */
  pending(): Buffer {
    return this.bytes.subarray(0, this.length)
  }

  /** The bytes left the process: the buffer is free again. */
  consumed(): void {
    this.length = 0
    if (this.bytes.length > keptBytesMax) this.bytes = Buffer.allocUnsafeSlow(initialBytes)
  }

  /** The socket still holds the bytes: go on in a buffer of our own. */
  handedOver(): void {
    this.length = 0
    this.bytes = Buffer.allocUnsafeSlow(initialBytes)
  }
}

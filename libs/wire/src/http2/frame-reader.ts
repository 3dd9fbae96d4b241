import { ConnectionError, errorCode, frameBytesMax, frameHeaderBytes } from './frames.ts'

/** Takes one frame: its payload is `bytes[start, end)`, which may be kept. */
export type FrameHandler = (
  type: number,
  flags: number,
  streamId: number,
  bytes: Buffer,
  start: number,
  end: number,
) => void

/**
 * Cuts what arrives from a socket into frames. Whole frames are handed on as views of the chunk; one that spans chunks is
 * collected in a buffer of its own, never more than one frame.
 */
export class FrameReader {
  private partial: Buffer | undefined
  private filled = 0
  private readonly onFrame: FrameHandler

  constructor(onFrame: FrameHandler) {
    this.onFrame = onFrame
  }

  push(chunk: Buffer): void {
    let at = this.partial === undefined ? 0 : this.complete(chunk)
    while (chunk.length - at >= frameHeaderBytes) {
      const end = at + frameHeaderBytes + payloadLength(chunk, at)
      if (end > chunk.length) break
      this.emit(chunk, at, end)
      at = end
    }
    if (at < chunk.length) this.keep(chunk, at)
  }

  /** Adds to the frame begun in an earlier chunk; returns where the next frame starts. */
  private complete(chunk: Buffer): number {
    let at = 0
    let partial = this.partial!
    if (this.filled < frameHeaderBytes) {
      at = chunk.copy(partial, this.filled, 0, frameHeaderBytes - this.filled)
      this.filled += at
      if (this.filled < frameHeaderBytes) return at
      partial = growTo(partial, frameHeaderBytes + payloadLength(partial, 0))
      this.partial = partial
    }
    const copied = chunk.copy(partial, this.filled, at)
    this.filled += copied
    if (this.filled === partial.length) {
      this.partial = undefined
      this.emit(partial, 0, partial.length)
    }
    return at + copied
  }

  private keep(chunk: Buffer, at: number): void {
    const whole = chunk.length - at >= frameHeaderBytes
    const bytes = whole ? frameHeaderBytes + payloadLength(chunk, at) : frameHeaderBytes
    this.partial = Buffer.allocUnsafeSlow(bytes)
    this.filled = chunk.copy(this.partial, 0, at)
  }

  private emit(bytes: Buffer, at: number, end: number): void {
    const streamId =
      ((bytes[at + 5]! & 0x7f) << 24) | (bytes[at + 6]! << 16) | (bytes[at + 7]! << 8) | bytes[at + 8]!
    this.onFrame(bytes[at + 3]!, bytes[at + 4]!, streamId, bytes, at + frameHeaderBytes, end)
  }
}

function payloadLength(bytes: Buffer, at: number): number {
  const length = (bytes[at]! << 16) | (bytes[at + 1]! << 8) | bytes[at + 2]!
  if (length > frameBytesMax) throw new ConnectionError(errorCode.frameSizeError, `frame of ${length} bytes`)
  return length
}

function growTo(partial: Buffer, bytes: number): Buffer {
  const larger = Buffer.allocUnsafeSlow(bytes)
  partial.copy(larger)
  return larger
}

/** A frame on a `-netdev stream` socket: 4 bytes of big-endian length, then Ethernet (QEMU net/stream.c). */
export const frameHeaderBytes = 4

/** Largest frame QEMU sends: a 64 KiB segmentation-offload packet plus headers. */
export const frameBytesMax = 128 * 1024

/**
 * Cuts a byte stream into frames, header included. `push` returns whole frames only, each a view that stays
 * valid; the rest is kept for the next call.
 */
export class FrameReader {
  #pending: Buffer = Buffer.alloc(0)

  push(chunk: Buffer): Buffer[] {
    let bytes = this.#pending.length > 0 ? Buffer.concat([this.#pending, chunk]) : chunk
    const frames: Buffer[] = []
    while (bytes.length >= frameHeaderBytes) {
      const length = bytes.readUInt32BE(0)
      if (length < 14 || length > frameBytesMax) throw new RangeError(`frame of ${length} bytes`)
      if (bytes.length < frameHeaderBytes + length) break
      frames.push(bytes.subarray(0, frameHeaderBytes + length))
      bytes = bytes.subarray(frameHeaderBytes + length)
    }
    this.#pending = bytes
    return frames
  }
}

export const macText = (frame: Buffer, at: 'destination' | 'source'): string => {
  const start = frameHeaderBytes + (at === 'destination' ? 0 : 6)
  return frame.toString('hex', start, start + 6).replace(/..(?!$)/g, '$&:')
}

/** Group bit of the destination address: broadcast and multicast (IEEE 802.3, 3.2.3). */
export const isGroupAddressed = (frame: Buffer): boolean => ((frame[frameHeaderBytes] ?? 0) & 1) === 1

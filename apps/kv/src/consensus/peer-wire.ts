/**
 * Bytes between members: frames of length u32 (little endian) and content. The first frame on a connection is the hello of the
 * side that opened it, the second the answer to it; after that only the opener sends.
 *
 * Hello: magic u32, version u16, purpose u8 (1 frames, 2 describe the cluster), cluster u64, from u64, to u64, then the URLs where
 * the sender listens itself, separated by commas.
 * Answer: code length u8, code (empty: welcome), then JSON: for purpose 2 of the cluster, for 1 what the answering side
 * announces about its program (nothing before store version 2).
 */
export const peerFormatVersion = 1
const magic = 0x4b504552
const helloBytes = 31

/** An append holds at most 1 MiB of entries or a single large one, a snapshot chunk less. */
export const peerFrameBytesMax = 64 << 20

export type Hello = {
  version: number
  purpose: 'frames' | 'describe'
  clusterId: bigint
  from: bigint
  to: bigint
  urls: readonly string[]
}

export function encodeHello(hello: Hello): Uint8Array {
  const urls = new TextEncoder().encode(hello.urls.join(','))
  const bytes = new Uint8Array(helloBytes + urls.length)
  bytes.set(urls, helloBytes)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, magic, true)
  view.setUint16(4, hello.version, true)
  bytes[6] = hello.purpose === 'frames' ? 1 : 2
  view.setBigUint64(7, hello.clusterId, true)
  view.setBigUint64(15, hello.from, true)
  view.setBigUint64(23, hello.to, true)
  return bytes
}

/** Undefined for what is no hello. */
export function decodeHello(bytes: Uint8Array): Hello | undefined {
  if (bytes.length < helloBytes) return undefined
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  if (view.getUint32(0, true) !== magic) return undefined
  return {
    version: view.getUint16(4, true),
    purpose: bytes[6] === 2 ? 'describe' : 'frames',
    clusterId: view.getBigUint64(7, true),
    from: view.getBigUint64(15, true),
    to: view.getBigUint64(23, true),
    urls: new TextDecoder()
      .decode(bytes.subarray(helloBytes))
      .split(',')
      .filter((url) => url !== ''),
  }
}

/** An empty code welcomes. */
export type Answer = { code: string; body: Uint8Array }

export function encodeAnswer({ code, body }: Answer): Uint8Array {
  const text = new TextEncoder().encode(code)
  return Buffer.concat([Uint8Array.of(text.length), text, body])
}

export function decodeAnswer(bytes: Uint8Array): Answer {
  const length = bytes[0] ?? 0
  return {
    code: new TextDecoder().decode(bytes.subarray(1, 1 + length)),
    body: bytes.subarray(1 + length),
  }
}

/** One buffer for several frames: one write, one TLS record. */
export function packFrames(frames: readonly Uint8Array[]): Uint8Array {
  let size = 0
  for (const frame of frames) size += 4 + frame.length
  const packed = Buffer.allocUnsafe(size)
  let at = 0
  for (const frame of frames) {
    packed.writeUInt32LE(frame.length, at)
    packed.set(frame, at + 4)
    at += 4 + frame.length
  }
  return packed
}

/** Cuts a stream of bytes into frames. Throws when one is announced that is larger than any can be. */
export class FrameReader {
  #parts: Uint8Array[] = []
  #bytes = 0
  #needed = 4

  push(chunk: Uint8Array): Uint8Array[] {
    this.#parts.push(chunk)
    this.#bytes += chunk.length
    if (this.#bytes < this.#needed) return []
    let joined = this.#parts.length === 1 ? chunk : Buffer.concat(this.#parts)
    const frames: Uint8Array[] = []
    for (;;) {
      if (joined.length < 4) {
        this.#needed = 4
        break
      }
      const length = new DataView(joined.buffer, joined.byteOffset, 4).getUint32(0, true)
      if (length > peerFrameBytesMax) throw new Error(`a frame of ${length} bytes is too large`)
      if (joined.length < 4 + length) {
        this.#needed = 4 + length
        break
      }
      frames.push(joined.subarray(4, 4 + length))
      joined = joined.subarray(4 + length)
    }
    this.#parts = joined.length > 0 ? [joined] : []
    this.#bytes = joined.length
    return frames
  }
}

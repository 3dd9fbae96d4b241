import net from 'node:net'
import { FrameReader } from '../http2/frame-reader.ts'
import { frameFlag, frameType, preface } from '../http2/frames.ts'
import { HpackDecoder } from '../http2/hpack-decoder.ts'
import { type Fields, HpackEncoder } from '../http2/hpack-encoder.ts'
import { OutBuffer } from '../http2/out-buffer.ts'

export type RawFrame = { type: number; flags: number; streamId: number; payload: Buffer }

/** The head of a gRPC request as a client sends it. */
export function grpcRequest(path: string, more: Fields = []): Fields {
  return [
    [':method', 'POST'],
    [':scheme', 'http'],
    [':path', path],
    [':authority', 'test'],
    ['content-type', 'application/grpc'],
    ['te', 'trailers'],
    ...more,
  ]
}

/** A message with its five bytes of prefix. */
export function grpcMessage(message: Uint8Array): Buffer {
  const prefix = Buffer.alloc(5)
  prefix.writeUInt32BE(message.length, 1)
  return Buffer.concat([prefix, message])
}

/** An HTTP/2 client that does exactly what a test tells it, right or wrong. */
export type RawClient = {
  socket: net.Socket
  frames: RawFrame[]
  frame(type: number, flags: number, streamId: number, payload?: Uint8Array): void
  headers(streamId: number, fields: Fields, flags?: number): void
  settings(values: [id: number, value: number][]): void
  bytes(bytes: Uint8Array): void
  /** Waits for a frame that was not waited for before. */
  next(type: number, streamId?: number): Promise<RawFrame>
  /** Decodes the next header block of a stream. */
  nextHeaders(streamId: number): Promise<Record<string, string>>
  /** The error code and text of the GOAWAY that ends the connection. */
  goAway(): Promise<{ code: number; reason: string }>
  closed: Promise<void>
}

export async function rawClient(port: number, options: { preface?: boolean } = {}): Promise<RawClient> {
  const socket = net.connect(port, '127.0.0.1')
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve)
    socket.once('error', reject)
  })
  socket.on('error', () => {})
  const frames: RawFrame[] = []
  const waiting: { matches(frame: RawFrame): boolean; resolve(frame: RawFrame): void }[] = []
  const encoder = new HpackEncoder()
  const decoder = new HpackDecoder()

  const reader = new FrameReader((type, flags, streamId, bytes, start, end) => {
    const frame = { type, flags, streamId, payload: Buffer.from(bytes.subarray(start, end)) }
    const at = waiting.findIndex((waiter) => waiter.matches(frame))
    if (at < 0) frames.push(frame)
    else waiting.splice(at, 1)[0]!.resolve(frame)
  })
  socket.on('data', (chunk) => reader.push(chunk))

  const client: RawClient = {
    socket,
    frames,
    frame(type, flags, streamId, payload = new Uint8Array(0)) {
      const out = new OutBuffer()
      out.frameHeader(payload.length, type, flags, streamId)
      out.append(payload)
      socket.write(out.pending())
    },
    headers(streamId, fields, flags = frameFlag.endHeaders) {
      const out = new OutBuffer()
      encoder.encode(out, fields)
      client.frame(frameType.headers, flags, streamId, out.pending())
    },
    settings(values) {
      const payload = Buffer.alloc(6 * values.length)
      values.forEach(([id, value], at) => {
        payload.writeUInt16BE(id, 6 * at)
        payload.writeUInt32BE(value, 6 * at + 2)
      })
      client.frame(frameType.settings, 0, 0, payload)
    },
    bytes(bytes) {
      socket.write(bytes)
    },
    next(type, streamId) {
      const matches = (frame: RawFrame) =>
        frame.type === type && (streamId === undefined || frame.streamId === streamId)
      const at = frames.findIndex(matches)
      if (at >= 0) return Promise.resolve(frames.splice(at, 1)[0]!)
      return new Promise((resolve) => waiting.push({ matches, resolve }))
    },
    async nextHeaders(streamId) {
      const { payload } = await client.next(frameType.headers, streamId)
      const { fields } = decoder.decode(payload, 0, payload.length, 1_000_000)
      return Object.fromEntries(fields.map(({ name, value }) => [name, value]))
    },
    async goAway() {
      const { payload } = await client.next(frameType.goAway)
      return { code: payload.readUInt32BE(4), reason: payload.toString('latin1', 8) }
    },
    closed: new Promise((resolve) => socket.once('close', () => resolve())),
  }
  if (options.preface !== false) {
    client.bytes(preface)
    client.settings([])
  }
  return client
}

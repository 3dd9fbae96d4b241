import net from 'node:net'
import { FrameReader } from '../http2/frame-reader.ts'
import { frameFlag, frameType, preface } from '../http2/frames.ts'
import { HpackDecoder } from '../http2/hpack-decoder.ts'
import { type Fields, grpcHead, grpcOkTrailers, HpackEncoder } from '../http2/hpack-encoder.ts'
import { OutBuffer } from '../http2/out-buffer.ts'
import { grpcMessage, type RawFrame } from './raw-client.ts'

/** One connection of a server that does exactly what a test tells it, right or wrong. */
export type RawConnection = {
  socket: net.Socket
  frames: RawFrame[]
  frame(type: number, flags: number, streamId: number, payload?: Uint8Array): void
  headers(streamId: number, fields: Fields, flags?: number): void
  settings(values: [id: number, value: number][]): void
  goAway(lastStreamId: number, code: number): void
  /** A whole answer with status 0. */
  answer(streamId: number, message: Uint8Array): void
  /** Waits for a frame that was not waited for before. */
  next(type: number, streamId?: number): Promise<RawFrame>
  nextHeaders(streamId?: number): Promise<{ headers: Record<string, string>; streamId: number }>
  closed: Promise<void>
}

export type RawServer = {
  port: number
  connections: RawConnection[]
  /** Waits for the connection of this number, from 0. */
  connection(at: number): Promise<RawConnection>
  close(): void
}

/** Listens; each connection begins with SETTINGS unless `settings` is false. */
export async function rawServer(options: { settings?: boolean } = {}): Promise<RawServer> {
  const connections: RawConnection[] = []
  const waiting: { at: number; resolve(connection: RawConnection): void }[] = []
  const server = net.createServer((socket) => {
    const connection = rawConnection(socket)
    if (options.settings !== false) connection.settings([])
    connections.push(connection)
    for (const waiter of waiting) if (waiter.at < connections.length) waiter.resolve(connections[waiter.at]!)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as net.AddressInfo).port,
    connections,
    connection: (at) =>
      connections[at] === undefined
        ? new Promise((resolve) => waiting.push({ at, resolve }))
        : Promise.resolve(connections[at]),
    close() {
      for (const { socket } of connections) socket.destroy()
      server.close()
    },
  }
}

function rawConnection(socket: net.Socket): RawConnection {
  socket.on('error', () => {})
  const frames: RawFrame[] = []
  /** Header blocks, decoded in the order in which they came. */
  const decoded = new Map<RawFrame, Record<string, string>>()
  const waiting: { matches(frame: RawFrame): boolean; resolve(frame: RawFrame): void }[] = []
  const encoder = new HpackEncoder()
  const decoder = new HpackDecoder()
  const reader = new FrameReader((type, flags, streamId, bytes, start, end) => {
    const frame = { type, flags, streamId, payload: Buffer.from(bytes.subarray(start, end)) }
    if (type === frameType.headers) {
      const { fields } = decoder.decode(frame.payload, 0, frame.payload.length, 1_000_000)
      decoded.set(frame, Object.fromEntries(fields.map(({ name, value }) => [name, value])))
    }
    const at = waiting.findIndex((waiter) => waiter.matches(frame))
    if (at < 0) frames.push(frame)
    else waiting.splice(at, 1)[0]!.resolve(frame)
  })
  let skip = preface.length
  socket.on('data', (chunk: Buffer) => {
    const skipped = Math.min(skip, chunk.length)
    skip -= skipped
    reader.push(chunk.subarray(skipped))
  })

  const connection: RawConnection = {
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
      connection.frame(frameType.headers, flags, streamId, out.pending())
    },
    settings(values) {
      const payload = Buffer.alloc(6 * values.length)
      values.forEach(([id, value], at) => {
        payload.writeUInt16BE(id, 6 * at)
        payload.writeUInt32BE(value, 6 * at + 2)
      })
      connection.frame(frameType.settings, 0, 0, payload)
    },
    goAway(lastStreamId, code) {
      const payload = Buffer.alloc(8)
      payload.writeUInt32BE(lastStreamId)
      payload.writeUInt32BE(code, 4)
      connection.frame(frameType.goAway, 0, 0, payload)
    },
    answer(streamId, message) {
      connection.headers(streamId, grpcHead)
      connection.frame(frameType.data, 0, streamId, grpcMessage(message))
      connection.headers(streamId, grpcOkTrailers, frameFlag.endHeaders | frameFlag.endStream)
    },
    next(type, streamId) {
      const matches = (frame: RawFrame) =>
        frame.type === type && (streamId === undefined || frame.streamId === streamId)
      const at = frames.findIndex(matches)
      if (at >= 0) return Promise.resolve(frames.splice(at, 1)[0]!)
      return new Promise((resolve) => waiting.push({ matches, resolve }))
    },
    async nextHeaders(streamId) {
      const frame = await connection.next(frameType.headers, streamId)
      return { headers: decoded.get(frame)!, streamId: frame.streamId }
    },
    closed: new Promise((resolve) => socket.once('close', () => resolve())),
  }
  return connection
}

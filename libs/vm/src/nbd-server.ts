import { createServer, type Server, type Socket } from 'node:net'

/** What a network block device does with its clients' requests; errors become EIO. */
export type NbdDevice = {
  sizeBytes: number
  read(offset: number, length: number): Buffer
  write(offset: number, data: Buffer, forceUnitAccess: boolean): void
  flush(): void
}

// Numbers of the NBD protocol (NetworkBlockDevice/nbd doc/proto.md): fixed newstyle, simple replies.
const initMagic = Buffer.from('NBDMAGIC')
const optionMagic = Buffer.from('IHAVEOPT')
const optionReplyMagic = 0x3e889045565a9n
const requestMagic = 0x25609513
const replyMagic = 0x67446698
const handshakeFlags = 0b11
const transmissionFlags = 1 | 4 | 8 // has flags, flush, force unit access
const option = { exportName: 1, abort: 2, info: 6, go: 7 } as const
const reply = { ack: 1, info: 3, unsupported: 0x80000001 } as const
const command = { read: 0, write: 1, disconnect: 2, flush: 3 } as const
const forceUnitAccessFlag = 1
const errorIo = 5
const errorInvalid = 22
const payloadBytesMax = 64 * 1024 * 1024

/** Serves one block device on a unix socket to any number of clients, one after the other. */
export class NbdServer {
  readonly #server: Server
  readonly #clients = new Set<Socket>()

  constructor(device: NbdDevice) {
    this.#server = createServer((socket) => {
      this.#clients.add(socket)
      socket.on('error', () => socket.destroy())
      socket.on('close', () => this.#clients.delete(socket))
      void serveClient(socket, device).catch(() => socket.destroy())
    })
  }

  listen(path: string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject)
      this.#server.listen(path, resolve)
    })
  }

  /** Drops all clients at once: the cable is out. */
  disconnectAll(): void {
    for (const client of this.#clients) client.destroy()
  }

  async close(): Promise<void> {
    this.disconnectAll()
    await new Promise<void>((resolve) => this.#server.close(() => resolve()))
  }
}

async function serveClient(socket: Socket, device: NbdDevice): Promise<void> {
  const input = new ByteQueue(socket)
  const hello = Buffer.alloc(18)
  initMagic.copy(hello, 0)
  optionMagic.copy(hello, 8)
  hello.writeUInt16BE(handshakeFlags, 16)
  socket.write(hello)
  const noZeroes = ((await input.take(4)).readUInt32BE(0) & 2) !== 0
  if (!(await negotiate(socket, input, device, noZeroes))) return
  for (;;) {
    const header = await input.take(28)
    if (header.readUInt32BE(0) !== requestMagic) throw new Error('not an NBD request')
    const flags = header.readUInt16BE(4)
    const kind = header.readUInt16BE(6)
    const offset = Number(header.readBigUInt64BE(16))
    const length = header.readUInt32BE(24)
    if (kind === command.disconnect) {
      socket.end()
      return
    }
    if (length > payloadBytesMax) throw new Error('an NBD request beyond all bounds')
    const payload = kind === command.write ? await input.take(length) : undefined
    const answer = Buffer.alloc(16)
    answer.writeUInt32BE(replyMagic, 0)
    header.copy(answer, 8, 8, 16)
    let data: Buffer | undefined
    try {
      if (offset + length > device.sizeBytes) answer.writeUInt32BE(errorInvalid, 4)
      else if (kind === command.read) data = device.read(offset, length)
      else if (payload) device.write(offset, payload, (flags & forceUnitAccessFlag) !== 0)
      else if (kind === command.flush) device.flush()
      else answer.writeUInt32BE(errorInvalid, 4)
    } catch {
      answer.writeUInt32BE(errorIo, 4)
    }
    socket.cork()
    socket.write(answer)
    if (data) socket.write(data)
    socket.uncork()
  }
}

/** The option phase; true when the client goes on to use the device. */
async function negotiate(
  socket: Socket,
  input: ByteQueue,
  device: NbdDevice,
  noZeroes: boolean,
): Promise<boolean> {
  for (;;) {
    const header = await input.take(16)
    const kind = header.readUInt32BE(8)
    await input.take(header.readUInt32BE(12))
    const answer = (type: number, data: Buffer = Buffer.alloc(0)): void => {
      const head = Buffer.alloc(20)
      head.writeBigUInt64BE(optionReplyMagic, 0)
      head.writeUInt32BE(kind, 8)
      head.writeUInt32BE(type >>> 0, 12)
      head.writeUInt32BE(data.length, 16)
      socket.write(Buffer.concat([head, data]))
    }
    switch (kind) {
      case option.exportName: {
        const info = Buffer.alloc(noZeroes ? 10 : 134)
        info.writeBigUInt64BE(BigInt(device.sizeBytes), 0)
        info.writeUInt16BE(transmissionFlags, 8)
        socket.write(info)
        return true
      }
      case option.info:
      case option.go: {
        const info = Buffer.alloc(12)
        info.writeUInt16BE(0, 0)
        info.writeBigUInt64BE(BigInt(device.sizeBytes), 2)
        info.writeUInt16BE(transmissionFlags, 10)
        answer(reply.info, info)
        answer(reply.ack)
        if (kind === option.go) return true
        break
      }
      case option.abort:
        answer(reply.ack)
        socket.end()
        return false
      default:
        answer(reply.unsupported)
    }
  }
}

/** Exact amounts of bytes from a socket, waiting for them; the socket is paused while enough is queued. */
class ByteQueue {
  readonly #socket: Socket
  readonly #chunks: Buffer[] = []
  #length = 0
  #wake: (() => void) | undefined
  #ended = false

  constructor(socket: Socket) {
    this.#socket = socket
    socket.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk)
      this.#length += chunk.length
      if (this.#length > payloadBytesMax) socket.pause()
      this.#wake?.()
    })
    socket.on('close', () => {
      this.#ended = true
      this.#wake?.()
    })
  }

  async take(length: number): Promise<Buffer> {
    while (this.#length < length) {
      if (this.#ended) throw new Error('the client hung up')
      this.#socket.resume()
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
      this.#wake = undefined
    }
    const parts: Buffer[] = []
    for (let missing = length; missing > 0; ) {
      const chunk = this.#chunks[0]!
      if (chunk.length <= missing) {
        parts.push(chunk)
        this.#chunks.shift()
        missing -= chunk.length
      } else {
        parts.push(chunk.subarray(0, missing))
        this.#chunks[0] = chunk.subarray(missing)
        missing = 0
      }
    }
    this.#length -= length
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts)
  }
}

import { createSocket, type RemoteInfo } from 'node:dgram'
import { Fault } from '@kiln/service'

/** A file to read over TFTP (RFC 1350). */
export type TftpCall = {
  host: string
  port: number
  path: string
  bytesMax: number
  signal?: AbortSignal | undefined
  /** Time before a packet is sent again. */
  retryMs?: number
}

/** Reads files over TFTP; a port, so that tests can answer. */
export type Tftp = (call: TftpCall) => Promise<Buffer>

const opcode = { read: 1, data: 3, acknowledgement: 4, error: 5, options: 6 } as const
const defaultBlockBytes = 512
/** Fits an Ethernet frame with IP and UDP around it. */
const wantedBlockBytes = 1428
const defaultRetryMs = 1000
const sendsMax = 6
const notFound = 1

/** Reads one file, with a larger block size where the server agrees (RFC 2347, 2348) and packets sent again when lost. */
export const readTftp: Tftp = (call) =>
  new Promise((resolve, reject) => {
    const socket = createSocket(call.host.includes(':') ? 'udp6' : 'udp4')
    const blocks: Buffer[] = []
    let bytes = 0
    let blockBytes = defaultBlockBytes
    let expected = 1
    let peer: RemoteInfo | undefined
    let timer: NodeJS.Timeout | undefined
    const what = `tftp://${call.host}${call.path}`
    const finish = (problem?: Error): void => {
      clearTimeout(timer)
      call.signal?.removeEventListener('abort', aborted)
      socket.close()
      if (problem) reject(problem)
      else resolve(Buffer.concat(blocks))
    }
    const aborted = (): void => finish(new Error('no complete answer in time'))
    const send = (packet: Buffer, sent = 1): void => {
      clearTimeout(timer)
      if (sent > sendsMax) {
        finish(new Error(`${what} is not answered`))
        return
      }
      socket.send(packet, peer?.port ?? call.port, peer?.address ?? call.host, (error) => {
        if (error) finish(error)
      })
      timer = setTimeout(() => send(packet, sent + 1), (call.retryMs ?? defaultRetryMs) * sent)
    }
    const receive = (packet: Buffer, from: RemoteInfo): void => {
      if (packet.length < 4) return
      // The server answers from a port of its own, which stays the same.
      if (peer && (from.port !== peer.port || from.address !== peer.address)) return
      peer ??= from
      const number = packet.readUInt16BE(2)
      switch (packet.readUInt16BE(0)) {
        case opcode.error:
          finish(refusal(what, number, packet))
          return
        case opcode.options:
          if (expected !== 1 || blocks.length > 0) return
          blockBytes = agreedBlockBytes(packet)
          send(acknowledgement(0))
          return
        case opcode.data: {
          if (number !== (expected & 0xffff)) {
            if (number === ((expected - 1) & 0xffff)) send(acknowledgement(number))
            return
          }
          const block = packet.subarray(4)
          bytes += block.length
          if (bytes > call.bytesMax) {
            finish(new Fault('RESOURCE_TOO_LARGE', `${what} has more than ${call.bytesMax} bytes`))
            return
          }
          blocks.push(block)
          expected++
          if (block.length >= blockBytes) send(acknowledgement(number))
          else socket.send(acknowledgement(number), from.port, from.address, () => finish())
        }
      }
    }
    socket.on('message', receive)
    socket.on('error', (error) => finish(error))
    if (call.signal?.aborted) {
      aborted()
      return
    }
    call.signal?.addEventListener('abort', aborted, { once: true })
    send(readRequest(call.path))
  })

function readRequest(path: string): Buffer {
  const fields = [path, 'octet', 'blksize', String(wantedBlockBytes), 'tsize', '0']
  return Buffer.concat([Buffer.from([0, opcode.read]), Buffer.from(`${fields.join('\0')}\0`)])
}

const acknowledgement = (block: number): Buffer =>
  Buffer.from([0, opcode.acknowledgement, (block >> 8) & 0xff, block & 0xff])

/** What the server takes of the options; one that it leaves out keeps its default. */
function agreedBlockBytes(packet: Buffer): number {
  const fields = packet.subarray(2).toString('latin1').split('\0')
  const at = fields.findIndex((field, index) => index % 2 === 0 && field.toLowerCase() === 'blksize')
  const size = at < 0 ? defaultBlockBytes : Number(fields[at + 1])
  return Number.isInteger(size) && size >= 8 && size <= wantedBlockBytes ? size : defaultBlockBytes
}

function refusal(what: string, code: number, packet: Buffer): Fault {
  const text = packet.subarray(4).toString('latin1').replace(/\0.*$/s, '')
  return code === notFound || /not found/i.test(text)
    ? new Fault('RESOURCE_NOT_FOUND', `${what} is not there`)
    : new Fault('RESOURCE_REFUSED', `${what} was refused: ${text || `error ${code}`}`)
}

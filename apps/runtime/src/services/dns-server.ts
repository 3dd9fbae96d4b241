import { createSocket, type Socket as UdpSocket } from 'node:dgram'
import { createServer, isIPv6, type Server, type Socket } from 'node:net'
import { describeError, Fault, type Log } from '@kiln/service'
import type { Question } from 'dns-packet'
import { respond } from './dns-message.ts'
import type { ServiceAnswer } from './service-answer.ts'

const retryMs = 5_000
const connectionsMax = 64
/** RFC 7766 section 6.2.3: the server decides how long a connection may idle. */
const idleMs = 10_000
/** A question for a name takes less than 300 bytes; options may follow. */
const requestBytesMax = 4096

export type DnsServer = {
  /** Where it listens; undefined while the address is taken. */
  readonly port: number | undefined
  close(): Promise<void>
}

/**
 * Answers DNS over UDP and TCP at one address. An address that is taken or not allowed is tried again: names that cannot be
 * resolved must not keep pods from running.
 */
export async function serveDns(input: {
  address: string
  /** 0 takes a free one. */
  port: number
  answer(question: Question): ServiceAnswer
  log: Log
}): Promise<DnsServer> {
  const { address, log } = input
  let sockets: { udp: UdpSocket; tcp: Server } | undefined
  let retry: NodeJS.Timeout | undefined
  let closed = false
  let told = false

  const reply = (request: Buffer, transport: 'udp' | 'tcp'): Buffer | undefined => {
    try {
      return respond(request, transport, input.answer)
    } catch (error) {
      log.error({ error: describeError(error) }, 'a DNS question cannot be answered')
      return undefined
    }
  }

  const open = async (): Promise<void> => {
    try {
      const tcp = await listenTcp(address, input.port, (request) => reply(request, 'tcp'))
      const { port } = tcp.address() as { port: number }
      const udp = await bindUdp(address, port).catch((error: unknown) => {
        tcp.close()
        throw error
      })
      udp.on('message', (request, from) => {
        const response = reply(request, 'udp')
        if (response) udp.send(response, from.port, from.address, () => undefined)
      })
      udp.on('error', (error) => log.warn({ error: describeError(error) }, 'DNS socket failed'))
      tcp.on('error', (error) => log.warn({ error: describeError(error) }, 'DNS listener failed'))
      sockets = { udp, tcp }
      if (closed) await shut()
      else log.info({ address, port }, 'names of services are answered')
    } catch (error) {
      const fault = new Fault('SERVICE_DNS_UNAVAILABLE', `cannot answer DNS at ${address}:${input.port}`, {
        cause: error,
      })
      if (!told) log.warn({ error: describeError(fault) }, 'names of services are not answered, trying on')
      told = true
      if (!closed) retry = setTimeout(() => void open(), retryMs)
    }
  }

  const shut = async (): Promise<void> => {
    const open = sockets
    sockets = undefined
    if (!open) return
    await Promise.all([
      new Promise<void>((resolve) => open.udp.close(() => resolve())),
      new Promise<void>((resolve) => {
        open.tcp.close(() => resolve())
        connectionsOf.get(open.tcp)?.forEach((socket) => {
          socket.destroy()
        })
      }),
    ])
  }

  await open()
  return {
    get port() {
      return sockets?.udp.address().port
    },
    close: async () => {
      closed = true
      clearTimeout(retry)
      await shut()
    },
  }
}

function bindUdp(address: string, port: number): Promise<UdpSocket> {
  return new Promise((resolve, reject) => {
    const socket = createSocket(isIPv6(address) ? 'udp6' : 'udp4')
    socket.once('error', (error) => {
      socket.close()
      reject(error)
    })
    socket.bind(port, address, () => {
      socket.removeAllListeners('error')
      resolve(socket)
    })
  })
}

const connectionsOf = new WeakMap<Server, Set<Socket>>()

function listenTcp(
  address: string,
  port: number,
  reply: (request: Buffer) => Buffer | undefined,
): Promise<Server> {
  return new Promise((resolve, reject) => {
    const connections = new Set<Socket>()
    const server = createServer((socket) => {
      connections.add(socket)
      socket.on('close', () => connections.delete(socket))
      talk(socket, reply)
    })
    server.maxConnections = connectionsMax
    connectionsOf.set(server, connections)
    server.once('error', reject)
    server.listen(port, address, () => {
      server.removeListener('error', reject)
      resolve(server)
    })
  })
}

/** RFC 1035 section 4.2.2: each message goes behind its length. */
function talk(socket: Socket, reply: (request: Buffer) => Buffer | undefined): void {
  let pending: Buffer = Buffer.alloc(0)
  socket.setTimeout(idleMs, () => socket.destroy())
  socket.on('error', () => socket.destroy())
  socket.on('data', (chunk) => {
    pending = Buffer.concat([pending, chunk])
    while (pending.length >= 2) {
      const length = pending.readUInt16BE(0)
      if (length > requestBytesMax) return void socket.destroy()
      if (pending.length < length + 2) return
      const response = reply(pending.subarray(2, length + 2))
      pending = pending.subarray(length + 2)
      if (!response) return void socket.destroy()
      const size = Buffer.alloc(2)
      size.writeUInt16BE(response.length)
      // Who does not read gets no more answers.
      if (!socket.write(Buffer.concat([size, response]))) return void socket.destroySoon()
    }
  })
}

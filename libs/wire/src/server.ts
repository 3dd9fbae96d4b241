import http, { type Server as HttpServer, type RequestListener } from 'node:http'
import type net from 'node:net'
import { type Clock, systemClock } from '@kiln/service'
import type { StreamHandler, UnaryHandler } from './grpc/call.ts'
import type { CallHooks } from './grpc/hooks.ts'
import { createRouter } from './grpc/router.ts'
import { grpcCode } from './grpc/status.ts'
import { openHttp } from './http-bridge.ts'
import { Connection, type ConnectionPort } from './http2/connection.ts'
import { preface } from './http2/frames.ts'
import { ServerSide } from './http2/server-side.ts'
import type { Http2Stream } from './http2/stream.ts'
import { createTurn } from './http2/turn.ts'
import { defaultLimits, type WireLimits } from './limits.ts'
import { createListener, type ListenPlace, peerCommonName, type WireTls } from './listener.ts'

export type WireServerOptions = Omit<CallHooks, 'now'> & {
  tls?: WireTls
  /** Takes all that is not gRPC, over HTTP/1.1 and HTTP/2: an http server that does not listen itself, or a handler. */
  http?: HttpServer | RequestListener
  limits?: Partial<WireLimits>
  clock?: Clock
  /** Message of the `unavailable` status of calls still open when the server closes. */
  closeMessage?: string
  /** Message of the `resource exhausted` status when a connection has too many unread answers. */
  overloadMessage?: string
  /** A connection was ended because of what the peer did. */
  onProtocolError?(error: Error, peer: { address: string; port: number }): void
}

export type WireStats = {
  connections: number
  streams: number
  bytesIn: number
  bytesOut: number
  /** Answers that wait for their readers, over all connections. */
  bufferedBytes: number
}

export type WireServer = {
  unary(path: string, handler: UnaryHandler): void
  stream(path: string, handler: StreamHandler): void
  /** Where it listens: of a unix socket its path and port 0. */
  listen(at: ListenPlace): Promise<{ host: string; port: number }>
  /** New connections use this certificate from now on. */
  renewTls(tls: WireTls): void
  stats(): WireStats
  /**
   * Stops accepting, ends streams with `unavailable`, lets unary calls finish for `graceMs` (default 5000), closes all
   * connections.
   */
  close(options?: { graceMs?: number }): Promise<void>
}

/** How exactly deadlines and silence are noticed. */
const sweepMs = 100
/** A connection must say what it speaks within this time. */
const firstBytesMs = 10_000

/** A gRPC server on plain sockets that shares its port with an HTTP server. */
export function createWireServer(options: WireServerOptions = {}): WireServer {
  const limits: WireLimits = { ...defaultLimits, ...options.limits }
  const clock = options.clock ?? systemClock
  const closeMessage = options.closeMessage ?? 'server is shutting down'
  const router = createRouter(
    { ...options, now: clock.now },
    options.overloadMessage ?? 'too many unread answers',
  )
  const httpServer = typeof options.http === 'function' ? http.createServer(options.http) : options.http
  const connections = new Set<Connection>()
  const plainSockets = new Set<net.Socket>()
  const gone = { bytesIn: 0, bytesOut: 0 }
  let closing = false
  let cancelSweep: (() => void) | undefined

  const port: ConnectionPort = {
    ...createTurn(),
    now: clock.now,
    protocolError(error, connection) {
      options.onProtocolError?.(error, connection.peer)
    },
    gone(connection) {
      connections.delete(connection)
      gone.bytesIn += connection.bytesIn
      gone.bytesOut += connection.bytesOut
    },
  }

  function openStream(stream: Http2Stream): void {
    if (stream.head.isGrpc) router.open(stream)
    else openHttp(stream, httpServer)
  }

  function openConnection(socket: net.Socket, rest: Buffer): void {
    const peer = {
      address: socket.remoteAddress ?? '',
      port: socket.remotePort ?? 0,
      encrypted: 'encrypted' in socket,
      commonName: peerCommonName(socket),
    }
    const connection = new Connection(
      socket,
      peer,
      port,
      limits,
      (connection) => new ServerSide(connection, openStream),
    )
    connections.add(connection)
    socket.on('data', (chunk: Buffer) => connection.receive(chunk))
    if (rest.length > 0) connection.receive(rest)
    if (closing) connection.shutDown()
  }

  function openPlainHttp(socket: net.Socket, first: Buffer): void {
    if (httpServer === undefined) {
      socket.end('HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')
      return
    }
    plainSockets.add(socket)
    socket.once('close', () => plainSockets.delete(socket))
    socket.pause()
    if (first.length > 0) socket.unshift(first)
    httpServer.emit('connection', socket)
    process.nextTick(() => socket.resume())
  }

  /** Tells HTTP/2 with prior knowledge from HTTP/1 by the first bytes (RFC 9113, section 3.3). */
  function accept(socket: net.Socket): void {
    if (closing) {
      socket.destroy()
      return
    }
    let first: Buffer = Buffer.alloc(0)
    const impatient = clock.after(firstBytesMs, () => socket.destroy())
    const forget = () => impatient()
    const onData = (chunk: Buffer) => {
      first = first.length === 0 ? chunk : Buffer.concat([first, chunk])
      const compared = Math.min(first.length, preface.length)
      const isHttp2 = first.compare(preface, 0, compared, 0, compared) === 0
      if (isHttp2 && compared < preface.length) return
      impatient()
      socket.removeListener('data', onData)
      socket.removeListener('close', forget)
      if (isHttp2) openConnection(socket, first.subarray(preface.length))
      else openPlainHttp(socket, first)
    }
    socket.once('close', forget)
    socket.on('data', onData)
    socket.resume()
  }

  function sweep(): void {
    const now = clock.now()
    for (const connection of connections) connection.sweep(now)
    cancelSweep = clock.after(sweepMs, sweep)
  }

  const listener = createListener(options.tls, limits, accept)

  /** Ends what will not end by itself; unary calls go on. */
  function endStreams(): void {
    for (const connection of connections) {
      connection.shutDown()
      for (const stream of [...connection.streams.values()])
        stream.sink?.onShutdown({ code: grpcCode.unavailable, message: closeMessage })
    }
  }

  return {
    unary: router.unary,
    stream: router.stream,
    async listen(at) {
      const address = await listener.listen(at)
      cancelSweep = clock.after(sweepMs, sweep)
      return address
    },
    renewTls: listener.renewTls,
    stats() {
      const stats = {
        connections: connections.size + plainSockets.size,
        streams: 0,
        bufferedBytes: 0,
        ...gone,
      }
      for (const connection of connections) {
        stats.streams += connection.streams.size
        stats.bytesIn += connection.bytesIn
        stats.bytesOut += connection.bytesOut
        stats.bufferedBytes += connection.queuedBytes
      }
      return stats
    },
    async close({ graceMs = 5000 } = {}) {
      closing = true
      listener.close()
      endStreams()
      const deadline = clock.now() + graceMs
      while (clock.now() < deadline) {
        httpServer?.closeIdleConnections()
        if (plainSockets.size === 0 && [...connections].every((connection) => connection.idle)) break
        await pause(clock, 10)
      }
      for (const connection of [...connections]) connection.end()
      for (const socket of plainSockets) socket.destroy()
      cancelSweep?.()
    },
  }
}

function pause(clock: Clock, ms: number): Promise<void> {
  return new Promise((resolve) => clock.after(ms, resolve))
}

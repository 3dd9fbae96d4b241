import { assert, systemClock } from '@kiln/service'
import type { CallOptions, WireClient, WireClientOptions } from './client-options.ts'
import { openClientSocket } from './client-socket.ts'
import { type CallListener, ClientExchange } from './grpc/client-exchange.ts'
import { CallError, formatGrpcTimeout, grpcCode } from './grpc/status.ts'
import { ClientSide } from './http2/client-side.ts'
import { Connection, type ConnectionPort } from './http2/connection.ts'
import type { Fields } from './http2/hpack-encoder.ts'
import { createTurn } from './http2/turn.ts'
import { defaultClientLimits, type WireLimits } from './limits.ts'

type Link = { connection: Connection; side: ClientSide }
/** `link` is there once the socket is. */
type Attempt = { link: Link | undefined; settled(): void; cancel(): void }

const waitingCallsMaxDefault = 10_000
const backoffMinMsDefault = 100
const backoffMaxMsDefault = 2000
/** Request heads remembered. */
const headsMax = 256
/** No timer runs longer. */
const timerMsMax = 3_600_000

/**
 * A gRPC client of one server on a plain or TLS socket. It connects when a call needs it, one connection at a time, and does not repeat
 * calls: `CallError.effect` says whether the caller may.
 */
export function createWireClient(options: WireClientOptions): WireClient {
  const { host, port, tls } = options
  const limits: WireLimits = { ...defaultClientLimits, ...options.limits }
  const clock = options.clock ?? systemClock
  const where = `${host.includes(':') ? `[${host}]` : host}:${port}`
  const waitingCallsMax = options.waitingCallsMax ?? waitingCallsMaxDefault
  const backoffMinMs = options.backoffMinMs ?? backoffMinMsDefault
  const backoffMaxMs = options.backoffMaxMs ?? backoffMaxMsDefault
  const requestHead = createHeads(tls === undefined ? 'http' : 'https', options.authority ?? where)
  const turn = createTurn()

  /** Calls that wait, with the bytes that wait with them. */
  const waiting = new Map<ClientExchange, number>()
  let waitingBytes = 0
  const links = new Set<Link>()
  /** Takes new calls. */
  let current: Link | undefined
  /** The attempt to connect that is under way. */
  let attempt: Attempt | undefined
  let retryAt = Number.NEGATIVE_INFINITY
  let backoffMs = backoffMinMs
  let lastFailure: Error | undefined
  let closed = false
  /** Called when an attempt to connect has ended either way, or the client. */
  const wakers = new Set<() => void>()
  let timerAt = Number.POSITIVE_INFINITY
  let cancelTimer: (() => void) | undefined
  const gone = { bytesIn: 0, bytesOut: 0 }

  // --- Connecting

  function connect(): void {
    if (closed || current !== undefined || attempt !== undefined || clock.now() < retryAt) return
    const impatient = clock.after(limits.handshakeTimeoutMs, () =>
      attemptFailed(new Error(`no connection within ${limits.handshakeTimeoutMs} ms`)),
    )
    const cancelSocket = openClientSocket({ host, port }, tls, (outcome) => {
      if (outcome instanceof Error) attemptFailed(outcome)
      else present.link = openLink(outcome, () => attemptDone(present))
    })
    const present: Attempt = {
      link: undefined,
      settled: impatient,
      cancel() {
        impatient()
        attempt = undefined
        if (this.link === undefined) cancelSocket()
        else this.link.connection.socket.destroy()
      },
    }
    attempt = present
  }

  function attemptFailed(error: Error): void {
    attempt?.cancel()
    lastFailure = error
    retryAt = clock.now() + backoffMs
    backoffMs = Math.min(2 * backoffMs, backoffMaxMs)
    failWaiting()
    wake()
  }

  function attemptDone(done: Attempt): void {
    if (attempt !== done) return
    attempt = undefined
    done.settled()
    backoffMs = backoffMinMs
    current = done.link
    current!.connection.socket.unref()
    fill()
    wake()
  }

  /** Speaks HTTP/2 on a socket; `isReady` is called when the server has said what it allows. */
  function openLink(socket: Connection['socket'], isReady: () => void): Link {
    let link: Link | undefined
    const connectionPort: ConnectionPort = {
      now: clock.now,
      dirty: turn.dirty,
      later() {},
      protocolError: () => onDraining(link!),
      gone: () => onGone(link!),
    }
    const peer = {
      address: socket.remoteAddress ?? '',
      port: socket.remotePort ?? 0,
      encrypted: 'encrypted' in socket,
      commonName: undefined,
    }
    let side: ClientSide | undefined
    const connection = new Connection(socket, peer, connectionPort, limits, (connection) => {
      side = new ClientSide(connection, { ready: isReady, room: fill, draining: () => onDraining(link!) })
      return side
    })
    link = { connection, side: side! }
    links.add(link)
    socket.on('data', (chunk: Buffer) => connection.receive(chunk))
    return link
  }

  function onDraining(link: Link): void {
    if (current !== link) return
    current = undefined
    if (waiting.size > 0) connect()
  }

  function onGone(link: Link): void {
    links.delete(link)
    gone.bytesIn += link.connection.bytesIn
    gone.bytesOut += link.connection.bytesOut
    const failure = link.connection.failure ?? new Error('the connection was closed')
    if (attempt?.link === link) attemptFailed(failure)
    if (current === link) {
      current = undefined
      lastFailure = failure
    }
    if (waiting.size > 0) connect()
    if (current === undefined && attempt === undefined) failWaiting()
  }

  function wake(): void {
    for (const waker of [...wakers]) waker()
  }

  function unavailable(): CallError {
    const why = closed ? 'the client is closed' : (lastFailure?.message ?? 'no reason known')
    const message = `no connection to ${where}: ${why}`
    return new CallError({ code: grpcCode.unavailable, message }, 'none', { cause: lastFailure })
  }

  // --- Calls

  function start(
    path: string,
    callOptions: CallOptions,
    endless: boolean,
    listener: CallListener,
  ): ClientExchange {
    const { timeoutMs, headers } = callOptions
    return new ClientExchange({
      head: requestHead(path, timeoutMs, headers),
      deadline: timeoutMs === undefined ? undefined : clock.now() + timeoutMs,
      endless,
      listener,
    })
  }

  /** Puts a call on its way, or where it waits for one. */
  function submit(exchange: ClientExchange): void {
    if (current !== undefined && waiting.size === 0 && current.side.hasRoom && hasMemory()) {
      begin(exchange, current)
      return
    }
    connect()
    const refusal = refuse(exchange)
    if (refusal !== undefined) {
      setImmediate(() => exchange.fail(refusal))
      return
    }
    waiting.set(exchange, exchange.bufferedBytes)
    waitingBytes += exchange.bufferedBytes
    if (exchange.deadline !== undefined) schedule(exchange.deadline)
  }

  function refuse(exchange: ClientExchange): CallError | undefined {
    if (exchange.deadline !== undefined && exchange.deadline <= clock.now())
      return new CallError({ code: grpcCode.deadlineExceeded, message: 'deadline exceeded' }, 'none')
    if (current === undefined && attempt === undefined) return unavailable()
    if (waiting.size < waitingCallsMax && hasMemory()) return undefined
    return new CallError({ code: grpcCode.resourceExhausted, message: 'too many calls under way' }, 'none')
  }

  function hasMemory(): boolean {
    return waitingBytes + (current?.connection.queuedBytes ?? 0) <= limits.responseBytesMax
  }

  function unwait(exchange: ClientExchange): void {
    waitingBytes -= waiting.get(exchange) ?? 0
    waiting.delete(exchange)
  }

  function begin(exchange: ClientExchange, link: Link): void {
    exchange.begin(link.side)
    const pingAt = link.connection.lastHeardAt + limits.keepAliveIntervalMs
    schedule(Math.min(exchange.deadline ?? pingAt, pingAt))
  }

  /** Gives calls that wait their streams, while there is room. */
  function fill(): void {
    if (waiting.size > 0 && current !== undefined) {
      for (const exchange of waiting.keys()) {
        if (current === undefined || !current.side.hasRoom) break
        unwait(exchange)
        begin(exchange, current)
      }
    }
    // Nothing is under way: no timer keeps the process.
    if (cancelTimer !== undefined && waiting.size === 0 && isQuiet()) {
      cancelTimer()
      cancelTimer = undefined
      timerAt = Number.POSITIVE_INFINITY
    }
  }

  function isQuiet(): boolean {
    for (const { connection } of links) if (!connection.isQuiet) return false
    return true
  }

  function failWaiting(): void {
    const failed = [...waiting.keys()]
    waiting.clear()
    waitingBytes = 0
    for (const exchange of failed) exchange.fail(unavailable())
  }

  // --- Time

  function schedule(at: number): void {
    if (at >= timerAt) return
    cancelTimer?.()
    timerAt = at
    cancelTimer = clock.after(Math.min(Math.max(1, at - clock.now()), timerMsMax), onTimer)
  }

  function onTimer(): void {
    cancelTimer = undefined
    timerAt = Number.POSITIVE_INFINITY
    const now = clock.now()
    let next = Number.POSITIVE_INFINITY
    for (const { connection } of [...links]) {
      connection.sweep(now)
      next = Math.min(next, connection.ended ? next : connection.sweepDue)
    }
    for (const exchange of [...waiting.keys()]) {
      if (exchange.deadline === undefined) continue
      if (exchange.deadline > now) next = Math.min(next, exchange.deadline)
      else {
        unwait(exchange)
        exchange.onDeadline()
      }
    }
    if (next !== Number.POSITIVE_INFINITY) schedule(next)
  }

  function request(
    path: string,
    message: Uint8Array,
    done: (error: CallError | undefined, answer: Uint8Array | undefined) => void,
    callOptions: CallOptions = {},
  ): () => void {
    let answer: Uint8Array | undefined
    const exchange = start(path, callOptions, false, {
      onMessage(bytes) {
        if (answer === undefined) answer = bytes
        else exchange.fail(violation('more than one message in a unary answer'))
      },
      onClose(error) {
        if (error !== undefined) done(error, undefined)
        else if (answer === undefined) done(violation('the answer has no message'), undefined)
        else done(undefined, answer)
      },
    })
    exchange.send(message)
    exchange.end()
    submit(exchange)
    return () => cancel(exchange)
  }

  function cancel(exchange: ClientExchange): void {
    unwait(exchange)
    exchange.stop({ code: grpcCode.cancelled, message: 'cancelled' })
  }

  return {
    request,
    unary(path, message, callOptions) {
      return new Promise((resolve, reject) => {
        request(
          path,
          message,
          (error, answer) => (error === undefined ? resolve(answer!) : reject(error)),
          callOptions,
        )
      })
    },
    stream(path, listener, callOptions = {}) {
      const exchange = start(path, callOptions, true, listener)
      submit(exchange)
      return {
        get open() {
          return !exchange.closed
        },
        get bufferedBytes() {
          return exchange.bufferedBytes
        },
        get writable() {
          return exchange.writable
        },
        send: (message) => exchange.send(message),
        end: () => exchange.end(),
        cancel: () => cancel(exchange),
        pause: () => exchange.pause(),
        resume: () => exchange.resume(),
      }
    },
    get connected() {
      return current !== undefined
    },
    connect,
    async whenConnected(timeoutMs) {
      const until = clock.now() + timeoutMs
      while (current === undefined) {
        const leftMs = until - clock.now()
        if (closed || leftMs <= 0) throw unavailable()
        connect()
        const pauseMs = attempt === undefined ? Math.min(leftMs, retryAt - clock.now()) : leftMs
        await new Promise<void>((resolve) => {
          const on = () => {
            stop()
            wakers.delete(on)
            resolve()
          }
          const stop = clock.after(Math.max(1, pauseMs), on)
          wakers.add(on)
        })
      }
    },
    reconnect() {
      const had = attempt !== undefined
      attempt?.cancel()
      retryAt = Number.NEGATIVE_INFINITY
      backoffMs = backoffMinMs
      current = undefined
      for (const { connection, side } of [...links]) {
        for (const stream of [...connection.streams.values()])
          stream.sink?.onShutdown({ code: grpcCode.unavailable, message: 'connecting anew' })
        side.drain()
      }
      if (had || waiting.size > 0) connect()
    },
    stats() {
      const stats = {
        connected: current !== undefined,
        connections: links.size,
        streams: 0,
        waiting: waiting.size,
        ...gone,
      }
      for (const { connection } of links) {
        stats.streams += connection.streams.size
        stats.bytesIn += connection.bytesIn
        stats.bytesOut += connection.bytesOut
      }
      return stats
    },
    close() {
      if (closed) return
      closed = true
      attempt?.cancel()
      current = undefined
      failWaiting()
      for (const { connection } of [...links]) {
        connection.failure ??= new Error('the client is closed')
        connection.end()
      }
      cancelTimer?.()
      wake()
    },
  }
}

function violation(message: string): CallError {
  return new CallError({ code: grpcCode.internal, message }, 'unknown')
}

/** Makes request heads and remembers the usual ones, so that the encoder knows them by identity. */
function createHeads(scheme: string, authority: string) {
  const known = new Map<string, Fields>()
  return (path: string, timeoutMs: number | undefined, headers: Fields | undefined): Fields => {
    const timeout = timeoutMs === undefined ? '' : formatGrpcTimeout(timeoutMs)
    const key = `${path} ${timeout}`
    if (headers === undefined) {
      const head = known.get(key)
      if (head !== undefined) return head
    }
    assert(/^\/[!-~]+$/.test(path), 'a path is of printable ASCII and begins with a slash')
    const head: [string, string][] = [
      [':method', 'POST'],
      [':scheme', scheme],
      [':path', path],
      [':authority', authority],
      ['content-type', 'application/grpc'],
      ['te', 'trailers'],
    ]
    if (timeout !== '') head.push(['grpc-timeout', timeout])
    for (const [name, value] of headers ?? []) {
      assert(/^[0-9a-z_.-]+$/.test(name) && /^[ -~]*$/.test(value), `header ${name} is fit to send`)
      head.push([name, value])
    }
    if (headers === undefined) {
      if (known.size >= headsMax) known.clear()
      known.set(key, head)
    }
    return head
  }
}

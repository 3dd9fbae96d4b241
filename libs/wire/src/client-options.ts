import type { Clock } from '@kiln/service'
import type { WireClientTls } from './client-socket.ts'
import type { CallListener } from './grpc/client-exchange.ts'
import type { CallError } from './grpc/status.ts'
import type { Fields } from './http2/hpack-encoder.ts'
import type { WireLimits } from './limits.ts'

export type WireClientOptions = {
  host: string
  port: number
  /** Makes the connection TLS; a function is asked whenever a connection opens. */
  tls?: WireClientTls | (() => WireClientTls)
  /** The `:authority` of requests; default host and port. */
  authority?: string
  limits?: Partial<WireLimits>
  /** Calls that wait for a connection or a place on it; more are refused. Default 10,000. */
  waitingCallsMax?: number
  /** Pause after a failed connection, doubled from one to the next. */
  backoffMinMs?: number
  backoffMaxMs?: number
  clock?: Clock
}

export type CallOptions = {
  /** The call ends with `deadline exceeded`; the server is told with `grpc-timeout`. */
  timeoutMs?: number
  /** More request headers: lower-case names, values of printable ASCII. */
  headers?: Fields
}

/** A call with a stream of messages either way. */
export type ClientStream = {
  /** False once the call is over. */
  readonly open: boolean
  readonly bufferedBytes: number
  /** False while more is buffered than a slow server should cause, or there is no connection yet. */
  readonly writable: boolean
  /** Sends a message, kept by reference until sent. Returns `writable`. Without effect once the call is over. */
  send(message: Uint8Array): boolean
  /** Sends no more messages; the server's may still come. */
  end(): void
  /** Gives the call up; `onClose` follows at once, with `cancelled`. */
  cancel(): void
  /** Stops delivering messages; the server may fill one flow-control window. */
  pause(): void
  resume(): void
}

export type WireClientStats = {
  connected: boolean
  connections: number
  streams: number
  waiting: number
  bytesIn: number
  bytesOut: number
}

export type WireClient = {
  /** One request, one answer. Rejects with a `CallError`. */
  unary(path: string, message: Uint8Array, options?: CallOptions): Promise<Uint8Array>
  /**
   * The same without a promise; `done` is called exactly once, in a later turn, unless the returned function gives the call up: then
   * at once.
   */
  request(
    path: string,
    message: Uint8Array,
    done: (error: CallError | undefined, answer: Uint8Array | undefined) => void,
    options?: CallOptions,
  ): () => void
  /** Opens a stream of messages in both directions. */
  stream(path: string, listener: CallListener, options?: CallOptions): ClientStream
  /** True while calls need not wait for a connection. */
  readonly connected: boolean
  /** Begins to connect unless there is a connection, one coming, or one just failed. */
  connect(): void
  /** Tries until there is a connection; rejects with a `CallError` when the time is up or the client closed. */
  whenConnected(timeoutMs: number): Promise<void>
  /** Further calls use a new connection; streams end with `unavailable`, unary calls under way are waited for. */
  reconnect(): void
  stats(): WireClientStats
  /** Ends everything at once, also a connection that is only coming. Calls fail with `unavailable`. */
  close(): void
}

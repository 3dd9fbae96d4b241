import type { Status } from './status.ts'

/** Who is at the other end of a connection. */
export type Peer = {
  address: string
  port: number
  encrypted: boolean
  /** Common name of a client certificate that verified against the configured CA. */
  commonName: string | undefined
}

/** What is known of a call from its request headers. */
export type CallInfo = {
  /** `/package.Service/Method`. */
  readonly path: string
  readonly peer: Peer
  /** The `token` header, else `authorization`: etcd's place for an auth token. */
  readonly token: string | undefined
  /** The client asked to be told when there is no leader (`hasleader: true`). */
  readonly hasLeader: boolean
  /** Milliseconds of the server's clock (`Clock.now()`) at which the call ends by itself. */
  readonly deadline: number | undefined
  /** True once nobody waits for an answer: answered, cancelled, timed out or disconnected. */
  readonly closed: boolean
  /** A request header by its lower-case name; repeated ones are joined by a comma. */
  header(name: string): string | undefined
}

/** How a call came to its end, told to `onClose` exactly once. */
export type CloseReason = 'done' | 'cancelled' | 'deadline' | 'disconnected' | 'refused'

/** One request, one answer. The handler may keep it and answer in a later turn. */
export type UnaryCall = CallInfo & {
  /** Answers with a message and status 0. Without effect once closed. */
  reply(message: Uint8Array): void
  /** Answers with a status other than 0. Without effect once closed. */
  fail(code: number, message: string): void
  /** Called once if the call ends without an answer from the handler. */
  onAbandoned: ((reason: CloseReason) => void) | undefined
}

/**
 * Answers a request: with the bytes, a promise of them, or `undefined` when it will call `call.reply` or `call.fail`
 * itself. The request is a view of the bytes received and may be kept; it keeps a chunk of up to 64 KiB alive.
 */
export type UnaryHandler = (
  request: Uint8Array,
  call: UnaryCall,
) => Uint8Array | undefined | Promise<Uint8Array>

/** A call with a stream of messages in one or both directions. */
export type StreamCall = CallInfo & {
  /** Bytes given to `send` that did not go into the socket's buffer yet. */
  readonly bufferedBytes: number
  /** False while more is buffered than a slow reader should cause; `onDrain` follows. */
  readonly writable: boolean
  /**
   * Sends a message, in two parts if a shared tail follows a head of its own (both are kept by reference until sent).
   * Returns `writable`. Without effect once closed.
   */
  send(message: Uint8Array, tail?: Uint8Array): boolean
  /**
   * Begins a message of so many bytes, which follow by `sendPart` as there is room for them: for one that should not be in memory
   * as a whole. Nothing but its parts is sent until it is complete; `end` before that breaks it off.
   */
  beginMessage(bytes: number): void
  /** The next bytes of the message begun. Returns `writable`. */
  sendPart(bytes: Uint8Array): boolean
  /** Ends the call with a status (0 by default) after everything sent. */
  end(status?: Status): void
  /** Stops delivering messages; the peer may fill one flow-control window. */
  pause(): void
  resume(): void
}

/** What a streaming call reacts to. Each is called from the event loop, never from within `send` or `end`. */
export type StreamListener = {
  onMessage?(message: Uint8Array): void
  /** The client will send no more messages. */
  onEnd?(): void
  /** `writable` became true again. */
  onDrain?(): void
  /** The call is over; called exactly once. */
  onClose?(reason: CloseReason): void
}

export type StreamHandler = (call: StreamCall) => StreamListener

import { grpcHead } from '../http2/hpack-encoder.ts'
import { headerOf } from '../http2/request-head.ts'
import type { Http2Stream, StreamSink } from '../http2/stream.ts'
import type { CloseReason, Peer, StreamCall, StreamHandler, StreamListener } from './call.ts'
import type { CallHooks } from './hooks.ts'
import { MessageReader } from './message-reader.ts'
import { GrpcError, grpcCode, okStatus, type Status } from './status.ts'
import { trailers, trailersOnly } from './trailers.ts'

/** A call with any number of messages either way on a stream. */
export class StreamExchange implements StreamCall, StreamSink {
  closed = false
  private readonly stream: Http2Stream
  private readonly hooks: CallHooks
  private readonly startedAt: number
  private readonly reader: MessageReader
  private listener: StreamListener = {}
  private headSent = false
  private paused = false
  /** Messages that came while paused, their bytes (counted with the connection's unfinished ones), and whether the end did. */
  private held: Uint8Array[] = []
  private heldBytes = 0
  /** Credit of the body kept back while paused. */
  private owed = 0
  private endHeld = false
  private code: number = grpcCode.ok
  private reason: CloseReason | undefined
  private messagesIn = 0
  private messagesOut = 0

  constructor(stream: Http2Stream, hooks: CallHooks) {
    this.stream = stream
    this.hooks = hooks
    this.startedAt = hooks.now()
    this.reader = new MessageReader(stream.connection, (message) => this.onMessage(message))
    hooks.onCallStart?.(stream.head.path, 'stream')
  }

  /** Hands the call to its handler. */
  start(handler: StreamHandler): void {
    this.guarded(() => {
      this.listener = handler(this)
    })
  }

  get path(): string {
    return this.stream.head.path
  }
  get peer(): Peer {
    return this.stream.connection.peer
  }
  get token(): string | undefined {
    return this.stream.head.token
  }
  get hasLeader(): boolean {
    return this.stream.head.hasLeader
  }
  get deadline(): number | undefined {
    return this.stream.deadline
  }
  header(name: string): string | undefined {
    return headerOf(this.stream.head, name)
  }
  get bufferedBytes(): number {
    return this.stream.queuedBytes
  }
  get writable(): boolean {
    return !this.closed && !this.stream.full
  }

  send(message: Uint8Array, tail?: Uint8Array): boolean {
    if (this.closed) return false
    if (!this.headSent) {
      this.headSent = true
      this.stream.sendHead(grpcHead)
    }
    this.messagesOut++
    this.stream.sendMessage(message, tail)
    return !this.stream.full
  }

  end(status: Status = okStatus): void {
    if (this.closed) return
    this.closed = true
    this.code = status.code
    this.stream.sendEnd(this.headSent ? trailers(status) : trailersOnly(status))
  }

  pause(): void {
    this.paused = true
  }

  resume(): void {
    if (!this.paused) return
    this.paused = false
    while (this.held.length > 0 && !this.paused && !this.closed) {
      const message = this.held.shift()!
      this.unhold(message.length)
      this.deliver(message)
    }
    if (this.paused) return
    this.stream.consumed(this.owed)
    this.owed = 0
    if (this.endHeld && !this.closed) {
      this.endHeld = false
      this.guarded(() => this.listener.onEnd?.())
    }
  }

  onData(chunk: Buffer, start: number, end: number): void {
    const refused = this.closed ? undefined : this.reader.push(chunk, start, end)
    if (this.paused) this.owed += end - start
    else this.stream.consumed(end - start)
    if (refused !== undefined) this.end(refused)
  }

  onEnd(): void {
    if (this.closed) return
    if (this.reader.incomplete)
      this.end({ code: grpcCode.internal, message: 'request ends before its message' })
    else if (this.paused) this.endHeld = true
    else this.guarded(() => this.listener.onEnd?.())
  }

  onDrain(): void {
    if (!this.closed) this.guarded(() => this.listener.onDrain?.())
  }

  onDeadline(): void {
    this.reason = 'deadline'
    if (this.closed) this.stream.reset(8, 'deadline')
    else this.end({ code: grpcCode.deadlineExceeded, message: 'context deadline exceeded' })
  }

  onShutdown(status: Status): void {
    this.end(status)
  }

  onClose(reason: CloseReason): void {
    if (!this.closed) {
      this.closed = true
      this.code = reason === 'cancelled' ? grpcCode.cancelled : grpcCode.unavailable
    }
    this.reader.release()
    this.unhold(this.heldBytes)
    this.held = []
    this.hooks.onCallEnd?.({
      path: this.path,
      kind: 'stream',
      code: this.code,
      durationMs: this.hooks.now() - this.startedAt,
      messagesIn: this.messagesIn,
      messagesOut: this.messagesOut,
    })
    this.guarded(() => this.listener.onClose?.(this.reason ?? reason))
  }

  private onMessage(message: Uint8Array): void {
    if (this.closed) return
    this.messagesIn++
    if (!this.paused) {
      this.deliver(message)
      return
    }
    const { connection } = this.stream
    this.held.push(message)
    this.heldBytes += message.length
    connection.partialBytes += message.length
    if (connection.partialBytes > connection.limits.partialBytesMax)
      this.end({ code: grpcCode.resourceExhausted, message: 'too many unread messages' })
  }

  private deliver(message: Uint8Array): void {
    this.guarded(() => this.listener.onMessage?.(message))
  }

  private unhold(bytes: number): void {
    this.heldBytes -= bytes
    this.stream.connection.partialBytes -= bytes
  }

  private guarded(run: () => void): void {
    try {
      run()
    } catch (error) {
      if (error instanceof GrpcError) this.end({ code: error.code, message: error.message })
      else {
        this.end({ code: grpcCode.unknown, message: 'internal error' })
        this.hooks.onHandlerError?.(error, this.path)
      }
    }
  }
}

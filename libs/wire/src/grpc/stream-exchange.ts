import { assert } from '@kiln/service'
import { grpcHead } from '../http2/hpack-encoder.ts'
import { headerOf } from '../http2/request-head.ts'
import type { Http2Stream, StreamSink } from '../http2/stream.ts'
import type { CloseReason, Peer, StreamCall, StreamHandler, StreamListener } from './call.ts'
import type { CallHooks } from './hooks.ts'
import { Inbox } from './inbox.ts'
import { GrpcError, grpcCode, okStatus, type Status } from './status.ts'
import { trailers, trailersOnly } from './trailers.ts'

/** A call with any number of messages either way on a stream. */
export class StreamExchange implements StreamCall, StreamSink {
  closed = false
  private readonly stream: Http2Stream
  private readonly hooks: CallHooks
  private readonly startedAt: number
  private readonly inbox: Inbox
  private listener: StreamListener = {}
  private headSent = false
  private code: number = grpcCode.ok
  private reason: CloseReason | undefined
  private messagesIn = 0
  private messagesOut = 0
  /** Bytes that the message begun still needs. */
  private partsLeft = 0

  constructor(stream: Http2Stream, hooks: CallHooks) {
    this.stream = stream
    this.hooks = hooks
    this.startedAt = hooks.now()
    this.inbox = new Inbox(stream, {
      onMessage: (message) => this.onMessage(message),
      onLast: () => this.guarded(() => this.listener.onEnd?.()),
      onRefused: (status) => this.end(status),
    })
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
    assert(this.partsLeft === 0, 'a message begun is completed first')
    this.sendHead()
    this.messagesOut++
    this.stream.sendMessage(message, tail)
    return !this.stream.full
  }

  beginMessage(bytes: number): void {
    if (this.closed) return
    assert(this.partsLeft === 0, 'a message begun is completed first')
    this.sendHead()
    this.messagesOut++
    this.partsLeft = bytes
    this.stream.sendData(messagePrefix(bytes))
  }

  sendPart(bytes: Uint8Array): boolean {
    if (this.closed) return false
    assert(bytes.length <= this.partsLeft, 'a message has the length it began with')
    this.partsLeft -= bytes.length
    this.stream.sendData(bytes)
    return !this.stream.full
  }

  end(status: Status = okStatus): void {
    if (this.closed) return
    this.closed = true
    this.inbox.close()
    this.code = status.code
    this.stream.sendEnd(this.headSent ? trailers(status) : trailersOnly(status))
  }

  pause(): void {
    this.inbox.pause()
  }

  resume(): void {
    this.inbox.resume()
  }

  onData(chunk: Buffer, start: number, end: number): void {
    this.inbox.push(chunk, start, end)
  }

  onEnd(): void {
    if (this.closed) return
    if (this.inbox.incomplete)
      this.end({ code: grpcCode.internal, message: 'request ends before its message' })
    else this.inbox.end()
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
    this.inbox.close()
    this.hooks.onCallEnd?.(
      {
        path: this.path,
        kind: 'stream',
        code: this.code,
        durationMs: this.hooks.now() - this.startedAt,
        messagesIn: this.messagesIn,
        messagesOut: this.messagesOut,
      },
      this,
    )
    this.guarded(() => this.listener.onClose?.(this.reason ?? reason))
  }

  private sendHead(): void {
    if (this.headSent) return
    this.headSent = true
    this.stream.sendHead(grpcHead)
  }

  private onMessage(message: Uint8Array): void {
    if (this.closed) return
    this.messagesIn++
    this.guarded(() => this.listener.onMessage?.(message))
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

/** Not compressed, and the length (gRPC over HTTP/2, Length-Prefixed-Message). */
function messagePrefix(bytes: number): Buffer {
  const prefix = Buffer.alloc(5)
  prefix.writeUInt32BE(bytes, 1)
  return prefix
}

import { headerOf } from '../http2/request-head.ts'
import type { Http2Stream, StreamSink } from '../http2/stream.ts'
import type { CloseReason, Peer, UnaryCall, UnaryHandler } from './call.ts'
import type { CallHooks } from './hooks.ts'
import { MessageReader, wholeMessage } from './message-reader.ts'
import { GrpcError, grpcCode } from './status.ts'
import { trailersOnly } from './trailers.ts'

/** One request and its one answer on a stream. */
export class UnaryExchange implements UnaryCall, StreamSink {
  onAbandoned: ((reason: CloseReason) => void) | undefined = undefined
  closed = false
  private readonly stream: Http2Stream
  private readonly handler: UnaryHandler
  private readonly hooks: CallHooks
  private readonly startedAt: number
  private request: Uint8Array | undefined
  private reader: MessageReader | undefined

  constructor(stream: Http2Stream, handler: UnaryHandler, hooks: CallHooks) {
    this.stream = stream
    this.handler = handler
    this.hooks = hooks
    this.startedAt = hooks.now()
    hooks.onCallStart?.(stream.head.path, 'unary')
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

  reply(message: Uint8Array): void {
    if (this.closed) return
    this.finish(grpcCode.ok)
    this.stream.answer(message)
  }

  fail(code: number, message: string): void {
    if (this.closed) return
    this.finish(code)
    this.stream.sendEnd(trailersOnly({ code, message }))
  }

  onData(chunk: Buffer, start: number, end: number): void {
    this.stream.consumed(end - start)
    if (this.reader === undefined && this.request === undefined) {
      this.request = wholeMessage(chunk, start, end)
      if (this.request !== undefined) return
    }
    this.reader ??= new MessageReader(this.stream.connection, (message) => this.onMessage(message))
    const refused = this.reader.push(chunk, start, end)
    if (refused !== undefined) this.fail(refused.code, refused.message)
  }

  onEnd(): void {
    if (this.closed) return
    if (this.request === undefined || this.reader?.incomplete) {
      this.fail(grpcCode.internal, 'request ends before its message')
      return
    }
    try {
      const answer = this.handler(this.request, this)
      this.request = undefined
      if (answer instanceof Uint8Array) this.reply(answer)
      else if (answer !== undefined)
        answer.then(
          (message) => this.reply(message),
          (error: unknown) => this.onError(error),
        )
    } catch (error) {
      this.onError(error)
    }
  }

  onDrain(): void {}

  onDeadline(): void {
    if (this.closed) {
      // The answer waits for a reader who no longer wants it.
      this.stream.reset(8, 'deadline')
      return
    }
    this.fail(grpcCode.deadlineExceeded, 'context deadline exceeded')
    this.onAbandoned?.('deadline')
  }

  /** A unary call is given time to finish. */
  onShutdown(): void {}

  onClose(reason: CloseReason): void {
    this.reader?.release()
    if (this.closed) return
    this.finish(reason === 'cancelled' ? grpcCode.cancelled : grpcCode.unavailable)
    this.onAbandoned?.(reason)
  }

  private onMessage(message: Uint8Array): void {
    if (this.request === undefined) this.request = message
    else this.fail(grpcCode.internal, 'more than one message in a unary request')
  }

  private onError(error: unknown): void {
    if (error instanceof GrpcError) this.fail(error.code, error.message)
    else {
      this.fail(grpcCode.unknown, 'internal error')
      this.hooks.onHandlerError?.(error, this.path)
    }
  }

  private finish(code: number): void {
    this.closed = true
    this.reader?.release()
    this.hooks.onCallEnd?.(
      {
        path: this.path,
        kind: 'unary',
        code,
        durationMs: this.hooks.now() - this.startedAt,
        messagesIn: 1,
        messagesOut: code === grpcCode.ok ? 1 : 0,
      },
      this,
    )
  }
}

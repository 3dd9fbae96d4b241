import type { AnswerHead } from '../http2/answer-head.ts'
import type { ClientSide } from '../http2/client-side.ts'
import { errorCode } from '../http2/frames.ts'
import type { Fields } from '../http2/hpack-encoder.ts'
import type { Http2Stream, StreamSink } from '../http2/stream.ts'
import type { CloseReason } from './call.ts'
import { Inbox } from './inbox.ts'
import {
  type CallEffect,
  CallError,
  codeOfHttpStatus,
  codeOfReset,
  decodeGrpcMessage,
  grpcCode,
  type Status,
} from './status.ts'

/** What a caller hears of its call. Each is called from the event loop, none from within a method of the call but `cancel`. */
export type CallListener = {
  onMessage(message: Uint8Array): void
  /** `writable` became true again. */
  onDrain?(): void
  /** The call is over, with status 0 if there is no error; called exactly once. */
  onClose(error: CallError | undefined): void
}

/** A call that a client makes. It may wait for a connection or a place on it; what is sent meanwhile waits with it. */
export class ClientExchange implements StreamSink {
  closed = false
  readonly deadline: number | undefined
  private readonly head: Fields
  /** Ends with the connection when that is replaced, instead of being waited for. */
  private readonly endless: boolean
  private readonly listener: CallListener
  private stream: Http2Stream | undefined
  private inbox: Inbox | undefined
  private paused = false
  /** What is sent before there is a stream, and whether that was all. */
  private early: Uint8Array[] = []
  private earlyBytes = 0
  private ended = false
  private answer: AnswerHead | undefined
  private trailers: AnswerHead | undefined
  private resetCode: number | undefined

  constructor(options: {
    head: Fields
    deadline: number | undefined
    endless: boolean
    listener: CallListener
  }) {
    this.head = options.head
    this.deadline = options.deadline
    this.endless = options.endless
    this.listener = options.listener
  }

  /** Gets its stream. */
  begin(side: ClientSide): void {
    const stream = side.open(this.head, this.deadline, this)
    this.stream = stream
    this.inbox = new Inbox(stream, {
      onMessage: (message) => this.onMessage(message),
      onLast: () => this.finish(),
      onRefused: (status) => this.fail(new CallError(status, 'unknown')),
    })
    if (this.paused) this.inbox.pause()
    const early = this.early
    this.early = []
    this.earlyBytes = 0
    if (early.length === 1 && this.ended) stream.sendLastMessage(early[0]!)
    else {
      for (const message of early) stream.sendMessage(message, undefined)
      if (this.ended) stream.sendEnd(undefined)
    }
  }

  get bufferedBytes(): number {
    return this.stream?.queuedBytes ?? this.earlyBytes
  }

  get writable(): boolean {
    return !this.closed && !this.ended && this.stream !== undefined && !this.stream.full
  }

  send(message: Uint8Array): boolean {
    if (this.closed || this.ended) return false
    if (this.stream === undefined) {
      this.early.push(message)
      this.earlyBytes += message.length + 5
    } else this.stream.sendMessage(message, undefined)
    return this.writable
  }

  /** Nothing more will be sent. */
  end(): void {
    if (this.closed || this.ended) return
    this.ended = true
    this.stream?.sendEnd(undefined)
  }

  pause(): void {
    this.paused = true
    this.inbox?.pause()
  }

  resume(): void {
    this.paused = false
    this.inbox?.resume()
  }

  /** Ends the call from our side. */
  stop(status: Status): void {
    this.fail(new CallError(status, this.effect))
  }

  /** Ends the call with an error; the server is told to stop. */
  fail(error: CallError): void {
    if (this.closed) return
    this.release()
    this.stream?.reset(errorCode.cancel, 'cancelled')
    this.listener.onClose(error)
  }

  // --- What the stream says

  onHead(head: AnswerHead, last: boolean): void {
    if (head.tooLarge)
      this.fail(lost(grpcCode.resourceExhausted, 'the headers of the answer are larger than allowed'))
    else if (this.answer !== undefined) {
      this.trailers = head
      if (!last || head.status !== 0) this.fail(lost(grpcCode.internal, 'headers within the answer'))
    } else {
      this.answer = head
      if (last && head.grpcStatus !== undefined) this.trailers = head
      else if (head.status !== 200) {
        const message = `answered with HTTP status ${head.status}`
        this.fail(lost(codeOfHttpStatus(head.status), message))
      } else if (!head.contentType.startsWith('application/grpc'))
        this.fail(lost(grpcCode.unknown, `answered with content of type "${head.contentType.slice(0, 100)}"`))
    }
  }

  onData(chunk: Buffer, start: number, end: number): void {
    if (this.answer === undefined) this.fail(lost(grpcCode.internal, 'the answer has no headers'))
    else if (!this.closed) this.inbox!.push(chunk, start, end)
  }

  onEnd(): void {
    if (!this.closed) this.inbox!.end()
  }

  onDrain(): void {
    if (!this.closed && !this.ended) this.listener.onDrain?.()
  }

  onReset(code: number): void {
    this.resetCode = code
  }

  onDeadline(): void {
    this.stop({ code: grpcCode.deadlineExceeded, message: 'deadline exceeded' })
  }

  /** The connection is given up in favour of another; what will be answered soon may be. */
  onShutdown(status: Status): void {
    if (this.endless) this.stop(status)
  }

  onClose(reason: CloseReason): void {
    if (this.closed) return
    this.release()
    this.listener.onClose(this.brokenOff(reason))
  }

  private onMessage(message: Uint8Array): void {
    if (!this.closed) this.listener.onMessage(message)
  }

  /** All of the answer was read. */
  private finish(): void {
    if (this.closed) return
    const error = this.outcome()
    this.release()
    const stream = this.stream!
    // The server need not hear the rest of the request (RFC 9113, section 8.1).
    if (stream.localEnded) stream.close('done')
    else stream.reset(errorCode.cancel, 'done')
    this.listener.onClose(error)
  }

  private outcome(): CallError | undefined {
    const { trailers } = this
    if (trailers?.grpcStatus === undefined || Number.isNaN(trailers.grpcStatus))
      return lost(grpcCode.unknown, 'the answer ends without a status')
    if (trailers.grpcStatus !== grpcCode.ok) {
      const message = decodeGrpcMessage(trailers.grpcMessage)
      return new CallError({ code: trailers.grpcStatus, message }, 'answered')
    }
    return this.inbox!.incomplete ? lost(grpcCode.internal, 'the answer ends within a message') : undefined
  }

  private brokenOff(reason: CloseReason): CallError {
    const { connection } = this.stream!
    const cause = connection.failure
    if (reason === 'refused')
      return new CallError({ code: grpcCode.unavailable, message: 'the server takes no new calls' }, 'none', {
        cause,
      })
    if (this.resetCode !== undefined) {
      const message = `the server reset the call with code ${this.resetCode}`
      return lost(codeOfReset(this.resetCode), message)
    }
    if (reason === 'cancelled') return lost(grpcCode.internal, 'the server broke the rules of the stream')
    const message = cause === undefined ? 'connection lost' : `connection lost: ${cause.message}`
    return new CallError({ code: grpcCode.unavailable, message }, this.effect, { cause })
  }

  /** Until its head went to the socket the request was nowhere. */
  private get effect(): CallEffect {
    const { stream } = this
    return stream === undefined || stream.id > stream.connection.writtenStreamId ? 'none' : 'unknown'
  }

  private release(): void {
    this.closed = true
    this.early = []
    this.inbox?.close()
  }
}

function lost(code: number, message: string): CallError {
  return new CallError({ code, message }, 'unknown')
}

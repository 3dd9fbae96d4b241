import { assert } from '@kiln/service'
import type { CloseReason } from '../grpc/call.ts'
import type { Status } from '../grpc/status.ts'
import { streamShareBytes } from './allowance.ts'
import type { AnswerHead } from './answer-head.ts'
import type { Connection } from './connection.ts'
import { frameFlag, frameType } from './frames.ts'
import { type Fields, grpcHead, grpcOkTrailers } from './hpack-encoder.ts'
import type { RequestHead } from './request-head.ts'

const nothing = new Uint8Array(0)

/** Reads nothing: for requests answered before they were read. */
export const deafSink: StreamSink = {
  onData() {},
  onEnd() {},
  onDrain() {},
  onDeadline() {},
  onShutdown() {},
  onClose() {},
}

/** Who reads a stream: a gRPC call or an HTTP request, or a client's call. */
export type StreamSink = {
  /** Head or trailers of the answer, for who asked; `last` if nothing follows. */
  onHead?(head: AnswerHead, last: boolean): void
  /** The peer gave the stream up with this code; `onClose` follows. */
  onReset?(code: number): void
  /** Body bytes `chunk[start, end)`, which may be kept. Give their credit back with `stream.consumed`. */
  onData(chunk: Buffer, start: number, end: number): void
  /** The peer sent everything. */
  onEnd(): void
  /** The stream is no longer `full`. */
  onDrain(): void
  /** The deadline of the request has passed. */
  onDeadline(): void
  /** The server closes: what may go on for long ends with this status. */
  onShutdown(status: Status): void
  /** Called exactly once, never from within a method of the stream that its sink called. */
  onClose(reason: CloseReason): void
}

/**
 * One stream of a connection (RFC 9113, section 5): its windows and what waits to be sent. Output goes straight into the
 * connection's buffer when nothing is in the way, else it waits here until the connection pumps it out.
 */
export class Http2Stream {
  readonly id: number
  readonly connection: Connection
  /** The request's head; empty if it is ours. */
  readonly head: RequestHead
  sink: StreamSink | undefined
  /** Milliseconds of the server's clock. */
  deadline: number | undefined
  closed = false
  remoteEnded = false
  localEnded = false
  sendWindow: number
  receiveWindow: number
  private unreturned = 0

  /** Waiting output, in the order in which it goes out: head, queue, end. */
  private headWaiting: Fields | undefined
  private queue: Uint8Array[] = []
  private queueAt = 0
  private offset = 0
  queuedBytes = 0
  /** More waits than a slow reader should cause; until half of it is gone. */
  full = false
  private ending = false
  private trailers: Fields | undefined

  constructor(connection: Connection, id: number, head: RequestHead) {
    this.connection = connection
    this.id = id
    this.head = head
    this.sendWindow = connection.peerStreamWindow
    this.receiveWindow = connection.limits.streamWindowBytes
  }

  /** True while something waits to be sent. */
  get waiting(): boolean {
    return this.headWaiting !== undefined || this.queuedBytes > 0 || (this.ending && !this.localEnded)
  }

  /** The head of a response or request. */
  sendHead(fields: Fields): void {
    if (this.closed) return
    if (this.connection.hasRoom() && !this.waiting) this.connection.writeHeaders(this.id, fields, false)
    else {
      this.headWaiting = fields
      this.wait()
    }
  }

  /** A whole gRPC answer: head, message, status 0. The usual case is three frames written at once. */
  answer(message: Uint8Array): void {
    if (this.closed) return
    const { connection, id } = this
    const bytes = message.length + 5
    if (!this.waiting && this.fits(bytes)) {
      connection.writeHeaders(id, grpcHead, false)
      this.writeMessage(bytes, message, undefined, 0)
      connection.writeHeaders(id, grpcOkTrailers, true)
      this.finish()
    } else {
      this.sendHead(grpcHead)
      this.sendMessage(message, undefined)
      this.sendEnd(grpcOkTrailers)
    }
  }

  /** The only message of a call, and the end: one frame in the usual case. */
  sendLastMessage(message: Uint8Array): void {
    if (this.closed) return
    const bytes = message.length + 5
    if (!this.waiting && this.fits(bytes)) {
      this.ending = true
      this.writeMessage(bytes, message, undefined, frameFlag.endStream)
      this.finish()
    } else {
      this.sendMessage(message, undefined)
      this.sendEnd(undefined)
    }
  }

  /** A gRPC message: five bytes of prefix, then its one or two parts. */
  sendMessage(message: Uint8Array, tail: Uint8Array | undefined): void {
    if (this.closed) return
    assert(!this.ending, 'nothing is sent after the end')
    const bytes = 5 + message.length + (tail === undefined ? 0 : tail.length)
    if (!this.waiting && this.fits(bytes)) {
      this.writeMessage(bytes, message, tail, 0)
      return
    }
    const prefix = Buffer.alloc(5)
    prefix.writeUInt32BE(bytes - 5, 1)
    this.queue.push(prefix, message)
    if (tail !== undefined) this.queue.push(tail)
    this.queued(bytes)
  }

  /** Body bytes of an HTTP answer. */
  sendData(bytes: Uint8Array): void {
    if (this.closed || bytes.length === 0) return
    assert(!this.ending, 'nothing is sent after the end')
    this.queue.push(bytes)
    this.queued(bytes.length)
  }

  /** Ends our side after everything sent. Trailers that begin with `:status` are an answer of their own. */
  sendEnd(trailers: Fields | undefined): void {
    if (this.closed || this.ending) return
    this.ending = true
    this.trailers = trailers
    if (this.headWaiting === undefined && this.queuedBytes === 0 && this.connection.hasRoom()) this.writeEnd()
    else this.wait()
  }

  /** Gives up the stream in both directions. */
  reset(code: number, reason: CloseReason): void {
    if (this.closed) return
    this.connection.writeReset(this.id, code)
    this.close(reason)
  }

  /** The sink has dealt with `bytes` of the body: the peer may send as many again. */
  consumed(bytes: number): void {
    this.unreturned += bytes
    if (this.remoteEnded || this.closed) return
    if (this.unreturned < this.connection.limits.streamWindowBytes / 2) return
    this.receiveWindow += this.unreturned
    this.connection.writeWindowUpdate(this.id, this.unreturned)
    this.unreturned = 0
  }

  /**
   * Writes what waits, at most one DATA frame. Returns whether to come again at once (`more`), when the windows allow
   * (`blocked`), or not at all (`done`).
   */
  pump(): 'more' | 'blocked' | 'done' {
    const { connection } = this
    if (this.headWaiting !== undefined) {
      connection.writeHeaders(this.id, this.headWaiting, false)
      this.headWaiting = undefined
    }
    if (this.queuedBytes > 0) {
      const bytes = Math.min(
        this.queuedBytes,
        connection.peerFrameBytesMax,
        this.sendWindow,
        connection.sendWindow,
      )
      if (bytes <= 0) return 'blocked'
      this.writeQueued(bytes)
      if (this.full && this.queuedBytes <= streamShareBytes(connection.limits, connection.queuedBytes) / 2) {
        this.full = false
        this.sink?.onDrain()
      }
      if (this.queuedBytes > 0) return 'more'
    }
    if (this.ending && !this.localEnded && !this.closed) this.writeEnd()
    return 'done'
  }

  /** Leaves the connection. Abnormal ends tell the sink at once, since they come from the socket or a timer. */
  close(reason: CloseReason): void {
    if (this.closed) return
    this.closed = true
    this.queue = []
    this.connection.forget(this, this.queuedBytes)
    this.queuedBytes = 0
    if (reason === 'done') this.connection.port.later(this)
    else this.sink?.onClose(reason)
  }

  private fits(bytes: number): boolean {
    const { connection } = this
    return (
      bytes <= this.sendWindow &&
      bytes <= connection.sendWindow &&
      bytes <= connection.peerFrameBytesMax &&
      connection.hasRoom()
    )
  }

  private writeMessage(
    bytes: number,
    message: Uint8Array,
    tail: Uint8Array | undefined,
    flags: number,
  ): void {
    const out = this.connection.output()
    out.frameHeader(bytes, frameType.data, flags, this.id)
    out.byte(0)
    out.uint32(bytes - 5)
    out.append(message)
    if (tail !== undefined) out.append(tail)
    this.sent(bytes)
  }

  private sent(bytes: number): void {
    this.sendWindow -= bytes
    this.connection.sendWindow -= bytes
    this.connection.pingStrikes = 0
  }

  private queued(bytes: number): void {
    this.queuedBytes += bytes
    this.connection.queuedBytes += bytes
    const { limits, queuedBytes } = this.connection
    if (this.queuedBytes >= streamShareBytes(limits, queuedBytes)) this.full = true
    this.wait()
  }

  private wait(): void {
    this.connection.sending.add(this)
    this.connection.markDirty()
  }

  private writeQueued(bytes: number): void {
    const out = this.connection.output()
    out.frameHeader(bytes, frameType.data, 0, this.id)
    for (let left = bytes; left > 0; ) {
      const chunk = this.queue[this.queueAt]!
      const take = Math.min(left, chunk.length - this.offset)
      out.append(chunk, this.offset, this.offset + take)
      left -= take
      this.offset += take
      if (this.offset === chunk.length) {
        this.queue[this.queueAt++] = nothing
        this.offset = 0
      }
    }
    this.queuedBytes -= bytes
    this.connection.queuedBytes -= bytes
    this.sent(bytes)
    // The places of chunks already sent are given up in one piece now and then, not one by one.
    if (this.queueAt === this.queue.length || this.queueAt > 1024) {
      this.queue.splice(0, this.queueAt)
      this.queueAt = 0
    }
  }

  private writeEnd(): void {
    if (this.trailers !== undefined) this.connection.writeHeaders(this.id, this.trailers, true)
    else this.connection.output().frameHeader(0, frameType.data, frameFlag.endStream, this.id)
    this.finish()
  }

  private finish(): void {
    this.localEnded = true
    this.connection.sentAll(this)
  }
}

import { type AnswerHead, readAnswerHead } from './answer-head.ts'
import { type Connection, protocolError, type Side } from './connection.ts'
import { errorCode, preface } from './frames.ts'
import { HeaderBlocks } from './header-blocks.ts'
import type { Fields } from './hpack-encoder.ts'
import { RequestEncoder } from './hpack-request-encoder.ts'
import { emptyRequestHead } from './request-head.ts'
import { writeOurSettings } from './settings.ts'
import { Http2Stream, type StreamSink } from './stream.ts'

/** What a client's end of a connection tells the client. */
export type ClientPort = {
  /** The server said what it allows: streams may be opened. */
  ready(): void
  /** There may be room for another stream. */
  room(): void
  /** The server wants no new streams: open them on another connection. */
  draining(): void
}

/** A stream id beyond this is left unused: the connection has had its billion calls. */
const streamIdMax = 0x7fff_fff0

/** What only a client's end of a connection does: opens streams and takes answers. */
export class ClientSide implements Side {
  readonly headers: HeaderBlocks<AnswerHead>
  readonly encoder = new RequestEncoder()
  /** Servers of the Go implementation take pings on an idle connection for an attack. */
  readonly pingsWhenIdle = false
  /** No new streams: the server said goodbye, we did, or there are no numbers left. */
  draining = false
  private isReady = false
  private readonly connection: Connection
  private readonly port: ClientPort
  /** What the server allows, once it has said so. */
  private streamsMax: number

  constructor(connection: Connection, port: ClientPort) {
    this.connection = connection
    this.port = port
    this.streamsMax = connection.limits.streamsMax
    this.headers = new HeaderBlocks(connection.limits, readAnswerHead)
    connection.output().append(preface)
    writeOurSettings(connection.output(), connection.limits, 'client')
  }

  /** Whether `open` may be called. Heads must leave in the order of their numbers, so that it takes room in the socket's buffer. */
  get hasRoom(): boolean {
    const { connection } = this
    return (
      !this.draining && !connection.ended && connection.streams.size < this.streamsMax && connection.hasRoom()
    )
  }

  open(head: Fields, deadline: number | undefined, sink: StreamSink): Http2Stream {
    const { connection } = this
    const id = connection.lastStreamId === 0 ? 1 : connection.lastStreamId + 2
    connection.lastStreamId = id
    const stream = new Http2Stream(connection, id, emptyRequestHead)
    stream.sink = sink
    connection.adopt(stream, deadline)
    if (connection.streams.size === 1) connection.socket.ref()
    stream.sendHead(head)
    if (id >= streamIdMax) this.drain()
    return stream
  }

  /** Opens no more streams; the connection ends with its last one. */
  drain(): void {
    if (this.draining) return
    this.draining = true
    this.port.draining()
    this.endIfDone()
  }

  onHeaders(streamId: number): void {
    const { headers, connection } = this
    if (streamId > connection.lastStreamId) throw protocolError('HEADERS on an idle stream')
    const stream = connection.streams.get(streamId)
    if (stream === undefined || stream.remoteEnded) {
      headers.skip()
      connection.countIdleFrame()
      return
    }
    const head = headers.read()
    if (typeof head === 'string') {
      stream.sink!.onReset!(errorCode.protocolError)
      stream.reset(errorCode.protocolError, 'cancelled')
      return
    }
    const { endsStream } = headers
    // Section 8.1: any number of interim answers may come before the answer.
    if (head.status >= 100 && head.status < 200 && !endsStream) {
      connection.countIdleFrame()
      return
    }
    stream.sink!.onHead!(head, endsStream)
    if (endsStream && !stream.closed) connection.completed(stream)
  }

  onReset(stream: Http2Stream, code: number): void {
    // A server that has answered in full says so when it does not need the rest of the request.
    if (stream.remoteEnded) return
    if (code === errorCode.refusedStream) stream.close('refused')
    else {
      stream.sink!.onReset!(code)
      stream.close('cancelled')
    }
  }

  /** Section 6.8: streams above the number were not and will not be looked at. */
  onGoAway(lastStreamId: number, code: number, reason: string): void {
    const { connection } = this
    connection.failure ??= new Error(
      `the server says goodbye${code === 0 ? '' : ` with code ${code}`}${reason === '' ? '' : `: ${reason}`}`,
    )
    this.draining = true
    this.port.draining()
    for (const stream of [...connection.streams.values()])
      if (stream.id > lastStreamId && !stream.remoteEnded) stream.close('refused')
    this.endIfDone()
  }

  onStreamsMax(streamsMax: number): void {
    this.streamsMax = Math.min(streamsMax, this.connection.limits.streamsMax)
    this.port.room()
  }

  onSettings(): void {
    if (this.isReady) return
    this.isReady = true
    this.port.ready()
  }

  /** The stream ends with the answer. */
  onSent(): void {}

  onForgotten(): void {
    if (this.connection.streams.size === 0) {
      this.connection.socket.unref()
      this.endIfDone()
    }
    this.port.room()
  }

  onFlushed(): void {
    this.port.room()
  }

  private endIfDone(): void {
    if (this.draining && this.connection.streams.size === 0 && !this.connection.ended) this.connection.end()
  }
}

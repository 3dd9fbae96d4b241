import type { Connection, Side } from './connection.ts'
import { errorCode } from './frames.ts'
import { HeaderBlocks } from './header-blocks.ts'
import { HpackEncoder } from './hpack-encoder.ts'
import { type RequestHead, readRequestHead } from './request-head.ts'
import { writeOurSettings } from './settings.ts'
import { Http2Stream } from './stream.ts'

/** What only a server's end of a connection does: takes requests. */
export class ServerSide implements Side {
  readonly headers: HeaderBlocks<RequestHead>
  readonly encoder = new HpackEncoder()
  readonly pingsWhenIdle = true
  private readonly connection: Connection
  private readonly open: (stream: Http2Stream) => void

  /** `open` gives the stream of a request that has come its sink. */
  constructor(connection: Connection, open: (stream: Http2Stream) => void) {
    this.connection = connection
    this.open = open
    this.headers = new HeaderBlocks(connection.limits, readRequestHead)
    writeOurSettings(connection.output(), connection.limits, 'server')
  }

  onHeaders(streamId: number): void {
    const { headers, connection } = this
    const stream = connection.streams.get(streamId)
    if (stream !== undefined || streamId <= connection.lastStreamId) {
      headers.skip()
      // Trailers of a stream that ended here meanwhile, or of none.
      if (stream === undefined) connection.countIdleFrame()
      else if (!headers.endsStream) connection.resetForPeer(stream, errorCode.protocolError)
      else if (stream.remoteEnded) connection.resetForPeer(stream, errorCode.streamClosed)
      else connection.completed(stream)
      return
    }
    connection.lastStreamId = streamId
    const head = headers.read()
    if (typeof head === 'string') {
      connection.countReset()
      connection.writeReset(streamId, errorCode.protocolError)
      return
    }
    if (connection.closing || connection.streams.size >= connection.limits.streamsMax) {
      connection.countReset()
      connection.writeReset(streamId, errorCode.refusedStream)
      return
    }
    const opened = new Http2Stream(connection, streamId, head)
    if (headers.endsStream) opened.remoteEnded = true
    const { timeoutMs } = head
    connection.adopt(
      opened,
      timeoutMs !== undefined && timeoutMs >= 0 ? connection.lastHeardAt + timeoutMs : undefined,
    )
    this.open(opened)
    if (headers.endsStream && !opened.closed) connection.completed(opened)
  }

  onReset(stream: Http2Stream): void {
    this.connection.countReset()
    stream.close('cancelled')
  }

  /** The client opens no more streams; those it has go on. */
  onGoAway(): void {}

  /** We open none. */
  onStreamsMax(): void {}

  onSettings(): void {}

  /** Our side has ended: if the client has not, it need not go on (RFC 9113, section 8.1). */
  onSent(stream: Http2Stream): void {
    if (!stream.remoteEnded) this.connection.writeReset(stream.id, errorCode.noError)
    stream.close('done')
  }

  onForgotten(): void {}

  onFlushed(): void {}
}

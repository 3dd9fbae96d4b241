import type { Http2Stream } from '../http2/stream.ts'
import { MessageReader, wholeMessage } from './message-reader.ts'
import { grpcCode, type Status } from './status.ts'

/** Who takes the messages of a call. */
export type InboxReader = {
  onMessage(message: Uint8Array): void
  /** No more messages will come. */
  onLast(): void
  /** The call cannot go on. */
  onRefused(status: Status): void
}

/**
 * The messages that come in on a stream: put together, and held back while the reader is paused, when the peer may fill one
 * flow-control window.
 */
export class Inbox {
  paused = false
  private readonly stream: Http2Stream
  private readonly to: InboxReader
  private reader: MessageReader | undefined
  private closed = false
  /** Messages that came while paused, their bytes (counted with the connection's unfinished ones), and whether the end did. */
  private held: Uint8Array[] = []
  private heldBytes = 0
  private endHeld = false
  /** Credit of the body kept back while paused. */
  private owed = 0

  constructor(stream: Http2Stream, to: InboxReader) {
    this.stream = stream
    this.to = to
  }

  /** True within a message. */
  get incomplete(): boolean {
    return this.reader?.incomplete ?? false
  }

  /** Takes body bytes. */
  push(chunk: Buffer, start: number, end: number): void {
    if (!this.closed) {
      const whole = this.incomplete ? undefined : wholeMessage(chunk, start, end)
      if (whole !== undefined && whole.length <= this.stream.connection.limits.messageBytesMax)
        this.take(whole)
      else this.assemble(chunk, start, end)
    }
    if (this.paused && !this.closed) this.owed += end - start
    else this.stream.consumed(end - start)
  }

  /** The peer has sent everything. */
  end(): void {
    if (this.closed) return
    if (this.paused) this.endHeld = true
    else this.to.onLast()
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
      this.to.onMessage(message)
    }
    if (this.paused || this.closed) return
    this.stream.consumed(this.owed)
    this.owed = 0
    if (this.endHeld) {
      this.endHeld = false
      this.to.onLast()
    }
  }

  /** Takes and gives no more. */
  close(): void {
    if (this.closed) return
    this.closed = true
    this.reader?.release()
    this.unhold(this.heldBytes)
    this.held = []
    const owed = this.owed
    this.owed = 0
    this.stream.consumed(owed)
  }

  private assemble(chunk: Buffer, start: number, end: number): void {
    this.reader ??= new MessageReader(this.stream.connection, (message) => this.take(message))
    const refused = this.reader.push(chunk, start, end)
    if (refused !== undefined) this.to.onRefused(refused)
  }

  private take(message: Uint8Array): void {
    if (this.closed) return
    if (!this.paused) {
      this.to.onMessage(message)
      return
    }
    const { connection } = this.stream
    this.held.push(message)
    this.heldBytes += message.length
    connection.partialBytes += message.length
    if (connection.partialBytes > connection.limits.partialBytesMax)
      this.to.onRefused({ code: grpcCode.resourceExhausted, message: 'too many unread messages' })
  }

  private unhold(bytes: number): void {
    this.heldBytes -= bytes
    this.stream.connection.partialBytes -= bytes
  }
}

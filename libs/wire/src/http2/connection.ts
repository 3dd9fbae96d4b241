import type { Socket } from 'node:net'
import type { CloseReason, Peer } from '../grpc/call.ts'
import type { WireLimits } from '../limits.ts'
import { Allowance } from './allowance.ts'
import { FrameReader } from './frame-reader.ts'
import {
  ConnectionError,
  errorCode,
  frameBytesMax,
  frameFlag,
  frameHeaderBytes,
  frameType,
  windowMax,
} from './frames.ts'
import type { HeaderBlocks } from './header-blocks.ts'
import type { Fields, HeaderEncoder } from './hpack-encoder.ts'
import { OutBuffer } from './out-buffer.ts'
import { defaultPeerSettings, readPeerSettings } from './settings.ts'
import type { Http2Stream } from './stream.ts'

/** What a connection needs of the server or client around it. */
export type ConnectionPort = {
  now(): number
  /** The connection wants `flush` at the end of this turn. */
  dirty(connection: Connection): void
  /** The sink of this stream wants to hear `done` at the end of this turn. */
  later(stream: Http2Stream): void
  /** The peer broke the protocol or a limit. */
  protocolError(error: Error, connection: Connection): void
  gone(connection: Connection): void
}

/** What differs between the two ends of a connection. */
export type Side = {
  /** The header blocks that the peer sends. */
  readonly headers: HeaderBlocks<unknown>
  readonly encoder: HeaderEncoder
  /** Whether silence is probed while no stream is open. */
  readonly pingsWhenIdle: boolean
  /** A header block of a stream is complete in `headers`; it must be decoded in any case, to keep the compression state. */
  onHeaders(streamId: number): void
  /** The peer gave a stream up. */
  onReset(stream: Http2Stream, code: number): void
  /** The peer handles no stream above `lastStreamId`. */
  onGoAway(lastStreamId: number, code: number, reason: string): void
  /** The peer allows us so many streams at once. */
  onStreamsMax(streamsMax: number): void
  /** The peer's settings hold now. */
  onSettings(): void
  /** We sent the end of a stream. */
  onSent(stream: Http2Stream): void
  /** A stream has left the connection. */
  onForgotten(): void
  /** What was written is with the socket. */
  onFlushed(): void
}

/** How long the peer may take to read our GOAWAY. */
const lingerMs = 1000
const pingStrikesMax = 2
/** Streams whose windows a change of the initial window moves for the price of one frame. */
const streamsPerIdleFrame = 100
/** A window grown by less than this counts as a frame that carries nothing. */
const windowCrumbBytes = 64
/** What is kept of the text of a GOAWAY. */
const goAwayReasonBytesMax = 256

/** One end of an HTTP/2 connection (RFC 9113): frames, windows and life; what only a server or only a client does is its side's. */
export class Connection {
  readonly socket: Socket
  readonly peer: Peer
  readonly port: ConnectionPort
  readonly limits: WireLimits
  readonly streams = new Map<number, Http2Stream>()
  /** Streams with something to send, in turn. */
  readonly sending = new Set<Http2Stream>()
  /** Bytes queued in all streams. */
  queuedBytes = 0
  /** Bytes of request messages not complete yet, counted by the sinks. */
  partialBytes = 0
  sendWindow = 65_535
  peerStreamWindow = defaultPeerSettings.streamWindow
  peerFrameBytesMax = frameBytesMax
  /** Pings that came too soon since we last sent an answer. */
  pingStrikes = 0
  /** Streams with a deadline, so that the sweep can skip connections without. */
  deadlines = 0
  bytesIn = 0
  bytesOut = 0
  /** The newest stream that its client opened. */
  lastStreamId = 0
  /** The newest stream of which anything went to the socket. */
  writtenStreamId = 0
  lastHeardAt: number
  /** We told the peer to open no more streams. */
  closing = false
  /** Nothing is read or written any more. */
  ended = false
  /** Why it ended, if the peer or the socket is to blame. */
  failure: Error | undefined

  private readonly side: Side
  private readonly headers: HeaderBlocks<unknown>
  private readonly encoder: HeaderEncoder
  private readonly reader: FrameReader
  private readonly out = new OutBuffer()
  private readonly allowance: Allowance
  private receiveWindow: number
  private unreturned = 0
  /** Streams whose peer has sent everything, in the chunk being read. */
  private complete: Http2Stream[] = []
  private settingsSeen = false
  private flushWanted = false
  private pingSentAt: number | undefined
  private lastPingAt = Number.NEGATIVE_INFINITY

  constructor(
    socket: Socket,
    peer: Peer,
    port: ConnectionPort,
    limits: WireLimits,
    sideOf: (connection: Connection) => Side,
  ) {
    this.socket = socket
    this.peer = peer
    this.port = port
    this.limits = limits
    this.side = sideOf(this)
    this.headers = this.side.headers
    this.encoder = this.side.encoder
    this.reader = new FrameReader((type, flags, streamId, bytes, start, end) =>
      this.onFrame(type, flags, streamId, bytes, start, end),
    )
    this.allowance = new Allowance(limits)
    this.receiveWindow = limits.connectionWindowBytes
    this.lastHeardAt = port.now()
    socket.on('drain', () => this.markDirty())
    socket.on('error', (error) => {
      this.failure ??= error
    })
    socket.on('close', () => this.onSocketClose())
  }

  /** Bytes from the socket, after the preface. */
  receive(chunk: Buffer): void {
    if (this.ended) return
    this.bytesIn += chunk.length
    this.lastHeardAt = this.port.now()
    this.pingSentAt = undefined
    try {
      this.reader.push(chunk)
    } catch (error) {
      if (!(error instanceof ConnectionError)) throw error
      this.fail(error)
    }
    if (this.complete.length > 0) this.dispatch()
  }

  /**
   * Requests are handed on when all that came with them was read: one that its client cancelled meanwhile, as clients of a server that
   * hung do, is not carried out.
   */
  private dispatch(): void {
    const complete = this.complete
    this.complete = []
    for (const stream of complete) {
      if (!stream.closed) stream.sink!.onEnd()
    }
  }

  // --- Output

  /** The buffer to write a frame to; it goes out at the end of the turn. */
  output(): OutBuffer {
    this.markDirty()
    return this.out
  }

  markDirty(): void {
    if (this.flushWanted || this.ended) return
    this.flushWanted = true
    this.port.dirty(this)
  }

  /** Whether more output would stay within what is handed to the socket ahead of the kernel. */
  hasRoom(): boolean {
    return this.out.length + this.socket.writableLength < this.limits.socketHighWaterBytes
  }

  writeHeaders(streamId: number, fields: Fields, end: boolean): void {
    const out = this.output()
    const at = out.length
    out.frameHeader(0, frameType.headers, frameFlag.endHeaders | (end ? frameFlag.endStream : 0), streamId)
    this.encoder.encode(out, fields)
    if (out.length - at - frameHeaderBytes <= frameBytesMax) out.closeFrame(at)
    else this.splitHeaders(at, streamId)
    this.pingStrikes = 0
  }

  writeReset(streamId: number, code: number): void {
    const out = this.output()
    out.frameHeader(4, frameType.rstStream, 0, streamId)
    out.uint32(code)
  }

  writeWindowUpdate(streamId: number, bytes: number): void {
    const out = this.output()
    out.frameHeader(4, frameType.windowUpdate, 0, streamId)
    out.uint32(bytes)
  }

  /** Called by a stream that wrote its end. */
  sentAll(stream: Http2Stream): void {
    this.side.onSent(stream)
  }

  /** Pumps the streams and writes once to the socket. Called by the server at the end of a turn. */
  flush(): void {
    this.flushWanted = false
    if (this.ended || this.socket.destroyed) return
    if (this.sending.size > 0) this.pump()
    const bytes = this.out.length
    if (bytes > 0) {
      const { socketHighWaterBytes, controlBytesMax } = this.limits
      if (this.socket.writableLength + bytes > socketHighWaterBytes + controlBytesMax) {
        this.port.protocolError(new Error('the peer does not read our control frames'), this)
        this.destroy('disconnected')
        return
      }
      this.bytesOut += bytes
      this.socket.write(this.out.pending())
      if (this.socket.writableLength === 0) this.out.consumed()
      else this.out.handedOver()
      this.writtenStreamId = this.lastStreamId
    }
    // What is left waits for a window, for the socket's drain event, or for the next turn.
    if (this.sending.size > 0 && this.sendWindow > 0 && this.hasRoom()) this.markDirty()
    this.side.onFlushed()
  }

  /** Each waiting stream in turn sends a frame, while there is room. */
  private pump(): void {
    for (const stream of this.sending) {
      if (!this.hasRoom()) return
      const outcome = stream.pump()
      // A stream without a window stays away until it gets one; one that only lacks the connection's stays in turn.
      if (outcome === 'done' || (outcome === 'blocked' && stream.sendWindow <= 0)) this.sending.delete(stream)
      else if (outcome === 'more') {
        this.sending.delete(stream)
        this.sending.add(stream)
      }
    }
  }

  /** Cuts the header block written at `at` into a HEADERS frame and CONTINUATION frames. */
  private splitHeaders(at: number, streamId: number): void {
    const out = this.out
    const block = Buffer.from(out.bytes.subarray(at + frameHeaderBytes, out.length))
    const flags = out.bytes[at + 4]! & ~frameFlag.endHeaders
    out.length = at
    for (let start = 0; start < block.length; start += frameBytesMax) {
      const end = Math.min(block.length, start + frameBytesMax)
      const last = end === block.length ? frameFlag.endHeaders : 0
      if (start === 0) out.frameHeader(end, frameType.headers, flags | last, streamId)
      else out.frameHeader(end - start, frameType.continuation, last, streamId)
      out.append(block, start, end)
    }
  }

  // --- Input

  private onFrame(
    type: number,
    flags: number,
    streamId: number,
    bytes: Buffer,
    start: number,
    end: number,
  ): void {
    if (this.ended) return
    if (!this.settingsSeen && type !== frameType.settings)
      throw protocolError('no SETTINGS after the preface')
    if (
      this.headers.expecting !== 0 &&
      (type !== frameType.continuation || streamId !== this.headers.expecting)
    )
      throw protocolError('CONTINUATION expected')
    switch (type) {
      case frameType.data:
        this.onData(flags, streamId, bytes, start, end)
        break
      case frameType.headers:
        if ((streamId & 1) === 0) throw protocolError("HEADERS on a stream that is not the client's")
        if (this.headers.begin(flags, streamId, bytes, start, end)) this.side.onHeaders(streamId)
        break
      case frameType.continuation:
        if (this.headers.continue(flags, streamId, bytes, start, end)) this.side.onHeaders(streamId)
        break
      case frameType.rstStream:
        this.onReset(streamId, bytes, start, end)
        break
      case frameType.settings:
        this.onSettings(flags, streamId, bytes, start, end)
        break
      case frameType.ping:
        this.onPing(flags, streamId, bytes, start, end)
        break
      case frameType.windowUpdate:
        this.onWindowUpdate(streamId, bytes, start, end)
        break
      case frameType.priority:
        if (streamId === 0) throw protocolError('PRIORITY without a stream')
        if (end - start !== 5) throw new ConnectionError(errorCode.frameSizeError, 'PRIORITY of a wrong size')
        this.countIdleFrame()
        break
      case frameType.pushPromise:
        throw protocolError('PUSH_PROMISE, which no peer of ours may send')
      case frameType.goAway:
        this.onGoAway(streamId, bytes, start, end)
        break
      default:
        // Section 4.1: unknown frames are ignored.
        this.countIdleFrame()
    }
  }

  private onData(flags: number, streamId: number, bytes: Buffer, start: number, end: number): void {
    if (streamId === 0 || streamId > this.lastStreamId) throw protocolError('DATA on an idle stream')
    const credit = end - start
    this.receiveWindow -= credit
    if (this.receiveWindow < 0)
      throw new ConnectionError(errorCode.flowControlError, 'connection window exceeded')
    this.unreturned += credit
    if (this.unreturned >= this.limits.connectionWindowBytes / 2) {
      this.receiveWindow += this.unreturned
      this.writeWindowUpdate(0, this.unreturned)
      this.unreturned = 0
    }
    let from = start
    let to = end
    if (flags & frameFlag.padded) {
      if (credit < 1 || bytes[start]! > credit - 1) throw protocolError('padding longer than its frame')
      from++
      to -= bytes[start]!
    }
    const ends = (flags & frameFlag.endStream) !== 0
    if (from === to && !ends) this.countIdleFrame()
    const stream = this.streams.get(streamId)
    // The stream may have ended here while the peer was still sending.
    if (stream === undefined) {
      this.countIdleFrame()
      return
    }
    if (stream.remoteEnded) {
      this.resetForPeer(stream, errorCode.streamClosed)
      return
    }
    stream.receiveWindow -= credit
    if (stream.receiveWindow < 0) {
      this.resetForPeer(stream, errorCode.flowControlError)
      return
    }
    if (ends) stream.remoteEnded = true
    if (to - from < credit) stream.consumed(credit - (to - from))
    if (to > from) stream.sink!.onData(bytes, from, to)
    if (ends && !stream.closed) this.complete.push(stream)
  }

  /** The peer has sent all of a stream: its sink hears of it when all that came with it was read. */
  completed(stream: Http2Stream): void {
    stream.remoteEnded = true
    this.complete.push(stream)
  }

  private onReset(streamId: number, bytes: Buffer, start: number, end: number): void {
    if (end - start !== 4) throw new ConnectionError(errorCode.frameSizeError, 'RST_STREAM of a wrong size')
    if (streamId === 0 || streamId > this.lastStreamId) throw protocolError('RST_STREAM on an idle stream')
    const stream = this.streams.get(streamId)
    if (stream === undefined) this.countIdleFrame()
    else this.side.onReset(stream, bytes.readUInt32BE(start))
  }

  private onGoAway(streamId: number, bytes: Buffer, start: number, end: number): void {
    if (streamId !== 0) throw protocolError('GOAWAY on a stream')
    if (end - start < 8) throw new ConnectionError(errorCode.frameSizeError, 'GOAWAY of a wrong size')
    this.countIdleFrame()
    const reason = bytes.toString('latin1', start + 8, Math.min(end, start + 8 + goAwayReasonBytesMax))
    this.side.onGoAway(bytes.readUInt32BE(start) & windowMax, bytes.readUInt32BE(start + 4), reason)
  }

  private onSettings(flags: number, streamId: number, bytes: Buffer, start: number, end: number): void {
    if (streamId !== 0) throw protocolError('SETTINGS on a stream')
    this.settingsSeen = true
    if (flags & frameFlag.ack) {
      if (end !== start) throw new ConnectionError(errorCode.frameSizeError, 'SETTINGS ACK with content')
      this.countIdleFrame()
      return
    }
    this.countIdleFrame()
    const settings = readPeerSettings(bytes, start, end)
    if (settings.headerTableBytes !== undefined) this.encoder.setTableSize(settings.headerTableBytes)
    if (settings.frameBytesMax !== undefined) this.peerFrameBytesMax = settings.frameBytesMax
    if (settings.streamWindow !== undefined) {
      const change = settings.streamWindow - this.peerStreamWindow
      this.peerStreamWindow = settings.streamWindow
      // Each open stream is looked at.
      this.countIdleFrame(this.streams.size / streamsPerIdleFrame)
      for (const stream of this.streams.values()) this.addStreamWindow(stream, change)
    }
    if (settings.streamsMax !== undefined) this.side.onStreamsMax(settings.streamsMax)
    this.output().frameHeader(0, frameType.settings, frameFlag.ack, 0)
    this.side.onSettings()
  }

  private onPing(flags: number, streamId: number, bytes: Buffer, start: number, end: number): void {
    if (streamId !== 0) throw protocolError('PING on a stream')
    if (end - start !== 8) throw new ConnectionError(errorCode.frameSizeError, 'PING of a wrong size')
    this.countIdleFrame()
    if (flags & frameFlag.ack) return
    const now = this.port.now()
    if (now - this.lastPingAt < this.limits.pingIntervalMinMs && ++this.pingStrikes > pingStrikesMax)
      throw new ConnectionError(errorCode.enhanceYourCalm, 'too_many_pings')
    this.lastPingAt = now
    const out = this.output()
    out.frameHeader(8, frameType.ping, frameFlag.ack, 0)
    out.append(bytes, start, end)
  }

  private onWindowUpdate(streamId: number, bytes: Buffer, start: number, end: number): void {
    if (end - start !== 4)
      throw new ConnectionError(errorCode.frameSizeError, 'WINDOW_UPDATE of a wrong size')
    if (streamId > this.lastStreamId) throw protocolError('WINDOW_UPDATE on an idle stream')
    const increment = bytes.readUInt32BE(start) & windowMax
    // Crumbs make us send crumbs.
    if (increment < windowCrumbBytes) this.countIdleFrame()
    if (streamId === 0) {
      if (increment === 0) throw protocolError('WINDOW_UPDATE of zero')
      this.sendWindow += increment
      if (this.sendWindow > windowMax)
        throw new ConnectionError(errorCode.flowControlError, 'window too large')
      if (this.sending.size > 0) this.markDirty()
      return
    }
    const stream = this.streams.get(streamId)
    if (stream === undefined) return
    if (increment === 0) this.resetForPeer(stream, errorCode.protocolError)
    else this.addStreamWindow(stream, increment)
  }

  private addStreamWindow(stream: Http2Stream, change: number): void {
    stream.sendWindow += change
    if (stream.sendWindow > windowMax)
      throw new ConnectionError(errorCode.flowControlError, 'window too large')
    if (stream.sendWindow > 0 && stream.waiting) {
      this.sending.add(stream)
      this.markDirty()
    }
  }

  /** A reset that the peer brought about costs as much as its own: what it made us begin is given up. */
  resetForPeer(stream: Http2Stream, code: number): void {
    this.countReset()
    stream.reset(code, 'cancelled')
  }

  countReset(): void {
    this.allowance.reset(this.lastHeardAt)
  }

  countIdleFrame(count = 1): void {
    this.allowance.idleFrame(this.lastHeardAt, count)
  }

  // --- Life

  /** Takes on a stream that its client opened, until it is closed. */
  adopt(stream: Http2Stream, deadline: number | undefined): void {
    this.streams.set(stream.id, stream)
    if (deadline === undefined) return
    stream.deadline = deadline
    this.deadlines++
  }

  /** A closed stream takes itself off. */
  forget(stream: Http2Stream, queuedBytes: number): void {
    this.streams.delete(stream.id)
    this.sending.delete(stream)
    this.queuedBytes -= queuedBytes
    if (stream.deadline !== undefined) this.deadlines--
    if (this.closing && this.streams.size === 0) this.markDirty()
    this.side.onForgotten()
  }

  /** Ends streams past their deadline and connections that went silent. Called every now and then. */
  sweep(now: number): void {
    if (this.ended) return
    if (this.deadlines > 0) {
      for (const stream of this.streams.values()) {
        if (stream.deadline !== undefined && stream.deadline <= now) stream.sink!.onDeadline()
      }
    }
    const silentMs = now - this.lastHeardAt
    if (this.pingSentAt !== undefined) {
      if (now - this.pingSentAt >= this.limits.keepAliveTimeoutMs) {
        this.failure ??= new Error('no answer to a ping')
        this.destroy('disconnected')
      }
    } else if (silentMs >= this.limits.keepAliveIntervalMs && this.probesSilence) {
      this.pingSentAt = now
      const out = this.output()
      out.frameHeader(8, frameType.ping, 0, 0)
      out.uint32(0)
      out.uint32(0)
    }
  }

  private get probesSilence(): boolean {
    return this.streams.size > 0 || this.side.pingsWhenIdle
  }

  /** Nothing goes on that time could end. */
  get isQuiet(): boolean {
    return this.streams.size === 0 && (this.pingSentAt === undefined || this.ended)
  }

  /** When `sweep` has something to do next, on the connection's clock. */
  get sweepDue(): number {
    let due = Number.POSITIVE_INFINITY
    if (this.pingSentAt !== undefined) due = this.pingSentAt + this.limits.keepAliveTimeoutMs
    else if (this.probesSilence) due = this.lastHeardAt + this.limits.keepAliveIntervalMs
    if (this.deadlines > 0)
      for (const { deadline } of this.streams.values())
        if (deadline !== undefined && deadline < due) due = deadline
    return due
  }

  /** Tells the peer to open no more streams; the connection ends with its last one. */
  shutDown(): void {
    if (this.closing || this.ended) return
    this.closing = true
    this.writeGoAway(errorCode.noError, '')
  }

  /** True when a closing connection has nothing left to do. */
  get idle(): boolean {
    return this.streams.size === 0 && this.out.length === 0 && this.socket.writableLength === 0
  }

  /** Ends the connection after what was written. */
  end(): void {
    if (this.ended) return
    this.flush()
    this.abandon('disconnected')
    this.socket.end()
    const timer = setTimeout(() => this.socket.destroy(), lingerMs)
    this.socket.once('close', () => clearTimeout(timer))
  }

  private fail(error: ConnectionError): void {
    if (this.ended) return
    this.failure = error
    this.port.protocolError(error, this)
    this.writeGoAway(error.code, error.message)
    this.socket.write(this.out.pending())
    this.out.handedOver()
    this.end()
  }

  private writeGoAway(code: number, reason: string): void {
    const out = this.output()
    out.frameHeader(8 + reason.length, frameType.goAway, 0, 0)
    out.uint32(this.lastStreamId)
    out.uint32(code)
    out.latin1(reason)
  }

  private destroy(reason: CloseReason): void {
    this.abandon(reason)
    this.socket.destroy()
  }

  private onSocketClose(): void {
    this.abandon('disconnected')
    this.port.gone(this)
  }

  private abandon(reason: CloseReason): void {
    this.ended = true
    for (const stream of [...this.streams.values()]) stream.close(reason)
  }
}

export function protocolError(message: string): ConnectionError {
  return new ConnectionError(errorCode.protocolError, message)
}

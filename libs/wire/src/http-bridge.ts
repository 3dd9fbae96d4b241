import type { Server as HttpServer } from 'node:http'
import { Duplex } from 'node:stream'
import type { TLSSocket } from 'node:tls'
import { errorCode } from './http2/frames.ts'
import type { Fields } from './http2/hpack-encoder.ts'
import { deafSink, type Http2Stream, type StreamSink } from './http2/stream.ts'

/** A response head may not be larger. */
const headBytesMax = 64 * 1024
const connectionHeaders = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'upgrade',
])

/**
 * Answers an HTTP/2 request that is not gRPC with an ordinary HTTP/1 server: the request goes to it as HTTP/1.0 text over an
 * in-memory connection, so that the answer's body ends where the connection does and needs no framing of its own.
 */
export function openHttp(stream: Http2Stream, server: HttpServer | undefined): void {
  const refused = server === undefined ? '404' : stream.head.tooLarge ? '431' : undefined
  const requestHead = refused === undefined ? requestText(stream) : undefined
  if (server === undefined || requestHead === undefined) {
    stream.sink = deafSink
    stream.sendEnd([
      [':status', refused ?? '400'],
      ['content-length', '0'],
    ])
    return
  }
  const { sink, socket } = bridge(stream, requestHead)
  stream.sink = sink
  server.emit('connection', socket)
}

/** The request line and headers; undefined if they would not survive as text. */
function requestText(stream: Http2Stream): ((bodyBytes: number | undefined) => Buffer) | undefined {
  const { head } = stream
  if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(head.method) || !/^[\x21-\xff]+$/.test(head.path))
    return undefined
  let text = `${head.method} ${head.path} HTTP/1.0\r\n`
  if (head.authority !== '') text += `host: ${head.authority}\r\n`
  for (const { name, value } of head.fields) {
    if (/[\r\n\0]/.test(value) || /[^\x21-\x7e]/.test(name)) return undefined
    // Whoever sends both gets the :authority (RFC 9113, section 8.3.1); the length is written below.
    if (name.startsWith(':') || name === 'content-length' || (name === 'host' && head.authority !== ''))
      continue
    text += `${name}: ${value}\r\n`
  }
  return (bodyBytes) => {
    const length = bodyBytes === undefined ? '' : `content-length: ${bodyBytes}\r\n`
    return Buffer.from(`${text}${length}\r\n`, 'latin1')
  }
}

function bridge(
  stream: Http2Stream,
  requestHead: (bodyBytes: number | undefined) => Buffer,
): { sink: StreamSink; socket: Duplex } {
  const declared = stream.head.fields.find((field) => field.name === 'content-length')?.value
  const bodyBytesMax = stream.connection.limits.messageBytesMax
  /** A body of unknown length is collected first; one of known length flows. */
  let collected: Buffer[] | undefined = declared === undefined ? [] : undefined
  let bodyBytes = 0
  let unread = 0
  let resumeWriting: (() => void) | undefined
  const response = responseReader(stream)

  const socket = new Duplex({
    read() {
      stream.consumed(unread)
      unread = 0
    },
    write(chunk: Buffer, _encoding, done) {
      const error = response.push(chunk)
      if (error !== undefined) done(new Error(error))
      else if (stream.full) resumeWriting = done
      else done()
    },
    final(done) {
      response.end()
      done()
    },
    destroy(error, done) {
      if (!stream.closed) {
        if (error) stream.reset(errorCode.internalError, 'done')
        else response.end()
      }
      done(null)
    },
  })
  delegate(socket, stream)
  if (declared !== undefined) socket.push(requestHead(/^[0-9]{1,15}$/.test(declared) ? Number(declared) : 0))

  const sink: StreamSink = {
    onData(chunk, start, end) {
      bodyBytes += end - start
      if (collected === undefined) {
        if (socket.push(chunk.subarray(start, end))) stream.consumed(end - start)
        else unread += end - start
        return
      }
      stream.consumed(end - start)
      if (bodyBytes > bodyBytesMax) {
        collected = undefined
        stream.sendEnd([
          [':status', '413'],
          ['content-length', '0'],
        ])
      } else collected.push(Buffer.from(chunk.subarray(start, end)))
    },
    onEnd() {
      if (collected === undefined) return
      const body = Buffer.concat(collected)
      collected = undefined
      socket.push(requestHead(body.length === 0 && stream.head.method !== 'POST' ? undefined : body.length))
      if (body.length > 0) socket.push(body)
    },
    onDrain() {
      const resume = resumeWriting
      resumeWriting = undefined
      resume?.()
    },
    onDeadline() {},
    onShutdown() {},
    onClose() {
      socket.destroy()
    },
  }
  return { sink, socket }
}

/** Reads the HTTP/1 answer and sends it on: the head once it is complete, then the body as it comes. */
function responseReader(stream: Http2Stream): { push(chunk: Buffer): string | undefined; end(): void } {
  let head: Buffer | undefined = Buffer.alloc(0)
  return {
    push(chunk) {
      if (head === undefined) {
        stream.sendData(Buffer.from(chunk))
        return undefined
      }
      head = Buffer.concat([head, chunk])
      const end = head.indexOf('\r\n\r\n')
      if (end < 0) return head.length > headBytesMax ? 'response head too large' : undefined
      stream.sendHead(responseFields(head.toString('latin1', 0, end)))
      const body = head.subarray(end + 4)
      head = undefined
      stream.sendData(body)
      return undefined
    },
    end() {
      if (head === undefined) stream.sendEnd(undefined)
      else stream.reset(errorCode.internalError, 'done')
    },
  }
}

function responseFields(text: string): Fields {
  const [statusLine = '', ...lines] = text.split('\r\n')
  const fields: [string, string][] = [[':status', statusLine.split(' ')[1] ?? '500']]
  for (const line of lines) {
    const colon = line.indexOf(':')
    const name = line.slice(0, colon).toLowerCase()
    if (!connectionHeaders.has(name)) fields.push([name, line.slice(colon + 1).trim()])
  }
  return fields
}

/** What HTTP handlers look up on a socket comes from the real one. */
function delegate(socket: Duplex, stream: Http2Stream): void {
  const real = stream.connection.socket as TLSSocket
  Object.defineProperties(socket, {
    remoteAddress: { get: () => real.remoteAddress },
    remotePort: { get: () => real.remotePort },
    localAddress: { get: () => real.localAddress },
    localPort: { get: () => real.localPort },
    encrypted: { get: () => real.encrypted },
    authorized: { get: () => real.authorized },
    getPeerCertificate: { value: (detailed?: boolean) => real.getPeerCertificate(detailed === true) },
  })
}

import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http'
import { StringDecoder } from 'node:string_decoder'
import type { MethodCodec } from '@kiln/etcd-api/descriptors'
import {
  type CallInfo,
  GrpcError,
  grpcCode,
  type Status,
  type StreamCall,
  type StreamListener,
} from '@kiln/wire'
import type { MethodTable } from '../api/method-table.ts'
import { httpStatusOf } from './http-status.ts'
import { JsonObjects } from './json-text.ts'
import { answerError, messageTooLong, requestOf } from './messages.ts'

/** Streams that go on when the body ends: a client that posts one request and reads is their usual one. */
const outliveBody = new Set(['/etcdserverpb.Watch/Watch'])

/** The largest message that is made into JSON from parts: it is done in one piece. */
const gatheredBytesMax = 8 * 1024 * 1024

export type StreamRequest = {
  methods: MethodTable
  path: string
  codec: MethodCodec
  caller: CallInfo
  charsMax: number
}

/** Answers a streaming method with one `{"result":...}` line a message, and `{"error":...}` if it fails. */
export function serveStream(
  { methods, path, codec, caller, charsMax }: StreamRequest,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  let listener: StreamListener = {}
  let isEnded = false
  let gathered: Uint8Array[] = []
  let gatheredLeft = 0
  const count = { code: grpcCode.cancelled as number, messagesIn: 0, messagesOut: 0 }
  const counted = methods.countStream(path)
  const call: StreamCall = {
    path,
    peer: caller.peer,
    token: caller.token,
    hasLeader: caller.hasLeader,
    deadline: caller.deadline,
    get closed() {
      return isEnded || caller.closed
    },
    header: (name) => caller.header(name),
    get bufferedBytes() {
      return response.writableLength
    },
    get writable() {
      return !response.writableNeedDrain
    },
    send: (message, tail) => {
      if (!call.closed) {
        const result = codec.responseToJson(tail ? Buffer.concat([message, tail]) : message)
        writeLine(response, 200, { result })
        count.messagesOut++
      }
      return call.writable
    },
    beginMessage: (bytes) => {
      gathered = []
      gatheredLeft = bytes
      if (bytes > gatheredBytesMax) {
        const message = `a message of ${bytes} bytes is too large for JSON; ask for fragments`
        call.end({ code: grpcCode.resourceExhausted, message })
      }
    },
    sendPart: (bytes) => {
      if (call.closed) return false
      gathered.push(bytes)
      gatheredLeft -= bytes.length
      if (gatheredLeft === 0) call.send(Buffer.concat(gathered))
      return call.writable
    },
    end: (status) => {
      if (call.closed) return
      isEnded = true
      count.code = status?.code ?? grpcCode.ok
      if (status && status.code !== grpcCode.ok) writeError(response, status)
      else if (!response.headersSent) response.writeHead(200, { 'content-type': 'application/json' })
      response.end()
    },
    pause: () => void request.pause(),
    resume: () => void request.resume(),
  }
  try {
    listener = methods.open(path, call)
  } catch (error) {
    counted({ ...count, code: (error as GrpcError).code })
    answerError(response, error as Error)
    return
  }
  response.on('drain', () => listener.onDrain?.())
  response.once('close', () => {
    counted(count)
    listener.onClose?.(isEnded ? 'done' : 'cancelled')
  })
  const onMessage = (message: Uint8Array): void => {
    count.messagesIn++
    listener.onMessage?.(message)
  }
  const isEndTold = !outliveBody.has(path)
  readRequests({ codec, charsMax, call, isEndTold }, { ...listener, onMessage }, request)
}

/** Hands on the requests of the body as they come. */
function readRequests(
  options: { codec: MethodCodec; charsMax: number; call: StreamCall; isEndTold: boolean },
  listener: StreamListener,
  request: IncomingMessage,
): void {
  const { codec, charsMax, call } = options
  const objects = new JsonObjects(charsMax)
  const decoder = new StringDecoder('utf8')
  let count = 0
  const hand = (text: string): void => {
    count++
    listener.onMessage?.(requestOf(codec, text))
  }
  const refuse = (thrown: unknown): void => {
    const error =
      thrown instanceof RangeError
        ? messageTooLong(charsMax)
        : thrown instanceof GrpcError
          ? thrown
          : new GrpcError(grpcCode.invalidArgument, (thrown as Error).message)
    call.end({ code: error.code, message: error.message })
  }
  request.on('data', (chunk: Buffer) => {
    try {
      for (const text of objects.push(decoder.write(chunk))) hand(text)
    } catch (thrown) {
      refuse(thrown)
    }
  })
  request.on('end', () => {
    try {
      if (objects.isPartial) throw new SyntaxError('unexpected end of JSON input')
      // A stream from the server alone has exactly one request, which may be left out when it says nothing.
      if (count === 0 && !codec.clientStreams) hand('')
      if (options.isEndTold) listener.onEnd?.()
    } catch (thrown) {
      refuse(thrown)
    }
  })
}

function writeLine(response: ServerResponse, status: number, line: unknown): void {
  if (!response.headersSent) response.writeHead(status, { 'content-type': 'application/json' })
  response.write(`${JSON.stringify(line)}\n`)
}

/** The last line of a stream that failed; if nothing was answered before it, the HTTP status says so too. */
function writeError(response: ServerResponse, { code, message }: Status): void {
  const httpCode = httpStatusOf(code)
  const error = { grpc_code: code, http_code: httpCode, message, http_status: STATUS_CODES[httpCode] ?? '' }
  writeLine(response, httpCode, { error })
}

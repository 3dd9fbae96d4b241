import type { IncomingMessage, ServerResponse } from 'node:http'
import type { TLSSocket } from 'node:tls'
import { type MethodCodec, methodCodec } from '@kiln/etcd-api/descriptors'
import { type CallInfo, GrpcError, grpcCode } from '@kiln/wire'
import type { MethodTable } from '../api/method-table.ts'
import { answerError, messageTooLong, requestOf, send } from './messages.ts'
import { gatewayPaths } from './paths.ts'
import { serveStream } from './stream-call.ts'

export type GatewayOptions = { methods: MethodTable; messageBytesMax: number }

/** Base64 makes a message longer, and names come on top. */
const jsonFactor = 2

/**
 * The JSON gateway under `/v3/`: any method of the API by its JSON form, through the same handlers as gRPC (kv.md section 8).
 * True if the request was one for it.
 */
export function serveGateway(
  options: GatewayOptions,
  request: IncomingMessage,
  response: ServerResponse,
): boolean {
  const path = gatewayPaths.get(request.url?.split('?')[0] ?? '')
  const codec = path && methodCodec(path)
  if (!path || !codec) return false
  if (request.method !== 'POST') {
    response.setHeader('allow', 'POST')
    answerError(response, new GrpcError(grpcCode.unimplemented, 'Method Not Allowed'))
    return true
  }
  const caller = callerOf(request, path, () => response.closed)
  const charsMax = options.messageBytesMax * jsonFactor
  if (codec.serverStreams) {
    serveStream({ methods: options.methods, path, codec, caller, charsMax }, request, response)
    return true
  }
  const gone = new AbortController()
  response.once('close', () => gone.abort())
  answer(options.methods, { codec, caller, charsMax, signal: gone.signal }, request, response).catch(
    (error: unknown) => answerError(response, error as Error),
  )
  return true
}

async function answer(
  methods: MethodTable,
  call: { codec: MethodCodec; caller: CallInfo; charsMax: number; signal: AbortSignal },
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const { codec, caller, signal } = call
  const text = await bodyText(request, call.charsMax)
  const message = requestOf(codec, text)
  const json = codec.responseToJson(await methods.call(caller.path, message, caller, signal))
  send(response, 200, json)
}

async function bodyText(request: IncomingMessage, charsMax: number): Promise<string> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length
    if (length > charsMax) throw messageTooLong(charsMax)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

/**
 * Who calls: the token goes in `Authorization` as it is, gRPC metadata in `Grpc-Metadata-NAME`. A client certificate's name
 * does not count here: etcd's gateway is a client of its own server and has its certificate.
 */
function callerOf(request: IncomingMessage, path: string, isClosed: () => boolean): CallInfo {
  const header = (name: string): string | undefined => {
    const value = request.headers[`grpc-metadata-${name}`] ?? request.headers[name]
    return Array.isArray(value) ? value.join(',') : value
  }
  const { remoteAddress = '', remotePort = 0, encrypted } = request.socket as TLSSocket
  return {
    path,
    peer: {
      address: remoteAddress,
      port: remotePort,
      encrypted: encrypted === true,
      commonName: undefined,
    },
    token: header('token') ?? header('authorization'),
    hasLeader: header('hasleader') === 'true',
    deadline: undefined,
    get closed() {
      return isClosed()
    },
    header,
  }
}

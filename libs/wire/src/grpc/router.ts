import { errorCode } from '../http2/frames.ts'
import { deafSink, type Http2Stream } from '../http2/stream.ts'
import type { StreamHandler, UnaryHandler } from './call.ts'
import type { CallHooks } from './hooks.ts'
import { grpcCode, type Status } from './status.ts'
import { StreamExchange } from './stream-exchange.ts'
import { trailersOnly } from './trailers.ts'
import { UnaryExchange } from './unary-exchange.ts'

type Route = { kind: 'unary'; handler: UnaryHandler } | { kind: 'stream'; handler: StreamHandler }

/** Where the methods of a server are, by path. */
export type Router = {
  unary(path: string, handler: UnaryHandler): void
  stream(path: string, handler: StreamHandler): void
  /** Starts the call a gRPC request asks for, or refuses it. */
  open(stream: Http2Stream): void
}

export function createRouter(hooks: CallHooks, overloadMessage: string): Router {
  const routes = new Map<string, Route>()

  function refusal(stream: Http2Stream, route: Route | undefined): Status | undefined {
    const { head, connection } = stream
    if (head.tooLarge) {
      const message = `request headers are larger than ${connection.limits.headerListBytesMax} bytes`
      return { code: grpcCode.resourceExhausted, message }
    }
    if (route === undefined) return unknownMethod(head.path, routes)
    if (Number.isNaN(head.timeoutMs)) return { code: grpcCode.internal, message: 'malformed grpc-timeout' }
    if (head.encoding !== 'identity') {
      const message = `grpc: Decompressor is not installed for grpc-encoding "${head.encoding}"`
      return { code: grpcCode.unimplemented, message }
    }
    if (connection.queuedBytes > connection.limits.responseBytesMax)
      return { code: grpcCode.resourceExhausted, message: overloadMessage }
    return undefined
  }

  return {
    unary(path, handler) {
      routes.set(path, { kind: 'unary', handler })
    },
    stream(path, handler) {
      routes.set(path, { kind: 'stream', handler })
    },
    open(stream) {
      if (stream.head.method !== 'POST') {
        stream.sink = deafSink
        stream.sendEnd([
          [':status', '405'],
          ['allow', 'POST'],
        ])
        return
      }
      const route = routes.get(stream.head.path)
      const status = refusal(stream, route)
      if (status !== undefined || route === undefined) {
        stream.sink = deafSink
        if (status !== undefined) stream.sendEnd(trailersOnly(status))
        else stream.reset(errorCode.internalError, 'refused')
      } else if (route.kind === 'unary') stream.sink = new UnaryExchange(stream, route.handler, hooks)
      else {
        const exchange = new StreamExchange(stream, hooks)
        stream.sink = exchange
        exchange.start(route.handler)
      }
    },
  }
}

function unknownMethod(path: string, routes: Map<string, Route>): Status {
  const slash = path.lastIndexOf('/')
  if (!path.startsWith('/') || slash < 1)
    return { code: grpcCode.unimplemented, message: `malformed method name: "${path}"` }
  const service = path.slice(1, slash)
  const known = [...routes.keys()].some((route) => route.startsWith(`/${service}/`))
  const message = known
    ? `unknown method ${path.slice(slash + 1)} for service ${service}`
    : `unknown service ${service}`
  return { code: grpcCode.unimplemented, message }
}

import { readFileSync } from 'node:fs'
import grpc, {
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServiceDefinition,
  type sendUnaryData,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js'
import {
  type CallInfo,
  GrpcError,
  grpcCode,
  type StreamCall,
  type StreamHandler,
  type StreamListener,
  type UnaryCall,
  type UnaryHandler,
} from '@kiln/wire'
import type { MethodRegistry } from './api/method-table.ts'
import type { TlsFiles } from './settings/settings.ts'

/** A server of the same services on @grpc/grpc-js, to cross-check our engine: gRPC alone, HTTP needs a port of its own. */
export type GrpcJsServer = MethodRegistry & {
  listen(at: { host: string; port: number }): Promise<{ host: string; port: number }>
  close(): Promise<void>
}

export type GrpcJsOptions = {
  tls?: TlsFiles
  messageBytesMax: number
  onHandlerError(error: unknown, path: string): void
}

const identity = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
const closeMs = 2000

export function createGrpcJsServer(options: GrpcJsOptions): GrpcJsServer {
  const { tls, messageBytesMax, onHandlerError } = options
  const server = new grpc.Server({
    'grpc.max_receive_message_length': messageBytesMax,
    'grpc.max_send_message_length': -1,
  })
  const services = new Map<
    string,
    { definition: ServiceDefinition; handlers: UntypedServiceImplementation }
  >()
  const add = (path: string, isStream: boolean, handler: UntypedServiceImplementation[string]): void => {
    const [, service, method] = path.split('/') as [string, string, string]
    const known = services.get(service) ?? { definition: {}, handlers: {} }
    services.set(service, known)
    // Streams from the server alone are the same on the wire.
    const shape = { path, requestStream: isStream, responseStream: isStream }
    const codec = { requestSerialize: identity, requestDeserialize: identity }
    const answers = { responseSerialize: identity, responseDeserialize: identity }
    Object.assign(known.definition, { [method]: { ...shape, ...codec, ...answers } })
    known.handlers[method] = handler
  }
  return {
    unary: (path, handler) => add(path, false, unaryOf(path, handler, onHandlerError)),
    stream: (path, handler) => add(path, true, streamOf(path, handler, onHandlerError)),
    listen: async ({ host, port }) => {
      for (const { definition, handlers } of services.values()) server.addService(definition, handlers)
      const bound = await new Promise<number>((resolve, reject) => {
        const address = `${host.includes(':') ? `[${host}]` : host}:${port}`
        server.bindAsync(address, credentialsOf(tls), (error, taken) =>
          error ? reject(error) : resolve(taken),
        )
      })
      return { host, port: bound }
    },
    close: () =>
      new Promise((resolve) => {
        const force = setTimeout(() => server.forceShutdown(), closeMs)
        server.tryShutdown(() => {
          clearTimeout(force)
          resolve()
        })
      }),
  }
}

function credentialsOf(tls: TlsFiles | undefined): grpc.ServerCredentials {
  if (!tls) return grpc.ServerCredentials.createInsecure()
  const pair = { private_key: readFileSync(tls.keyFile), cert_chain: readFileSync(tls.certFile) }
  const ca = tls.caFile ? readFileSync(tls.caFile) : null
  return grpc.ServerCredentials.createSsl(ca, [pair], tls.clientAuth)
}

type AnyCall = ServerUnaryCall<Buffer, Uint8Array> | ServerDuplexStream<Buffer, Uint8Array>

function infoOf(path: string, call: AnyCall): Omit<CallInfo, 'closed'> {
  const peer = call.getPeer()
  const at = peer.lastIndexOf(':')
  const { sslPeerCertificate: certificate, transportSecurityType } = call.getAuthContext()
  const header = (name: string): string | undefined => {
    const values = call.metadata.get(name)
    return values.length > 0 ? values.join(',') : undefined
  }
  const deadline = call.getDeadline()
  const name = certificate?.subject?.CN
  return {
    path,
    peer: {
      address: peer.slice(0, at),
      port: Number(peer.slice(at + 1)),
      encrypted: transportSecurityType === 'ssl',
      commonName: Array.isArray(name) ? name[0] : name,
    },
    token: header('token') ?? header('authorization'),
    hasLeader: header('hasleader') === 'true',
    deadline: typeof deadline === 'number' && !Number.isFinite(deadline) ? undefined : Number(deadline),
    header,
  }
}

type Report = GrpcJsOptions['onHandlerError']

function statusOf(thrown: unknown, path: string, report: Report): { code: number; details: string } {
  if (thrown instanceof GrpcError) return { code: thrown.code, details: thrown.message }
  report(thrown, path)
  return { code: grpcCode.unknown, details: 'internal error' }
}

function unaryOf(path: string, handler: UnaryHandler, report: Report) {
  return (call: ServerUnaryCall<Buffer, Uint8Array>, done: sendUnaryData<Uint8Array>): void => {
    let isOver = false
    const end = (failure: { code: number; details: string } | null, answer?: Uint8Array): void => {
      if (isOver) return
      isOver = true
      done(failure, answer)
    }
    const inner: UnaryCall = {
      ...infoOf(path, call),
      get closed() {
        return isOver || call.cancelled
      },
      reply: (answer) => end(null, answer),
      fail: (code, message) => end({ code, details: message }),
      onAbandoned: undefined,
    }
    call.on('cancelled', () => {
      if (isOver) return
      isOver = true
      inner.onAbandoned?.('cancelled')
    })
    try {
      const answer = handler(call.request, inner)
      if (answer instanceof Uint8Array) end(null, answer)
      else
        answer?.then(
          (bytes) => end(null, bytes),
          (error: unknown) => end(statusOf(error, path, report)),
        )
    } catch (error) {
      end(statusOf(error, path, report))
    }
  }
}

function streamOf(path: string, handler: StreamHandler, report: Report) {
  return (call: ServerDuplexStream<Buffer, Uint8Array>): void => {
    let isOver = false
    let parts: Uint8Array[] = []
    let partsLeft = 0
    const fail = (error: unknown): void => {
      const { code, details } = statusOf(error, path, report)
      inner.end({ code, message: details })
    }
    const inner: StreamCall = {
      ...infoOf(path, call),
      get closed() {
        return isOver
      },
      get bufferedBytes() {
        return call.writableLength
      },
      get writable() {
        return !isOver && !call.writableNeedDrain
      },
      send: (message, tail) => {
        if (!isOver) call.write(tail ? Buffer.concat([message, tail]) : identity(message))
        return inner.writable
      },
      beginMessage: (bytes) => {
        parts = []
        partsLeft = bytes
      },
      sendPart: (bytes) => {
        parts.push(bytes)
        partsLeft -= bytes.length
        if (partsLeft > 0) return inner.writable
        const whole = Buffer.concat(parts)
        parts = []
        return inner.send(whole)
      },
      end: (status) => {
        if (isOver) return
        isOver = true
        if (status === undefined || status.code === grpcCode.ok) call.end()
        else call.emit('error', { code: status.code, details: status.message })
        closed('done')
      },
      pause: () => void call.pause(),
      resume: () => void call.resume(),
    }
    let listener: StreamListener = {}
    let isClosed = false
    const closed = (reason: 'done' | 'cancelled'): void => {
      if (isClosed) return
      isClosed = true
      isOver = true
      setImmediate(() => listener.onClose?.(reason))
    }
    const guarded = (run: () => void): void => {
      try {
        run()
      } catch (error) {
        fail(error)
      }
    }
    call.on('cancelled', () => closed('cancelled'))
    call.on('drain', () => !isOver && guarded(() => listener.onDrain?.()))
    guarded(() => {
      listener = handler(inner)
    })
    call.on('data', (message: Buffer) => !isOver && guarded(() => listener.onMessage?.(message)))
    call.on('end', () => !isOver && guarded(() => listener.onEnd?.()))
  }
}

import {
  type CallEnd,
  type CallInfo,
  GrpcError,
  grpcCode,
  type StreamCall,
  type StreamHandler,
  type StreamListener,
  type UnaryCall,
  type UnaryHandler,
  type WireServer,
} from '@kiln/wire'

/** Where services put their methods. */
export type MethodRegistry = Pick<WireServer, 'unary' | 'stream'>

export type MethodTableHooks = {
  now(): number
  onCallStart?(path: string, kind: 'unary' | 'stream'): void
  onCallEnd?(end: CallEnd, call?: CallInfo): void
  onHandlerError?(error: unknown, path: string): void
  /** Looks at every unary call before its handler does; what it throws is the answer. */
  admit?(call: CallInfo): void
}

/**
 * All methods of a member by path: served on its sockets, and called from within by the JSON gateway and by services that are
 * made of others. A call from within is the caller's own: its token decides what it may do.
 */
export class MethodTable implements MethodRegistry {
  readonly #unary = new Map<string, UnaryHandler>()
  readonly #streams = new Map<string, StreamHandler>()
  readonly #hooks: MethodTableHooks

  constructor(hooks: MethodTableHooks) {
    this.#hooks = hooks
  }

  unary(path: string, handler: UnaryHandler): void {
    this.#unary.set(path, (request, call) => {
      this.#hooks.admit?.(call)
      return handler(request, call)
    })
  }
  stream(path: string, handler: StreamHandler): void {
    this.#streams.set(path, handler)
  }

  methods(): { path: string; kind: 'unary' | 'stream' }[] {
    return [
      ...[...this.#unary.keys()].map((path) => ({ path, kind: 'unary' }) as const),
      ...[...this.#streams.keys()].map((path) => ({ path, kind: 'stream' }) as const),
    ]
  }

  /** `package.Service` of each service there is. */
  services(): string[] {
    return [...new Set(this.methods().map(({ path }) => path.split('/')[1]!))].sort()
  }

  serveOn(server: MethodRegistry): void {
    for (const [path, handler] of this.#unary) server.unary(path, handler)
    for (const [path, handler] of this.#streams) server.stream(path, handler)
  }

  /** Calls a unary method; fails with a `GrpcError` only. */
  async call(path: string, request: Uint8Array, caller: CallInfo, signal?: AbortSignal): Promise<Uint8Array> {
    const handler = this.#unary.get(path)
    if (!handler) throw unknownMethod(path)
    const { onCallStart, onCallEnd, now } = this.#hooks
    const startedAt = now()
    const call = innerCall(path, caller, signal)
    const ended = (code: number): void => {
      const durationMs = now() - startedAt
      onCallEnd?.({ path, kind: 'unary', code, durationMs, messagesIn: 1, messagesOut: 1 }, call)
    }
    onCallStart?.(path, 'unary')
    try {
      const response = await this.#run(handler, request, call, signal)
      ended(grpcCode.ok)
      return response
    } catch (thrown) {
      const error = this.#grpcError(thrown, path)
      ended(error.code)
      throw error
    }
  }

  /** Begins to count a stream that was opened from within; the function it returns ends that. */
  countStream(path: string): (end: Pick<CallEnd, 'code' | 'messagesIn' | 'messagesOut'>) => void {
    const { onCallStart, onCallEnd, now } = this.#hooks
    const startedAt = now()
    onCallStart?.(path, 'stream')
    return (end) => onCallEnd?.({ path, kind: 'stream', durationMs: now() - startedAt, ...end })
  }

  /** Opens a streaming method on a call that the caller made; what is thrown is a `GrpcError`. */
  open(path: string, call: StreamCall): StreamListener {
    const handler = this.#streams.get(path)
    if (!handler) throw unknownMethod(path)
    try {
      return handler(call)
    } catch (thrown) {
      throw this.#grpcError(thrown, path)
    }
  }

  #run(
    handler: UnaryHandler,
    request: Uint8Array,
    call: UnaryCall,
    signal: AbortSignal | undefined,
  ): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      call.reply = resolve
      call.fail = (code, message) => reject(new GrpcError(code, message))
      const abandon = (): void => {
        call.onAbandoned?.('cancelled')
        reject(new GrpcError(grpcCode.cancelled, 'etcdserver: request canceled'))
      }
      if (signal?.aborted) return abandon()
      signal?.addEventListener('abort', abandon, { once: true })
      const answer = handler(request, call)
      if (answer instanceof Uint8Array) resolve(answer)
      else answer?.then(resolve, reject)
    })
  }

  #grpcError(thrown: unknown, path: string): GrpcError {
    if (thrown instanceof GrpcError) return thrown
    this.#hooks.onHandlerError?.(thrown, path)
    return new GrpcError(grpcCode.unknown, 'internal error', { cause: thrown })
  }
}

/** A call on behalf of another, which says who asks; whoever runs it takes the answer. */
function innerCall(path: string, caller: CallInfo, signal: AbortSignal | undefined): UnaryCall {
  return {
    path,
    peer: caller.peer,
    token: caller.token,
    hasLeader: caller.hasLeader,
    deadline: caller.deadline,
    get closed() {
      return caller.closed || signal?.aborted === true
    },
    header: (name) => caller.header(name),
    reply: () => undefined,
    fail: () => undefined,
    onAbandoned: undefined,
  }
}

const unknownMethod = (path: string): GrpcError =>
  new GrpcError(grpcCode.unimplemented, `unknown method ${path}`)

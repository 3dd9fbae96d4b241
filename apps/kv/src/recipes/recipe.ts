import { GrpcError, grpcCode, type UnaryCall } from '@kiln/wire'
import type { MethodTable } from '../api/method-table.ts'
import { decode } from '../api/requests.ts'

export const recipeRefusal = (text: string): GrpcError => new GrpcError(grpcCode.unknown, text)

/** etcd makes these services of a client of its own, so that every refusal reaches the caller as unknown with its text. */
export function asRecipeError(thrown: unknown): unknown {
  return thrown instanceof GrpcError
    ? new GrpcError(grpcCode.unknown, thrown.message, { cause: thrown })
    : thrown
}

/** Registers a method that may wait for long: `signal` is aborted when nobody waits for its answer any more. */
export function recipe<Request>(
  methods: MethodTable,
  path: string,
  codec: { decode(bytes: Uint8Array): Request },
  handler: (request: Request, call: UnaryCall, signal: AbortSignal) => Promise<Uint8Array>,
): void {
  methods.unary(path, async (bytes, call) => {
    const gone = new AbortController()
    call.onAbandoned = () => gone.abort()
    const request = decode(codec, bytes)
    try {
      return await handler(request, call, gone.signal)
    } catch (thrown) {
      throw asRecipeError(thrown)
    }
  })
}

import { GrpcError, grpcCode } from '@kiln/wire'
import type { ServiceContext } from './context.ts'
import { toGrpcError } from './errors.ts'
import type { MethodRegistry } from './method-table.ts'

/** What this version refuses, by name, to whoever might use it if it were there. */
export function serveUnsupported(server: MethodRegistry, { auth }: ServiceContext): void {
  const message = 'etcdserver: streaming a snapshot to a client is not supported by this version of kiln-kv'
  server.stream('/etcdserverpb.Maintenance/Snapshot', (call) => {
    auth.admit(call, { kind: 'admin' }, 'local').then(
      () => call.end({ code: grpcCode.unimplemented, message }),
      (thrown: unknown) => {
        const error = toGrpcError(thrown)
        call.end(
          error instanceof GrpcError
            ? { code: error.code, message: error.message }
            : { code: grpcCode.unknown, message: 'internal error' },
        )
      },
    )
    return {}
  })
}

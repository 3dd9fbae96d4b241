import {
  HealthCheckRequest,
  HealthCheckResponse,
  HealthCheckResponse_ServingStatus,
} from '@kiln/etcd-api/health'
import { grpcCode } from '@kiln/wire'
import { fail } from './errors.ts'
import type { MethodTable } from './method-table.ts'
import { decode } from './requests.ts'

const answer = (status: HealthCheckResponse_ServingStatus): Uint8Array =>
  HealthCheckResponse.encode({ status }).finish()

/** grpc.health.v1.Health: a member that answers serves all it has; what it cannot do now each call says itself. */
export function serveHealth(methods: MethodTable): void {
  const isServed = (service: string): boolean => service === '' || methods.services().includes(service)
  const { SERVING, SERVICE_UNKNOWN } = HealthCheckResponse_ServingStatus

  methods.unary('/grpc.health.v1.Health/Check', (bytes) => {
    const { service } = decode(HealthCheckRequest, bytes)
    if (!isServed(service)) fail({ code: grpcCode.notFound, text: 'unknown service' })
    return answer(SERVING)
  })
  // The stream stays open: a client learns of the end by its end.
  methods.stream('/grpc.health.v1.Health/Watch', (call) => ({
    onMessage: (bytes) => {
      const { service } = decode(HealthCheckRequest, bytes)
      call.send(answer(isServed(service) ? SERVING : SERVICE_UNKNOWN))
    },
  }))
}

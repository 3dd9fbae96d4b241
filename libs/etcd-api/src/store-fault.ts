import { status as grpcStatus, type ServiceError } from '@grpc/grpc-js'
import { Fault } from '@kiln/service'

/**
 * What a failed call says about the request: refused for good; certainly without effect, so that it may be sent again; or lost, when
 * it may have been applied.
 */
export type Failure = { kind: 'refused' | 'not-applied' | 'lost'; fault: Fault }

/** Texts that etcd promises (its clients match on them), and what they mean here. */
const refusals: [fragment: string, code: string][] = [
  ['required revision has been compacted', 'STORE_COMPACTED'],
  ['required revision is a future revision', 'STORE_FUTURE_REVISION'],
  ['requested lease not found', 'STORE_LEASE_NOT_FOUND'],
  ['member not found', 'STORE_MEMBER_NOT_FOUND'],
  ['database space exceeded', 'STORE_NO_SPACE'],
  ['unhealthy cluster', 'STORE_UNHEALTHY'],
]

const byCode = new Map<number, string>([
  [grpcStatus.INVALID_ARGUMENT, 'STORE_INVALID'],
  [grpcStatus.NOT_FOUND, 'STORE_NOT_FOUND'],
  [grpcStatus.ALREADY_EXISTS, 'STORE_PRECONDITION'],
  [grpcStatus.PERMISSION_DENIED, 'STORE_DENIED'],
  [grpcStatus.UNAUTHENTICATED, 'STORE_DENIED'],
  [grpcStatus.RESOURCE_EXHAUSTED, 'STORE_BUSY'],
  [grpcStatus.FAILED_PRECONDITION, 'STORE_PRECONDITION'],
  [grpcStatus.OUT_OF_RANGE, 'STORE_INVALID'],
  [grpcStatus.UNIMPLEMENTED, 'STORE_UNSUPPORTED'],
  [grpcStatus.DATA_LOSS, 'STORE_CORRUPT'],
])

/** Reads the failure of a call that had reached a connected endpoint. */
export function readFailure(error: ServiceError, doing: string, endpoint: string): Failure {
  const cause = error
  const details = error.details ?? error.message
  const said = (code: string) => new Fault(code, `${doing} at ${endpoint}: ${details}`, { cause })
  for (const [fragment, code] of refusals) {
    if (details.includes(fragment)) return { kind: 'refused', fault: said(code) }
  }
  if (details.includes('etcdserver: no leader'))
    return { kind: 'not-applied', fault: said('STORE_NO_LEADER') }
  // What grpc-js says of a call that never left it, because the connection was gone before.
  if (error.code === grpcStatus.UNAVAILABLE && details.startsWith('No connection established'))
    return { kind: 'not-applied', fault: said('STORE_UNREACHABLE') }
  const refused = byCode.get(error.code)
  if (refused !== undefined) return { kind: 'refused', fault: said(refused) }
  if (error.code === grpcStatus.DEADLINE_EXCEEDED || details.includes('etcdserver: request timed out'))
    return { kind: 'lost', fault: said('STORE_TIMEOUT') }
  if (error.code === grpcStatus.UNAVAILABLE) return { kind: 'lost', fault: said('STORE_UNREACHABLE') }
  return { kind: 'lost', fault: said('STORE_FAILED') }
}

/** A write whose answer was lost. Whether it was applied can only be found out by reading. */
export function unknownOutcome(lost: Fault, doing: string): Fault {
  return new Fault('STORE_UNKNOWN_OUTCOME', `${doing}: no answer, it may or may not have been applied`, {
    cause: lost,
  })
}

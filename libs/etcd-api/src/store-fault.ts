import { Fault } from '@kiln/service'
import { type CallError, grpcCode } from '@kiln/wire'

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
  ['user name not found', 'STORE_NOT_FOUND'],
  ['role name not found', 'STORE_NOT_FOUND'],
  ['database space exceeded', 'STORE_NO_SPACE'],
  ['unhealthy cluster', 'STORE_UNHEALTHY'],
]

const byCode = new Map<number, string>([
  [grpcCode.invalidArgument, 'STORE_INVALID'],
  [grpcCode.notFound, 'STORE_NOT_FOUND'],
  [grpcCode.alreadyExists, 'STORE_PRECONDITION'],
  [grpcCode.permissionDenied, 'STORE_DENIED'],
  [grpcCode.unauthenticated, 'STORE_DENIED'],
  [grpcCode.resourceExhausted, 'STORE_BUSY'],
  [grpcCode.failedPrecondition, 'STORE_PRECONDITION'],
  [grpcCode.outOfRange, 'STORE_INVALID'],
  [grpcCode.unimplemented, 'STORE_UNSUPPORTED'],
  [grpcCode.dataLoss, 'STORE_CORRUPT'],
])

/** Reads the failure of a call that had reached a connected endpoint. */
export function readFailure(error: CallError, doing: string, endpoint: string): Failure {
  const said = (code: string) =>
    new Fault(code, `${doing} at ${endpoint}: ${error.message}`, { cause: error })
  const { code, effect } = error
  if (effect === 'answered') {
    for (const [fragment, fault] of refusals) {
      if (error.message.includes(fragment)) return { kind: 'refused', fault: said(fault) }
    }
    if (error.message.includes('etcdserver: no leader'))
      return { kind: 'not-applied', fault: said('STORE_NO_LEADER') }
    const refused = byCode.get(code)
    if (refused !== undefined) return { kind: 'refused', fault: said(refused) }
  }
  const kind = effect === 'none' ? 'not-applied' : 'lost'
  if (code === grpcCode.deadlineExceeded || error.message.includes('etcdserver: request timed out'))
    return { kind, fault: said('STORE_TIMEOUT') }
  if (code === grpcCode.unavailable) return { kind, fault: said('STORE_UNREACHABLE') }
  return { kind, fault: said(byCode.get(code) ?? 'STORE_FAILED') }
}

/** A token that ran out, or was given before users or roles changed: with a new one the request goes through. */
export function tokenIsVoid(fault: Fault): boolean {
  return /etcdserver: (invalid auth token|revision of auth store is old)/.test(fault.message)
}

/** A write whose answer was lost. Whether it was applied can only be found out by reading. */
export function unknownOutcome(lost: Fault, doing: string): Fault {
  return new Fault('STORE_UNKNOWN_OUTCOME', `${doing}: no answer, it may or may not have been applied`, {
    cause: lost,
  })
}

import type { Refusal } from '@kiln/mvcc'
import { Fault } from '@kiln/service'
import { GrpcError } from '@kiln/wire'

const error = (code: number, text: string): { code: number; text: string } => ({
  code,
  text: `etcdserver: ${text}`,
})

/** Refusals that are not the store's own, as etcd words them (kv.md section 9). */
export const statuses = {
  noLeader: error(14, 'no leader'),
  leaderChanged: error(14, 'leader changed'),
  stopped: error(14, 'server stopped'),
  timedOut: error(14, 'request timed out'),
  unhealthy: error(14, 'unhealthy cluster'),
  learner: error(14, 'rpc not supported for learner'),
  tooManyRequests: error(8, 'too many requests'),
  requestTooLarge: error(3, 'request is too large'),
  noSpace: error(8, 'mvcc: database space exceeded'),
  compacted: error(11, 'mvcc: required revision has been compacted'),
  memberNotFound: error(5, 'member not found'),
  peerUrlExists: error(9, 'Peer URLs already exists'),
  urlsInvalid: error(3, 'given member URLs are invalid'),
  learnerNotReady: error(9, 'can only promote a learner member which is in sync with leader'),
  notLearner: error(9, 'can only promote a learner member'),
  tooManyLearners: error(9, 'too many learner members in cluster'),
  notEnoughStarted: error(9, 're-configuration failed due to not enough started members'),
  notLeader: error(9, 'not leader'),
  badTransferee: error(9, 'bad leader transferee'),
  watchCanceled: error(1, 'watch canceled'),
  downgradeFormat: error(3, 'wrong downgrade target version format'),
  downgradeTarget: error(3, 'invalid downgrade target version'),
  downgradeUnderWay: error(9, 'cluster has a downgrade job in progress'),
  noDowngrade: error(9, 'no inflight downgrade job'),
  restoreUnknown: error(9, 'history: not all members run a version that can restore'),
  timeUnknown: error(9, 'history: not all members run a version that knows times'),
  timeNotSeen: error(11, 'history: the store knows no times before its first mark'),
  /** Raw texts of etcd's auth package, which it does not map. */
  noPasswordUser: {
    code: 2,
    text: 'auth: authentication failed, password was given for no password user',
  },
  verifyOnly: { code: 2, text: 'auth: token signing attempted with verify-only key' },
} as const

/** Codes of the consensus, and what clients are told. */
const byFault: Record<string, { code: number; text: string }> = {
  STORE_NO_LEADER: statuses.noLeader,
  STORE_TOO_MANY_REQUESTS: statuses.tooManyRequests,
  STORE_REQUEST_TOO_LARGE: statuses.requestTooLarge,
  STORE_DISK_FULL: statuses.noSpace,
  STORE_LEADER_CHANGED: statuses.leaderChanged,
  STORE_TIMEOUT: statuses.timedOut,
  STORE_STOPPED: statuses.stopped,
  STORE_MEMBER_EXISTS: statuses.peerUrlExists,
  STORE_MEMBER_UNKNOWN: statuses.memberNotFound,
  STORE_MEMBER_UNREADY: statuses.learnerNotReady,
  STORE_NOT_LEADER: statuses.notLeader,
  STORE_UNHEALTHY: statuses.unhealthy,
}

export function fail(status: { code: number; text: string } | Refusal): never {
  throw new GrpcError(status.code, status.text)
}

/** What a client is told about something thrown; bugs go on as they are. */
export function toGrpcError(thrown: unknown): unknown {
  const status = thrown instanceof Fault ? byFault[thrown.code] : undefined
  return status ? new GrpcError(status.code, status.text, { cause: thrown }) : thrown
}

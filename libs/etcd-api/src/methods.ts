import {
  AuthenticateRequest,
  AuthenticateResponse,
  CompactionRequest,
  CompactionResponse,
  DeleteRangeRequest,
  DeleteRangeResponse,
  HashKVRequest,
  HashKVResponse,
  LeaseGrantRequest,
  LeaseGrantResponse,
  LeaseLeasesRequest,
  LeaseLeasesResponse,
  LeaseRevokeRequest,
  LeaseRevokeResponse,
  LeaseTimeToLiveRequest,
  LeaseTimeToLiveResponse,
  MemberAddRequest,
  MemberAddResponse,
  MemberListRequest,
  MemberListResponse,
  MemberPromoteRequest,
  MemberPromoteResponse,
  MemberRemoveRequest,
  MemberRemoveResponse,
  type MessageFns,
  MoveLeaderRequest,
  MoveLeaderResponse,
  PutRequest,
  PutResponse,
  RangeRequest,
  RangeResponse,
  StatusRequest,
  StatusResponse,
  TxnRequest,
  TxnResponse,
} from './generated/rpc.ts'

/** One unary method: where it is, its codecs, and whether calling it twice is the same as once. */
export type Method<Request, Response> = {
  path: string
  encode(request: Request): Buffer
  decode(bytes: Buffer): Response
  /** A read may be repeated anywhere; a write whose answer is lost may have been applied. */
  kind: 'read' | 'write'
}

function method<Request, Response>(
  path: string,
  request: MessageFns<Request>,
  response: MessageFns<Response>,
  kind: 'read' | 'write',
): Method<Request, Response> {
  return {
    path: `/etcdserverpb.${path}`,
    encode: (message) => asBuffer(request.encode(message).finish()),
    decode: (bytes) => response.decode(bytes),
    kind,
  }
}

export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** The methods the client calls; only their codecs end up in a bundle. */
export const methods = {
  range: method('KV/Range', RangeRequest, RangeResponse, 'read'),
  put: method('KV/Put', PutRequest, PutResponse, 'write'),
  deleteRange: method('KV/DeleteRange', DeleteRangeRequest, DeleteRangeResponse, 'write'),
  txn: method('KV/Txn', TxnRequest, TxnResponse, 'write'),
  compact: method('KV/Compact', CompactionRequest, CompactionResponse, 'write'),
  leaseGrant: method('Lease/LeaseGrant', LeaseGrantRequest, LeaseGrantResponse, 'write'),
  leaseRevoke: method('Lease/LeaseRevoke', LeaseRevokeRequest, LeaseRevokeResponse, 'write'),
  leaseTimeToLive: method('Lease/LeaseTimeToLive', LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, 'read'),
  leaseLeases: method('Lease/LeaseLeases', LeaseLeasesRequest, LeaseLeasesResponse, 'read'),
  hashKv: method('Maintenance/HashKV', HashKVRequest, HashKVResponse, 'read'),
  memberList: method('Cluster/MemberList', MemberListRequest, MemberListResponse, 'read'),
  memberAdd: method('Cluster/MemberAdd', MemberAddRequest, MemberAddResponse, 'write'),
  memberRemove: method('Cluster/MemberRemove', MemberRemoveRequest, MemberRemoveResponse, 'write'),
  memberPromote: method('Cluster/MemberPromote', MemberPromoteRequest, MemberPromoteResponse, 'write'),
  status: method('Maintenance/Status', StatusRequest, StatusResponse, 'read'),
  authenticate: method('Auth/Authenticate', AuthenticateRequest, AuthenticateResponse, 'read'),
  moveLeader: method('Maintenance/MoveLeader', MoveLeaderRequest, MoveLeaderResponse, 'write'),
}

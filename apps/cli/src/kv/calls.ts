import type { Method } from '@kiln/etcd-api'
import { type JsonValue, methodCodec } from '@kiln/etcd-api/descriptors'
import { CampaignRequest, CampaignResponse } from '@kiln/etcd-api/election'
import * as history from '@kiln/etcd-api/history'
import { LockRequest, LockResponse } from '@kiln/etcd-api/lock'
import * as rpc from '@kiln/etcd-api/rpc'
import { assert } from '@kiln/service'

/** A method with what `--json` prints of its answer. */
export type ApiCall<Request, Response> = Method<Request, Response> & {
  requestOf(fields: Partial<Request>): Request
  /** As the JSON gateway: fields named as in the protocol file, 64-bit integers as strings, bytes in base64, defaults left out. */
  json(answer: Response): JsonValue
}

type Codec<T> = rpc.MessageFns<T>

function api<Request, Response>(
  path: string,
  request: Codec<Request>,
  response: Codec<Response>,
  kind: 'read' | 'write',
): ApiCall<Request, Response> {
  const bytes = (encoded: Uint8Array): Buffer =>
    Buffer.from(encoded.buffer, encoded.byteOffset, encoded.byteLength)
  return {
    path,
    kind,
    encode: (message) => bytes(request.encode(message).finish()),
    decode: (answer) => response.decode(answer),
    requestOf: (fields) => ({ ...request.create(), ...fields }),
    json(answer) {
      const codec = methodCodec(path)
      assert(codec !== undefined, `the API has ${path}`)
      return codec.responseToJson(response.encode(answer).finish())
    },
  }
}

const kv = '/etcdserverpb.KV/'
const lease = '/etcdserverpb.Lease/'
const cluster = '/etcdserverpb.Cluster/'
const upkeep = '/etcdserverpb.Maintenance/'
const auth = '/etcdserverpb.Auth/'
const past = '/kiln.history.v1.History/'

/** The methods behind the commands. */
export const calls = {
  range: api(`${kv}Range`, rpc.RangeRequest, rpc.RangeResponse, 'read'),
  put: api(`${kv}Put`, rpc.PutRequest, rpc.PutResponse, 'write'),
  del: api(`${kv}DeleteRange`, rpc.DeleteRangeRequest, rpc.DeleteRangeResponse, 'write'),
  txn: api(`${kv}Txn`, rpc.TxnRequest, rpc.TxnResponse, 'write'),
  compact: api(`${kv}Compact`, rpc.CompactionRequest, rpc.CompactionResponse, 'write'),
  leaseGrant: api(`${lease}LeaseGrant`, rpc.LeaseGrantRequest, rpc.LeaseGrantResponse, 'write'),
  leaseRevoke: api(`${lease}LeaseRevoke`, rpc.LeaseRevokeRequest, rpc.LeaseRevokeResponse, 'write'),
  leaseTimeToLive: api(
    `${lease}LeaseTimeToLive`,
    rpc.LeaseTimeToLiveRequest,
    rpc.LeaseTimeToLiveResponse,
    'read',
  ),
  leases: api(`${lease}LeaseLeases`, rpc.LeaseLeasesRequest, rpc.LeaseLeasesResponse, 'read'),
  memberList: api(`${cluster}MemberList`, rpc.MemberListRequest, rpc.MemberListResponse, 'read'),
  memberAdd: api(`${cluster}MemberAdd`, rpc.MemberAddRequest, rpc.MemberAddResponse, 'write'),
  memberRemove: api(`${cluster}MemberRemove`, rpc.MemberRemoveRequest, rpc.MemberRemoveResponse, 'write'),
  memberUpdate: api(`${cluster}MemberUpdate`, rpc.MemberUpdateRequest, rpc.MemberUpdateResponse, 'write'),
  memberPromote: api(`${cluster}MemberPromote`, rpc.MemberPromoteRequest, rpc.MemberPromoteResponse, 'write'),
  alarm: api(`${upkeep}Alarm`, rpc.AlarmRequest, rpc.AlarmResponse, 'write'),
  status: api(`${upkeep}Status`, rpc.StatusRequest, rpc.StatusResponse, 'read'),
  hashKv: api(`${upkeep}HashKV`, rpc.HashKVRequest, rpc.HashKVResponse, 'read'),
  defragment: api(`${upkeep}Defragment`, rpc.DefragmentRequest, rpc.DefragmentResponse, 'write'),
  moveLeader: api(`${upkeep}MoveLeader`, rpc.MoveLeaderRequest, rpc.MoveLeaderResponse, 'write'),
  authEnable: api(`${auth}AuthEnable`, rpc.AuthEnableRequest, rpc.AuthEnableResponse, 'write'),
  authDisable: api(`${auth}AuthDisable`, rpc.AuthDisableRequest, rpc.AuthDisableResponse, 'write'),
  authStatus: api(`${auth}AuthStatus`, rpc.AuthStatusRequest, rpc.AuthStatusResponse, 'read'),
  userAdd: api(`${auth}UserAdd`, rpc.AuthUserAddRequest, rpc.AuthUserAddResponse, 'write'),
  userGet: api(`${auth}UserGet`, rpc.AuthUserGetRequest, rpc.AuthUserGetResponse, 'read'),
  userList: api(`${auth}UserList`, rpc.AuthUserListRequest, rpc.AuthUserListResponse, 'read'),
  userDelete: api(`${auth}UserDelete`, rpc.AuthUserDeleteRequest, rpc.AuthUserDeleteResponse, 'write'),
  userPassword: api(
    `${auth}UserChangePassword`,
    rpc.AuthUserChangePasswordRequest,
    rpc.AuthUserChangePasswordResponse,
    'write',
  ),
  userGrant: api(
    `${auth}UserGrantRole`,
    rpc.AuthUserGrantRoleRequest,
    rpc.AuthUserGrantRoleResponse,
    'write',
  ),
  userRevoke: api(
    `${auth}UserRevokeRole`,
    rpc.AuthUserRevokeRoleRequest,
    rpc.AuthUserRevokeRoleResponse,
    'write',
  ),
  roleAdd: api(`${auth}RoleAdd`, rpc.AuthRoleAddRequest, rpc.AuthRoleAddResponse, 'write'),
  roleGet: api(`${auth}RoleGet`, rpc.AuthRoleGetRequest, rpc.AuthRoleGetResponse, 'read'),
  roleList: api(`${auth}RoleList`, rpc.AuthRoleListRequest, rpc.AuthRoleListResponse, 'read'),
  roleDelete: api(`${auth}RoleDelete`, rpc.AuthRoleDeleteRequest, rpc.AuthRoleDeleteResponse, 'write'),
  roleGrant: api(
    `${auth}RoleGrantPermission`,
    rpc.AuthRoleGrantPermissionRequest,
    rpc.AuthRoleGrantPermissionResponse,
    'write',
  ),
  roleRevoke: api(
    `${auth}RoleRevokePermission`,
    rpc.AuthRoleRevokePermissionRequest,
    rpc.AuthRoleRevokePermissionResponse,
    'write',
  ),
  revisions: api(`${past}Revisions`, history.RevisionsRequest, history.RevisionsResponse, 'read'),
  deletedKeys: api(`${past}Deleted`, history.DeletedRequest, history.DeletedResponse, 'read'),
  diff: api(`${past}Diff`, history.DiffRequest, history.DiffResponse, 'read'),
  restore: api(`${past}Restore`, history.RestoreRequest, history.RestoreResponse, 'write'),
  revisionAt: api(`${past}RevisionAt`, history.RevisionAtRequest, history.RevisionAtResponse, 'read'),
  lock: api('/v3lockpb.Lock/Lock', LockRequest, LockResponse, 'write'),
  campaign: api('/v3electionpb.Election/Campaign', CampaignRequest, CampaignResponse, 'write'),
}

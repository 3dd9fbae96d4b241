import { Permission_Type } from '@kiln/etcd-api/auth'
import * as rpc from '@kiln/etcd-api/rpc'
import { fromKey, type Permission, type PermissionType, toKey } from '@kiln/mvcc'
import type { ResponseHeader } from './context.ts'
import { decode } from './requests.ts'
import { toHeader } from './responses.ts'

/** Messages of etcdserverpb.Auth, to and from the words of the store. */

const types: PermissionType[] = ['read', 'write', 'readwrite']

export const decodeAuthenticate = (bytes: Uint8Array): { name: string; password: string } =>
  decode(rpc.AuthenticateRequest, bytes)

export function decodeUserAdd(bytes: Uint8Array): { name: string; password: string; noPassword: boolean } {
  const { name, password, options } = decode(rpc.AuthUserAddRequest, bytes)
  return { name, password, noPassword: options?.noPassword ?? false }
}

export const decodeChangePassword = (bytes: Uint8Array): { name: string; password: string } =>
  decode(rpc.AuthUserChangePasswordRequest, bytes)

/** Of all requests that have just the name of a user or role: it is the first field of each. */
export const decodeName = (bytes: Uint8Array): string => decode(rpc.AuthUserGetRequest, bytes).name

/** Of a grant or revocation of a role: user and role in this order. */
export function decodeUserRole(bytes: Uint8Array): { name: string; role: string } {
  const { name, role } = decode(rpc.AuthUserRevokeRoleRequest, bytes)
  return { name, role }
}

export function decodeGrantPermission(bytes: Uint8Array): {
  name: string
  permission: Permission | undefined
} {
  const { name, perm } = decode(rpc.AuthRoleGrantPermissionRequest, bytes)
  const type = perm && types[perm.permType]
  const permission = type && { type, key: toKey(perm.key), rangeEnd: toKey(perm.rangeEnd) }
  return { name, permission }
}

export function decodeRevokePermission(bytes: Uint8Array): { name: string; key: string; rangeEnd: string } {
  const { role, key, rangeEnd } = decode(rpc.AuthRoleRevokePermissionRequest, bytes)
  return { name: role, key: toKey(key), rangeEnd: toKey(rangeEnd) }
}

export const encodeToken = (header: ResponseHeader, token: string): Uint8Array =>
  rpc.AuthenticateResponse.encode({ header: toHeader(header), token }).finish()

export function encodeAuthStatus(
  header: ResponseHeader,
  { enabled, authRevision }: { enabled: boolean; authRevision: number },
): Uint8Array {
  return rpc.AuthStatusResponse.encode({
    header: toHeader(header),
    enabled,
    authRevision: BigInt(authRevision),
  }).finish()
}

export const encodeRoleNames = (header: ResponseHeader, roles: readonly string[]): Uint8Array =>
  rpc.AuthRoleListResponse.encode({ header: toHeader(header), roles: [...roles] }).finish()

export const encodeUserNames = (header: ResponseHeader, users: readonly string[]): Uint8Array =>
  rpc.AuthUserListResponse.encode({ header: toHeader(header), users: [...users] }).finish()

const wireTypes = {
  read: Permission_Type.READ,
  write: Permission_Type.WRITE,
  readwrite: Permission_Type.READWRITE,
}

export function encodePermissions(header: ResponseHeader, permissions: readonly Permission[]): Uint8Array {
  const perm = permissions.map(({ type, key, rangeEnd }) => ({
    permType: wireTypes[type],
    key: fromKey(key),
    rangeEnd: fromKey(rangeEnd),
  }))
  return rpc.AuthRoleGetResponse.encode({ header: toHeader(header), perm }).finish()
}

import { Permission_Type } from '@kiln/etcd-api/auth'
import * as rpc from '@kiln/etcd-api/rpc'
import { type ClientTls, type GrpcAnswer, grpcCall } from './grpc-call.ts'

type Codec<T> = { encode(message: T): { finish(): Uint8Array }; fromPartial(part: Partial<T>): T }

/** `code text` of a call's end, `0 ` when it went well. */
export const outcomeOf = ({ code, message }: Pick<GrpcAnswer, 'code' | 'message'>): string =>
  `${code} ${message}`

/** Calls of one member, by somebody with or without a token. */
export function authCalls(url: string, token?: string, tls?: ClientTls) {
  const headers: Record<string, string> = token === undefined ? {} : { token }
  const call = (path: string, request: Uint8Array): Promise<GrpcAnswer> =>
    grpcCall(url, `/etcdserverpb.${path}`, [request], headers, tls ? { tls } : {})
  const run = async <T>(path: string, codec: Codec<T>, part: Partial<T>): Promise<string> =>
    outcomeOf(await call(path, codec.encode(codec.fromPartial(part)).finish()))
  const bytes = (text: string): Buffer => Buffer.from(text)
  return {
    call,
    run,
    enable: () => run('Auth/AuthEnable', rpc.AuthEnableRequest, {}),
    disable: () => run('Auth/AuthDisable', rpc.AuthDisableRequest, {}),
    userAdd: (name: string, password?: string) =>
      run('Auth/UserAdd', rpc.AuthUserAddRequest, {
        name,
        password: password ?? '',
        options: { noPassword: password === undefined },
      }),
    userDelete: (name: string) => run('Auth/UserDelete', rpc.AuthUserDeleteRequest, { name }),
    password: (name: string, password: string) =>
      run('Auth/UserChangePassword', rpc.AuthUserChangePasswordRequest, { name, password }),
    userGrant: (user: string, role: string) =>
      run('Auth/UserGrantRole', rpc.AuthUserGrantRoleRequest, { user, role }),
    roleAdd: (name: string) => run('Auth/RoleAdd', rpc.AuthRoleAddRequest, { name }),
    roleGrant: (
      name: string,
      key: string,
      rangeEnd = '',
      permType: Permission_Type = Permission_Type.READWRITE,
    ) =>
      run('Auth/RoleGrantPermission', rpc.AuthRoleGrantPermissionRequest, {
        name,
        perm: { permType, key: bytes(key), rangeEnd: bytes(rangeEnd) },
      }),
    roleRevoke: (role: string, key: string, rangeEnd = '') =>
      run('Auth/RoleRevokePermission', rpc.AuthRoleRevokePermissionRequest, {
        role,
        key: bytes(key),
        rangeEnd: bytes(rangeEnd),
      }),
    put: (key: string, value = 'v', more: Partial<rpc.PutRequest> = {}) =>
      run('KV/Put', rpc.PutRequest, { key: bytes(key), value: bytes(value), ...more }),
    get: (key: string, more: Partial<rpc.RangeRequest> = {}) =>
      run('KV/Range', rpc.RangeRequest, { key: bytes(key), ...more }),
    authenticate: async (name: string, password: string) => {
      const request = rpc.AuthenticateRequest.encode({ name, password }).finish()
      const answer = await call('Auth/Authenticate', request)
      const [reply] = answer.replies
      return { outcome: outcomeOf(answer), token: reply ? rpc.AuthenticateResponse.decode(reply).token : '' }
    },
    status: async () => {
      const { replies } = await call('Auth/AuthStatus', new Uint8Array(0))
      return rpc.AuthStatusResponse.decode(replies[0]!)
    },
  }
}

export type AuthCalls = ReturnType<typeof authCalls>

/** Users root and alice (who has the role `reader` on `a/`), auth on, everybody's password being the name. */
export async function enableAuth(
  url: string,
  tls?: ClientTls,
): Promise<{ root: AuthCalls; alice: AuthCalls; tokens: string[] }> {
  const open = authCalls(url, undefined, tls)
  const outcomes = [
    await open.userAdd('root', 'root'),
    await open.userGrant('root', 'root'),
    await open.userAdd('alice', 'alice'),
    await open.userAdd('certified'),
    await open.roleAdd('reader'),
    await open.roleGrant('reader', 'a/', 'a0'),
    await open.userGrant('alice', 'reader'),
    await open.enable(),
  ]
  const bad = outcomes.find((outcome) => outcome !== '0 ')
  if (bad !== undefined) throw new Error(`auth could not be set up: ${bad}`)
  const tokens = [
    (await open.authenticate('root', 'root')).token,
    (await open.authenticate('alice', 'alice')).token,
  ]
  return { root: authCalls(url, tokens[0], tls), alice: authCalls(url, tokens[1], tls), tokens }
}

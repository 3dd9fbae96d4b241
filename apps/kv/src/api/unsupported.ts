import { grpcCode } from '@kiln/wire'
import { headerOf, type ServiceContext, unary } from './context.ts'
import { fail, statuses } from './errors.ts'
import type { MethodRegistry } from './method-table.ts'
import { encodeAuthStatus } from './responses.ts'

const users =
  'UserAdd UserGet UserList UserDelete UserChangePassword UserGrantRole UserRevokeRole RoleAdd RoleGet RoleList RoleDelete RoleGrantPermission RoleRevokePermission'
const reasons: Record<string, string> = {
  '/etcdserverpb.Auth/AuthEnable': 'users and roles',
  ...Object.fromEntries(users.split(' ').map((name) => [`/etcdserverpb.Auth/${name}`, 'users and roles'])),
}

/** What this version refuses, by name, and the little of authentication that is true without users. */
export function serveUnsupported(server: MethodRegistry, context: ServiceContext): void {
  for (const [path, what] of Object.entries(reasons)) {
    const text = `etcdserver: ${what} is not supported by this version of kiln-kv`
    unary(server, path, () => fail({ code: grpcCode.unimplemented, text }))
  }
  unary(server, '/etcdserverpb.Auth/AuthStatus', () =>
    encodeAuthStatus(headerOf(context), { enabled: false, authRevision: 1 }),
  )
  unary(server, '/etcdserverpb.Auth/AuthDisable', () => fail(statuses.authNotEnabled))
  unary(server, '/etcdserverpb.Auth/Authenticate', () => fail(statuses.authNotEnabled))
}

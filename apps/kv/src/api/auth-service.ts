import { type AuthChange, authRefusals, type Demand, type Permission, rootName } from '@kiln/mvcc'
import { describeError, Fault } from '@kiln/service'
import { type CallInfo, GrpcError } from '@kiln/wire'
import {
  decodeAuthenticate,
  decodeChangePassword,
  decodeGrantPermission,
  decodeName,
  decodeRevokePermission,
  decodeUserAdd,
  decodeUserRole,
  encodeAuthStatus,
  encodePermissions,
  encodeRoleNames,
  encodeToken,
  encodeUserNames,
} from './auth-messages.ts'
import { acceptedValue, checkServing, headerOf, propose, type ServiceContext, unary } from './context.ts'
import { fail } from './errors.ts'
import type { MethodRegistry } from './method-table.ts'
import { encodeHeaderOnly } from './responses.ts'

/** What the role root may do: everything, whatever it was granted. */
const rootPermission: Permission = { type: 'readwrite', key: '', rangeEnd: '\0' }

/** Users and roles: etcdserverpb.Auth (kv.md section 6). */
export function serveAuth(server: MethodRegistry, context: ServiceContext): void {
  serveChanges(server, context)
  serveQueries(server, context)
  const { auth } = context

  unary(server, '/etcdserverpb.Auth/Authenticate', async (bytes, call) => {
    checkServing(context, call)
    const { name, password } = decodeAuthenticate(bytes)
    const token = await audited(context, call, { subject: name, by: name }, () =>
      auth.authenticate(name, password),
    )
    return encodeToken(headerOf(context), token)
  })
}

/** Each method that changes something, as the change that it proposes. Passwords are hashed before. */
function serveChanges(server: MethodRegistry, context: ServiceContext): void {
  const { auth } = context
  const changing = (
    method: string,
    toChange: (bytes: Uint8Array) => Promise<AuthChange> | AuthChange,
  ): void =>
    unary(server, `/etcdserverpb.Auth/${method}`, async (bytes, call) => {
      checkServing(context, call)
      const by = auth.callerOf(call)
      const facts: AuditFacts = { by }
      await audited(context, call, facts, async () => {
        const who = await auth.admit(call, { kind: 'admin' })
        const change = await toChange(bytes)
        Object.assign(facts, factsOf(change))
        const { outcome } = await propose(context, { kind: 'auth', change }, who)
        acceptedValue(outcome)
      })
      return encodeHeaderOnly(headerOf(context))
    })

  changing('AuthEnable', () => ({ kind: 'enable' }))
  changing('AuthDisable', () => ({ kind: 'disable' }))
  changing('UserAdd', async (bytes) => {
    const { name, password, noPassword } = decodeUserAdd(bytes)
    if (name === '') fail(authRefusals.userEmpty)
    return { kind: 'user-add', name, passwordHash: noPassword ? '' : await auth.hash(password), noPassword }
  })
  changing('UserChangePassword', async (bytes) => {
    const { name, password } = decodeChangePassword(bytes)
    return { kind: 'user-password', name, passwordHash: await auth.hash(password) }
  })
  changing('UserDelete', (bytes) => ({ kind: 'user-delete', name: decodeName(bytes) }))
  changing('UserGrantRole', (bytes) => ({ kind: 'user-grant', ...decodeUserRole(bytes) }))
  changing('UserRevokeRole', (bytes) => ({ kind: 'user-revoke', ...decodeUserRole(bytes) }))
  changing('RoleAdd', (bytes) => ({ kind: 'role-add', name: decodeName(bytes) }))
  changing('RoleDelete', (bytes) => ({ kind: 'role-delete', name: decodeName(bytes) }))
  changing('RoleGrantPermission', (bytes) => {
    const { name, permission } = decodeGrantPermission(bytes)
    return { kind: 'role-grant', name, permission: permission ?? fail(authRefusals.permissionNotGiven) }
  })
  changing('RoleRevokePermission', (bytes) => ({ kind: 'role-revoke', ...decodeRevokePermission(bytes) }))
}

function serveQueries(server: MethodRegistry, context: ServiceContext): void {
  const { auth, consensus, state } = context
  const book = state.auth
  const query = (
    method: string,
    toDemand: (bytes: Uint8Array) => Demand,
    answer: (bytes: Uint8Array) => Uint8Array,
  ): void =>
    unary(server, `/etcdserverpb.Auth/${method}`, async (bytes, call) => {
      checkServing(context, call)
      await consensus.readIndex()
      await auth.admit(call, toDemand(bytes), 'local')
      return answer(bytes)
    })
  const admin = (): Demand => ({ kind: 'admin' })
  const names = (of: readonly { name: string }[]): string[] => of.map(({ name }) => name)

  query('AuthStatus', admin, () =>
    encodeAuthStatus(headerOf(context), { enabled: book.enabled, authRevision: book.revision }),
  )
  query('UserList', admin, () => encodeUserNames(headerOf(context), names(book.users())))
  query('RoleList', admin, () => encodeRoleNames(headerOf(context), names(book.roles())))
  query(
    'UserGet',
    (bytes) => ({ kind: 'user', name: decodeName(bytes) }),
    (bytes) => {
      const user = book.user(decodeName(bytes)) ?? fail(authRefusals.userNotFound)
      return encodeRoleNames(headerOf(context), user.roles)
    },
  )
  query(
    'RoleGet',
    (bytes) => ({ kind: 'role', name: decodeName(bytes) }),
    (bytes) => {
      const { name, permissions } = book.role(decodeName(bytes)) ?? fail(authRefusals.roleNotFound)
      return encodePermissions(headerOf(context), name === rootName ? [rootPermission] : permissions)
    },
  )
}

/** Names come from clients. */
const auditTextMax = 128

/** Who did it, to whom or what, and with what; never a password. */
type AuditFacts = { by: string; subject?: string; detail?: string }

function factsOf(change: AuthChange): Pick<AuditFacts, 'subject' | 'detail'> {
  switch (change.kind) {
    case 'enable':
    case 'disable':
      return {}
    case 'user-add':
    case 'user-password':
    case 'user-delete':
    case 'role-add':
    case 'role-delete':
      return { subject: change.name }
    case 'user-grant':
    case 'user-revoke':
      return { subject: change.name, detail: change.role }
    case 'role-grant':
      return { subject: change.name, detail: `${change.permission.type} ${rangeText(change.permission)}` }
    case 'role-revoke':
      return { subject: change.name, detail: rangeText(change) }
  }
}

const rangeText = ({ key, rangeEnd }: { key: string; rangeEnd: string }): string =>
  rangeEnd === '' ? JSON.stringify(key) : `${JSON.stringify(key)}..${JSON.stringify(rangeEnd)}`

/** One line in the log for each attempt to log in or to change users and roles, whatever came of it. */
async function audited<T>(
  { log }: ServiceContext,
  call: CallInfo,
  facts: AuditFacts,
  work: () => Promise<T>,
): Promise<T> {
  const line = (outcome: object): object => ({
    audit: call.path.split('/').at(-1),
    by: facts.by.slice(0, auditTextMax),
    subject: facts.subject?.slice(0, auditTextMax),
    detail: facts.detail?.slice(0, auditTextMax),
    from: call.peer.address,
    ...outcome,
  })
  try {
    const result = await work()
    log.info(line({ outcome: 'allowed' }), 'auth')
    return result
  } catch (error) {
    // What was not looked at is not worth a line: there may be thousands a second.
    if (error instanceof Fault && error.code === 'STORE_TOO_MANY_REQUESTS') throw error
    const reason = error instanceof GrpcError ? error.message : describeError(error)
    log.warn(line({ outcome: 'refused', reason }), 'auth')
    throw error
  }
}

import { type Permission, Permission_Type } from '@kiln/etcd-api/auth'
import { Fault } from '@kiln/service'
import type { Command } from 'commander'
import { calls } from './calls.ts'
import { type RangeFlags, rangeOf } from './keys.ts'
import type { KvPorts } from './ports.ts'
import { readSecret } from './secret.ts'
import { asJson, leaf, type Session } from './session.ts'
import { safeText } from './text.ts'

const permissionTypes: Record<string, Permission_Type> = {
  read: Permission_Type.READ,
  write: Permission_Type.WRITE,
  readwrite: Permission_Type.READWRITE,
}
const permissionNames = ['read', 'write', 'readwrite']

type Simple =
  | 'userDelete'
  | 'userGrant'
  | 'userRevoke'
  | 'roleAdd'
  | 'roleDelete'
  | 'authEnable'
  | 'authDisable'

/** `kiln kv user|role|auth`. */
export function addUserCommands(kv: Command, ports: KvPorts): void {
  /** A command that names things and says only that it is done. */
  const simple = (
    command: Command,
    name: Simple,
    fields: string[],
    done: (args: string[]) => string,
  ): void => {
    leaf(command, ports, async (session, args) => {
      const method = calls[name]
      const request = Object.fromEntries(fields.map((field, at) => [field, args[at]]))
      const answer = await session.call<object, never>(method as never, request, done(args))
      if (!asJson<object, never>(session, method as never, answer)) session.ports.print(done(args))
    })
  }
  const user = kv.command('user').description('users')
  leaf(
    user
      .command('add')
      .description('a new user; the password is asked for, or is a line of standard input')
      .argument('<name[:password]>')
      .option('--no-password', 'it signs in with a certificate only')
      .option('--new-user-password <text>', 'the password'),
    ports,
    addUser,
  )
  simple(
    user.command('delete').description('remove a user').argument('<name>'),
    'userDelete',
    ['name'],
    ([name]) => `User ${name} deleted`,
  )
  leaf(user.command('get').description('roles of a user').argument('<name>'), ports, getUser)
  leaf(user.command('list').description('all users'), ports, async (session) => {
    const answer = await session.call(calls.userList, {}, 'list users')
    if (!asJson(session, calls.userList, answer))
      session.rows(
        ['USER'],
        answer.users.map((name) => [name]),
      )
  })
  leaf(
    user.command('passwd').description("change a user's password").argument('<name>'),
    ports,
    async (session, [name = '']) => {
      const password = await readSecret(`New password of ${name}: `, session.ports)
      const answer = await session.call(
        calls.userPassword,
        { name, password },
        `change the password of ${name}`,
      )
      if (!asJson(session, calls.userPassword, answer)) session.ports.print('Password updated')
    },
  )
  const pair = (command: Command): Command => command.argument('<user>').argument('<role>')
  simple(
    pair(user.command('grant-role').description('give a user a role')),
    'userGrant',
    ['user', 'role'],
    ([name, role]) => `Role ${role} is granted to user ${name}`,
  )
  simple(
    pair(user.command('revoke-role').description('take a role from a user')),
    'userRevoke',
    ['name', 'role'],
    ([name, role]) => `Role ${role} is revoked from user ${name}`,
  )

  const role = kv.command('role').description('roles: what their users may read and write')
  simple(
    role.command('add').description('a new role').argument('<role>'),
    'roleAdd',
    ['name'],
    ([name]) => `Role ${name} created`,
  )
  simple(
    role.command('delete').description('remove a role').argument('<role>'),
    'roleDelete',
    ['role'],
    ([name]) => `Role ${name} deleted`,
  )
  leaf(role.command('list').description('all roles'), ports, async (session) => {
    const answer = await session.call(calls.roleList, {}, 'list roles')
    if (!asJson(session, calls.roleList, answer))
      session.rows(
        ['ROLE'],
        answer.roles.map((name) => [name]),
      )
  })
  leaf(
    role.command('get').description('what a role may').argument('<role>'),
    ports,
    async (session, [name = '']) => {
      const answer = await session.call(calls.roleGet, { role: name }, `ask for role ${name}`)
      if (asJson(session, calls.roleGet, answer)) return
      session.rows(['PERMISSION', 'FROM', 'TO'], answer.perm.map(permissionRow))
    },
  )
  const ranged = (command: Command): Command =>
    command
      .argument('<key>')
      .argument('[range-end]', 'first key behind the range')
      .option('--prefix', 'all keys that begin with it')
      .option('--from-key', 'all keys from it on')
  leaf(
    ranged(
      role
        .command('grant-permission')
        .description('let a role read or write')
        .argument('<role>')
        .argument('<type>', 'read, write or readwrite'),
    ),
    ports,
    grantPermission,
  )
  leaf(
    ranged(role.command('revoke-permission').description('take a permission back').argument('<role>')),
    ports,
    async (session, [name = '', ...args], flags: RangeFlags) => {
      const request = { role: name, ...rangeOf(session, args, flags) }
      const answer = await session.call(calls.roleRevoke, request, `revoke a permission of role ${name}`)
      if (!asJson(session, calls.roleRevoke, answer))
        session.ports.print(`Permission of role ${name} revoked`)
    },
  )

  const auth = kv.command('auth').description('whether users are asked who they are')
  simple(auth.command('enable').description('from now on'), 'authEnable', [], () => 'Authentication Enabled')
  simple(auth.command('disable').description('no more'), 'authDisable', [], () => 'Authentication Disabled')
  leaf(auth.command('status').description('whether it is on'), ports, async (session) => {
    const answer = await session.call(calls.authStatus, {}, 'ask for authentication')
    if (asJson(session, calls.authStatus, answer)) return
    session.ports.print(`Authentication Status: ${answer.enabled}`)
    session.ports.print(`AuthRevision: ${answer.authRevision}`)
  })
}

async function addUser(
  session: Session,
  [given = '']: string[],
  flags: { password?: string | boolean; newUserPassword?: string },
): Promise<void> {
  const colon = given.indexOf(':')
  const name = colon < 0 ? given : given.slice(0, colon)
  const noPassword = flags.password === false
  let password = ''
  if (!noPassword) {
    password =
      flags.newUserPassword ??
      (colon < 0 ? await readSecret(`Password of ${name}: `, session.ports) : given.slice(colon + 1))
    if (password === '') throw new Fault('USAGE', `user ${name} needs a password, or --no-password`)
  }
  const answer = await session.call(
    calls.userAdd,
    { name, password, options: { noPassword } },
    `add user ${name}`,
  )
  if (!asJson(session, calls.userAdd, answer)) session.ports.print(`User ${name} created`)
}

async function getUser(session: Session, [name = '']: string[]): Promise<void> {
  const answer = await session.call(calls.userGet, { name }, `ask for user ${name}`)
  if (!asJson(session, calls.userGet, answer))
    session.rows(
      ['ROLE'],
      answer.roles.map((role) => [role]),
    )
}

async function grantPermission(
  session: Session,
  [name = '', type = '', ...args]: string[],
  flags: RangeFlags,
): Promise<void> {
  const permType = permissionTypes[type]
  if (permType === undefined) throw new Fault('USAGE', `${type} is not read, write or readwrite`)
  const request = { name, perm: { permType, ...rangeOf(session, args, flags) } }
  const answer = await session.call(calls.roleGrant, request, `grant ${type} to role ${name}`)
  if (!asJson(session, calls.roleGrant, answer)) session.ports.print(`Role ${name} updated`)
}

function permissionRow({ permType, key, rangeEnd }: Permission): string[] {
  const end =
    rangeEnd.length === 0
      ? 'this key'
      : rangeEnd.length === 1 && rangeEnd[0] === 0
        ? 'all behind'
        : safeText(rangeEnd)
  return [permissionNames[permType] ?? 'unknown', safeText(key), end]
}

import type { Refusal } from '../errors.ts'
import { fromKey, type Span, toSpan } from '../key.ts'
import { type AttachedKeys, type Demand, type Grants, mayTouch } from './access.ts'
import { authRefusals as refusals } from './auth-refusals.ts'
import {
  type AuthChange,
  type AuthState,
  type Identity,
  type Permission,
  type Role,
  rootName,
  type User,
} from './auth-types.ts'
import { mergeSpans } from './span-set.ts'

/**
 * Users, roles and what they may do, as all members agree. Every change is deterministic and, but for enabling, a new auth
 * revision; nothing here knows a password, a token or the time.
 */
export class AuthBook {
  #enabled = false
  #revision = 1
  #users = new Map<string, User>()
  #roles = new Map<string, Role>()
  /** Merged ranges by user, of this revision. */
  #grants = new Map<string, Grants>()

  get enabled(): boolean {
    return this.#enabled
  }
  get revision(): number {
    return this.#revision
  }

  user(name: string): User | undefined {
    return this.#users.get(name)
  }
  role(name: string): Role | undefined {
    return this.#roles.get(name)
  }
  /** In the order of their names' bytes, as etcd lists them. */
  users(): User[] {
    return [...this.#users.values()].sort(byName)
  }
  roles(): Role[] {
    return [...this.#roles.values()].sort(byName)
  }

  /** Carries out a change, or says why not and leaves everything as it was. */
  apply(change: AuthChange): Refusal | undefined {
    switch (change.kind) {
      case 'enable':
        return this.#enable()
      case 'disable':
        if (this.#enabled) this.#changed()
        this.#enabled = false
        return undefined
      case 'user-add':
        return this.#addUser(change)
      case 'user-delete':
        if (this.#enabled && change.name === rootName) return refusals.invalidManagement
        if (!this.#users.delete(change.name)) return refusals.userNotFound
        return this.#changed()
      case 'user-password': {
        const user = this.#users.get(change.name)
        if (!user) return refusals.userNotFound
        return this.#setUser({ ...user, passwordHash: user.noPassword ? '' : change.passwordHash })
      }
      case 'user-grant':
        return this.#grantRole(change.name, change.role)
      case 'user-revoke':
        return this.#revokeRole(change.name, change.role)
      case 'role-add':
        if (change.name === '') return refusals.roleEmpty
        if (this.#roles.has(change.name)) return refusals.roleExists
        return this.#setRole({ name: change.name, permissions: [] })
      case 'role-delete':
        return this.#deleteRole(change.name)
      case 'role-grant':
        return this.#grantPermission(change.name, change.permission)
      case 'role-revoke': {
        const role = this.#roles.get(change.name)
        if (!role) return refusals.roleNotFound
        const permissions = role.permissions.filter((each) => !isSameRange(each, change))
        if (permissions.length === role.permissions.length) return refusals.permissionNotGranted
        return this.#setRole({ name: role.name, permissions })
      }
    }
  }

  /**
   * Why somebody may not do something; nobody is refused while auth is off. Requests on keys also fail when they come
   * from before a change of users or roles: whoever let them in may have known less.
   */
  check(who: Identity | undefined, demand: Demand, attached: AttachedKeys): Refusal | undefined {
    if (!this.#enabled) return undefined
    if (!who) return refusals.userEmpty
    const user = this.#users.get(who.name)
    switch (demand.kind) {
      case 'range':
      case 'put':
      case 'delete':
      case 'txn':
      case 'lease-revoke':
      case 'lease-keys':
        if (who.revision < this.#revision) return refusals.oldRevision
        if (user && (isRoot(user) || mayTouch(this.#grantsOf(user), demand, attached))) return undefined
        return refusals.permissionDenied
      case 'user':
        return user && (isRoot(user) || user.name === demand.name) ? undefined : refusals.permissionDenied
      case 'role':
        return user && (isRoot(user) || user.roles.includes(demand.name))
          ? undefined
          : refusals.permissionDenied
      case 'login':
        return user ? undefined : refusals.permissionDenied
      case 'admin':
        return user && isRoot(user) ? undefined : refusals.permissionDenied
    }
  }

  /** The whole state, to be kept: it does not change with this. */
  exportState(): AuthState {
    return { enabled: this.#enabled, revision: this.#revision, users: this.users(), roles: this.roles() }
  }

  replace({ enabled, revision, users, roles }: AuthState): void {
    this.#enabled = enabled
    this.#revision = revision
    this.#users = new Map(users.map((user) => [user.name, { ...user, roles: [...user.roles].sort() }]))
    this.#roles = new Map(
      roles.map((role) => [role.name, { ...role, permissions: ordered(role.permissions) }]),
    )
    this.#grants.clear()
  }

  #enable(): Refusal | undefined {
    const root = this.#users.get(rootName)
    if (!this.#enabled) {
      if (!root) return refusals.rootUserMissing
      if (!isRoot(root)) return refusals.rootRoleMissing
    }
    this.#enabled = true
    return undefined
  }

  #addUser({ name, passwordHash, noPassword }: AuthChange & { kind: 'user-add' }): Refusal | undefined {
    if (name === '') return refusals.userEmpty
    if (this.#users.has(name)) return refusals.userExists
    return this.#setUser({ name, passwordHash: noPassword ? '' : passwordHash, noPassword, roles: [] })
  }

  /** A role granted twice changes nothing. The role root need not be there. */
  #grantRole(name: string, role: string): Refusal | undefined {
    const user = this.#users.get(name)
    if (!user) return refusals.userNotFound
    if (role !== rootName && !this.#roles.has(role)) return refusals.roleNotFound
    if (user.roles.includes(role)) return undefined
    return this.#setUser({ ...user, roles: [...user.roles, role].sort() })
  }

  #revokeRole(name: string, role: string): Refusal | undefined {
    if (this.#enabled && name === rootName && role === rootName) return refusals.invalidManagement
    const user = this.#users.get(name)
    if (!user) return refusals.userNotFound
    if (!user.roles.includes(role)) return refusals.roleNotGranted
    return this.#setUser({ ...user, roles: user.roles.filter((each) => each !== role) })
  }

  #deleteRole(name: string): Refusal | undefined {
    if (this.#enabled && name === rootName) return refusals.invalidManagement
    if (!this.#roles.delete(name)) return refusals.roleNotFound
    for (const user of this.#users.values()) {
      if (!user.roles.includes(name)) continue
      this.#users.set(user.name, { ...user, roles: user.roles.filter((each) => each !== name) })
    }
    return this.#changed()
  }

  #grantPermission(name: string, permission: Permission): Refusal | undefined {
    const role = this.#roles.get(name)
    if (!role) return refusals.roleNotFound
    if (!isRange(permission)) return refusals.invalidManagement
    const others = role.permissions.filter((each) => !isSameRange(each, permission))
    return this.#setRole({ name, permissions: ordered([...others, permission]) })
  }

  #setUser(user: User): undefined {
    this.#users.set(user.name, user)
    return this.#changed()
  }

  #setRole(role: Role): undefined {
    this.#roles.set(role.name, role)
    return this.#changed()
  }

  #changed(): undefined {
    this.#revision++
    this.#grants.clear()
  }

  #grantsOf(user: User): Grants {
    let grants = this.#grants.get(user.name)
    if (!grants) {
      const permissions = user.roles.flatMap((role) => this.#roles.get(role)?.permissions ?? [])
      const spansOf = (type: 'read' | 'write') =>
        mergeSpans(permissions.filter((each) => each.type !== other[type]).map(spanOf))
      grants = { read: spansOf('read'), write: spansOf('write') }
      this.#grants.set(user.name, grants)
    }
    return grants
  }
}

const other = { read: 'write', write: 'read' } as const

const isRoot = (user: User): boolean => user.roles.includes(rootName)

const spanOf = ({ key, rangeEnd }: Permission): Span => toSpan(fromKey(key), fromKey(rangeEnd))

/** A permission needs a key, and an end above it unless it is for that key alone or for all from there on. */
const isRange = ({ key, rangeEnd }: Permission): boolean =>
  key !== '' && (rangeEnd === '' || rangeEnd === '\0' || key < rangeEnd)

type KeyRange = Pick<Permission, 'key' | 'rangeEnd'>
const isSameRange = (a: KeyRange, b: KeyRange): boolean => a.key === b.key && a.rangeEnd === b.rangeEnd

const ordered = (permissions: readonly Permission[]): Permission[] =>
  [...permissions].sort((a, b) => compare(a.key, b.key) || compare(a.rangeEnd, b.rangeEnd))

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

const byName = (a: { name: string }, b: { name: string }): number =>
  Buffer.compare(Buffer.from(a.name), Buffer.from(b.name))

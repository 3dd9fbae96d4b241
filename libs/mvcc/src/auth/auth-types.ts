import type { Key } from '../key.ts'

/** etcd's superuser and the role that makes one: the user must have the role before auth can be enabled. */
export const rootName = 'root'

export type PermissionType = 'read' | 'write' | 'readwrite'

/** What a role may do, on a key or a range of keys as requests name one. */
export type Permission = { type: PermissionType; key: Key; rangeEnd: Key }

export type User = {
  name: string
  /** bcrypt in its usual form; empty for a user without a password. */
  passwordHash: string
  noPassword: boolean
  /** In order, each once. */
  roles: readonly string[]
}

export type Role = { name: string; permissions: readonly Permission[] }

/** Everything there is to users and roles: what a snapshot carries. */
export type AuthState = { enabled: boolean; revision: number; users: User[]; roles: Role[] }

/** Who asks, and the auth revision at which that was established. */
export type Identity = { name: string; revision: number }

/** A change of users and roles, as it goes through the log. Passwords are hashed before. */
export type AuthChange =
  | { kind: 'enable' | 'disable' }
  | { kind: 'user-add'; name: string; passwordHash: string; noPassword: boolean }
  | { kind: 'user-password'; name: string; passwordHash: string }
  | { kind: 'user-delete' | 'role-add' | 'role-delete'; name: string }
  | { kind: 'user-grant' | 'user-revoke'; name: string; role: string }
  | { kind: 'role-grant'; name: string; permission: Permission }
  | { kind: 'role-revoke'; name: string; key: Key; rangeEnd: Key }

import type { IgnitionGroup, IgnitionUser } from '@kiln/schemas'
import { type IdRange, type LoginDefs, parseLoginDefs } from './login-defs.ts'

/** Contents of the account files of a root (passwd(5), shadow(5), group(5), gshadow(5)). */
export type AccountFiles = { passwd: string; shadow: string; group: string; gshadow: string }

export type HomeChange =
  | { kind: 'create'; path: string; uid: number; gid: number }
  | { kind: 'move'; from: string; to: string }
  | { kind: 'remove'; path: string; uid: number }

export type AccountPlan = { files: AccountFiles; homes: HomeChange[]; lines: string[]; problems: string[] }

/** What planning needs besides the files: the root's login.defs, and the day since 1970, 0 when no clock is right. */
export type AccountRules = { defs: LoginDefs; day: number }

const defaultRules: AccountRules = { defs: parseLoginDefs(''), day: 0 }
const namePattern = /^[a-z_][a-z0-9_.-]*\$?$/i
const nameMax = 32

/**
 * Plans users and groups as useradd, usermod, groupadd and their like would, on the text of the files: the image has
 * those programs, but not in a root that is still an overlay without its services. Groups come before users.
 */
export function planAccounts(
  groups: IgnitionGroup[],
  users: IgnitionUser[],
  files: AccountFiles,
  rules: AccountRules = defaultRules,
): AccountPlan {
  const accounts = new Accounts(files, rules)
  for (const group of groups) planGroup(group, accounts)
  for (const user of users) planUser(user, accounts)
  return {
    files: accounts.files(),
    homes: accounts.homes,
    lines: accounts.lines,
    problems: accounts.problems,
  }
}

/** The four files, parsed, while a plan is made. */
class Accounts {
  readonly passwd: string[][]
  readonly shadow: string[][]
  readonly group: string[][]
  readonly gshadow: string[][]
  readonly homes: HomeChange[] = []
  readonly lines: string[] = []
  readonly problems: string[] = []
  readonly defs: LoginDefs
  /** Fields of shadow(5) behind a new user's hash. */
  readonly shadowRest: string[]

  constructor(files: AccountFiles, { defs, day }: AccountRules) {
    this.defs = defs
    // Day 0 would mean that the password must be changed at the first login.
    this.shadowRest = [day > 0 ? `${day}` : '', ...defs.ageing, '', '', '']
    this.passwd = rows(files.passwd)
    this.shadow = rows(files.shadow)
    this.group = rows(files.group)
    this.gshadow = rows(files.gshadow)
  }

  files(): AccountFiles {
    return {
      passwd: text(this.passwd),
      shadow: text(this.shadow),
      group: text(this.group),
      gshadow: text(this.gshadow),
    }
  }

  groupId(nameOrId: string): number | undefined {
    const row = this.group.find(([name, , gid]) => name === nameOrId || gid === nameOrId)
    return row ? Number(row[2]) : undefined
  }
}

const rows = (file: string): string[][] =>
  file
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => line.split(':'))
const text = (table: string[][]): string => table.map((row) => `${row.join(':')}\n`).join('')
const rowOf = (table: string[][], name: string): string[] | undefined => table.find((row) => row[0] === name)

function drop(table: string[][], name: string): void {
  const index = table.findIndex((row) => row[0] === name)
  if (index >= 0) table.splice(index, 1)
}

/**
 * The lowest free id. shadow-utils give the system's ids from the top; from the bottom they do not meet those that
 * systemd-sysusers gives, from the top too, at first boot.
 */
function freeId(table: string[][], range: IdRange, accounts: Accounts): number {
  const taken = new Set(table.map((row) => Number(row[2])))
  let id = range.min
  while (taken.has(id)) id++
  if (id > range.max) accounts.problems.push(`every id from ${range.min} to ${range.max} is taken`)
  return id
}

function nameProblem(name: string): string | undefined {
  if (name.length > nameMax) return `name ${name} is longer than ${nameMax} characters`
  return namePattern.test(name) ? undefined : `name ${JSON.stringify(name)} is not a user or group name`
}

/** Whether a value can stand in a field of these files. */
const fieldProblem = (what: string, value: string | undefined): string | undefined =>
  value !== undefined && /[:\n]/.test(value) ? `${what} may not hold a colon or a line break` : undefined

function planGroup(group: IgnitionGroup, accounts: Accounts): void {
  const problem = nameProblem(group.name) ?? fieldProblem('passwordHash', group.passwordHash)
  if (problem) {
    accounts.problems.push(`group: ${problem}`)
    return
  }
  const existing = rowOf(accounts.group, group.name)
  if (group.shouldExist === false) {
    if (!existing) return
    drop(accounts.group, group.name)
    drop(accounts.gshadow, group.name)
    accounts.lines.push(`remove group ${group.name}`)
    return
  }
  const other = accounts.group.find((row) => group.gid !== undefined && row[2] === `${group.gid}`)
  if (other && other[0] !== group.name) {
    accounts.problems.push(`group ${group.name}: gid ${group.gid} belongs to group ${other[0]}`)
    return
  }
  if (existing) {
    if (group.gid !== undefined) existing[2] = `${group.gid}`
    const shadow = rowOf(accounts.gshadow, group.name)
    if (group.passwordHash !== undefined && shadow) shadow[1] = group.passwordHash || '*'
    accounts.lines.push(`change group ${group.name}`)
    return
  }
  addGroup(accounts, group.name, group.gid ?? freeGid(accounts, group.system === true), group.passwordHash)
}

const freeGid = (accounts: Accounts, system: boolean): number =>
  freeId(accounts.group, system ? accounts.defs.systemGid : accounts.defs.gid, accounts)

/** groupadd(8) locks a group without a password with `!`. */
function addGroup(accounts: Accounts, name: string, gid: number, hash = '!'): void {
  accounts.group.push([name, 'x', `${gid}`, ''])
  // Rows of a run that ended before it wrote them all.
  drop(accounts.gshadow, name)
  accounts.gshadow.push([name, hash || '*', '', ''])
  accounts.lines.push(`add group ${name} with gid ${gid}`)
}

function planUser(user: IgnitionUser, accounts: Accounts): void {
  const problem =
    nameProblem(user.name) ??
    fieldProblem('gecos', user.gecos) ??
    fieldProblem('homeDir', user.homeDir) ??
    fieldProblem('shell', user.shell) ??
    fieldProblem('passwordHash', user.passwordHash)
  if (problem) {
    accounts.problems.push(`user ${user.name}: ${problem}`)
    return
  }
  const existing = rowOf(accounts.passwd, user.name)
  if (user.shouldExist === false) {
    if (existing) removeUser(user.name, existing, accounts)
    return
  }
  const other = accounts.passwd.find((row) => user.uid !== undefined && row[2] === `${user.uid}`)
  if (other && other[0] !== user.name) {
    accounts.problems.push(`user ${user.name}: uid ${user.uid} belongs to user ${other[0]}`)
    return
  }
  if (existing) changeUser(user, existing, accounts)
  else addUser(user, accounts)
  joinGroups(user, accounts)
}

function removeUser(name: string, row: string[], accounts: Accounts): void {
  const own = rowOf(accounts.group, name)
  const shared = accounts.passwd.some((other) => other[0] !== name && other[3] === own?.[2])
  drop(accounts.passwd, name)
  drop(accounts.shadow, name)
  for (const table of [accounts.group, accounts.gshadow]) {
    for (const group of table) group[3] = listWithout(group[3] ?? '', name)
  }
  if (own && own[3] === '' && !shared) {
    drop(accounts.group, name)
    drop(accounts.gshadow, name)
  }
  if (row[5]) accounts.homes.push({ kind: 'remove', path: row[5], uid: Number(row[2]) })
  accounts.lines.push(`remove user ${name}`)
}

function addUser(user: IgnitionUser, accounts: Accounts): void {
  const system = user.system === true
  const range = system ? accounts.defs.systemUid : accounts.defs.uid
  const uid = user.uid ?? freeId(accounts.passwd, range, accounts)
  const gid = primaryGroupOf(user, accounts)
  if (gid === undefined) return
  const home = user.homeDir || `/home/${user.name}`
  const shell = user.shell || '/bin/bash'
  accounts.passwd.push([user.name, 'x', `${uid}`, `${gid}`, user.gecos ?? '', home, shell])
  drop(accounts.shadow, user.name)
  accounts.shadow.push([user.name, user.passwordHash || '*', ...accounts.shadowRest])
  accounts.lines.push(`add user ${user.name} with uid ${uid}`)
  // useradd(8) is always told --create-home, for users of the system too.
  if (user.noCreateHome !== true) accounts.homes.push({ kind: 'create', path: home, uid, gid })
}

function primaryGroupOf(user: IgnitionUser, accounts: Accounts): number | undefined {
  if (user.primaryGroup) {
    const gid = accounts.groupId(user.primaryGroup)
    if (gid === undefined) {
      accounts.problems.push(`user ${user.name}: there is no group ${user.primaryGroup}`)
    }
    return gid
  }
  if (user.noUserGroup === true) return accounts.groupId('users') ?? 100
  if (rowOf(accounts.group, user.name)) return accounts.groupId(user.name)
  const gid = freeGid(accounts, user.system === true)
  addGroup(accounts, user.name, gid)
  return gid
}

function changeUser(user: IgnitionUser, row: string[], accounts: Accounts): void {
  if (user.uid !== undefined) row[2] = `${user.uid}`
  if (user.primaryGroup) {
    const gid = accounts.groupId(user.primaryGroup)
    if (gid === undefined) accounts.problems.push(`user ${user.name}: there is no group ${user.primaryGroup}`)
    else row[3] = `${gid}`
  }
  if (user.gecos !== undefined) row[4] = user.gecos
  if (user.homeDir && user.homeDir !== row[5]) {
    accounts.homes.push({ kind: 'move', from: row[5] ?? '', to: user.homeDir })
    row[5] = user.homeDir
  }
  if (user.shell) row[6] = user.shell
  if (user.passwordHash !== undefined) {
    const shadow = rowOf(accounts.shadow, user.name)
    if (shadow) shadow[1] = user.passwordHash || '*'
    else accounts.shadow.push([user.name, user.passwordHash || '*', ...accounts.shadowRest])
  }
  accounts.lines.push(`change user ${user.name}`)
}

function joinGroups(user: IgnitionUser, accounts: Accounts): void {
  for (const name of user.groups ?? []) {
    const group = rowOf(accounts.group, name)
    if (!group) {
      accounts.problems.push(`user ${user.name}: there is no group ${name}`)
      continue
    }
    group[3] = listWith(group[3] ?? '', user.name)
    const shadow = rowOf(accounts.gshadow, name)
    if (shadow) shadow[3] = listWith(shadow[3] ?? '', user.name)
  }
}

const members = (list: string): string[] => list.split(',').filter((name) => name !== '')
const listWith = (list: string, name: string): string => [...new Set([...members(list), name])].join(',')
const listWithout = (list: string, name: string): string =>
  members(list)
    .filter((each) => each !== name)
    .join(',')

/** A user as the files have it. */
export type Account = { name: string; uid: number; gid: number; home: string }

export function findUser(passwd: string, name: string): Account | undefined {
  const row = rowOf(rows(passwd), name)
  return row && { name, uid: Number(row[2]), gid: Number(row[3]), home: row[5] ?? '/' }
}

export function findGroupId(group: string, name: string): number | undefined {
  const row = rowOf(rows(group), name)
  return row && Number(row[2])
}

import { expect, test } from 'vitest'
import { toKey } from '../key.ts'
import { LeaseBook } from '../lease-book.ts'
import type { RequestOp, TxnRequest } from '../requests.ts'
import type { Demand } from './access.ts'
import { AuthBook } from './auth-book.ts'
import { authRefusals } from './auth-refusals.ts'
import type { AuthChange, PermissionType } from './auth-types.ts'

const bytes = (text: string): Uint8Array => Buffer.from(text, 'latin1')
const range = (key: string, rangeEnd = ''): Demand => ({
  kind: 'range',
  request: { key: bytes(key), rangeEnd: bytes(rangeEnd) },
})
const put = (key: string, more: { prevKv?: boolean; lease?: bigint } = {}): Demand => ({
  kind: 'put',
  request: { key: bytes(key), value: bytes(''), ...more },
})
const remove = (key: string, rangeEnd = '', prevKv = false): Demand => ({
  kind: 'delete',
  request: { key: bytes(key), rangeEnd: bytes(rangeEnd), prevKv },
})
const txn = (request: Partial<TxnRequest>): Demand => ({
  kind: 'txn',
  request: { compare: [], success: [], failure: [], ...request },
})
const grant = (type: PermissionType, key: string, rangeEnd = '', name = 'reader'): AuthChange => ({
  kind: 'role-grant',
  name,
  permission: { type, key, rangeEnd },
})

function apply(book: AuthBook, ...changes: AuthChange[]): void {
  for (const change of changes) expect(book.apply(change)).toBeUndefined()
}

/** Auth is on, with root, and alice who has the role `reader`. */
function bookWith(...changes: AuthChange[]): AuthBook {
  const book = new AuthBook()
  apply(
    book,
    { kind: 'user-add', name: 'root', passwordHash: 'h', noPassword: false },
    { kind: 'user-grant', name: 'root', role: 'root' },
    { kind: 'user-add', name: 'alice', passwordHash: 'h', noPassword: false },
    { kind: 'role-add', name: 'reader' },
    { kind: 'user-grant', name: 'alice', role: 'reader' },
    ...changes,
    { kind: 'enable' },
  )
  return book
}

const leases = new LeaseBook()
function refusalOf(book: AuthBook, demand: Demand, name = 'alice', revision = book.revision) {
  return book.check({ name, revision }, demand, (id) => leases.get(id)?.keys ?? [])?.text
}
const denied = authRefusals.permissionDenied.text

test('auth can only be enabled with a user root that has the role root', () => {
  const book = new AuthBook()
  expect(book.apply({ kind: 'enable' })).toBe(authRefusals.rootUserMissing)
  apply(book, { kind: 'user-add', name: 'root', passwordHash: 'h', noPassword: false })
  expect(book.apply({ kind: 'enable' })).toBe(authRefusals.rootRoleMissing)
  apply(book, { kind: 'user-grant', name: 'root', role: 'root' }, { kind: 'enable' }, { kind: 'enable' })
  expect(book.enabled).toBe(true)
})

test('every change but enabling is a new revision, and what is refused or changes nothing is none', () => {
  const book = bookWith()
  expect(book.revision).toBe(6)
  apply(book, { kind: 'user-grant', name: 'alice', role: 'reader' }, { kind: 'enable' })
  expect(book.apply({ kind: 'role-add', name: 'reader' })).toBe(authRefusals.roleExists)
  expect(book.revision).toBe(6)
  apply(book, { kind: 'disable' })
  expect(book.revision).toBe(7)
  apply(book, { kind: 'disable' })
  expect(book.revision).toBe(7)
})

test('root keeps user, role and grant while auth is on, and loses them when it is off', () => {
  const book = bookWith({ kind: 'role-add', name: 'root' })
  const changes: AuthChange[] = [
    { kind: 'user-revoke', name: 'root', role: 'root' },
    { kind: 'role-delete', name: 'root' },
    { kind: 'user-delete', name: 'root' },
  ]
  for (const change of changes) expect(book.apply(change)).toBe(authRefusals.invalidManagement)
  apply(book, { kind: 'disable' }, ...changes.slice(1))
})

test('nothing is asked of anybody while auth is off', () => {
  const book = bookWith()
  apply(book, { kind: 'disable' })
  expect(book.check(undefined, { kind: 'admin' }, () => [])).toBeUndefined()
  expect(book.check(undefined, put('x'), () => [])).toBeUndefined()
})

test('whoever has no name, is unknown or comes with an older revision is told so', () => {
  const book = bookWith(grant('readwrite', 'a'))
  expect(book.check(undefined, put('a'), () => [])).toBe(authRefusals.userEmpty)
  expect(refusalOf(book, put('a'), 'mallory')).toBe(denied)
  expect(refusalOf(book, { kind: 'login' }, 'mallory')).toBe(denied)
  expect(refusalOf(book, put('a'), 'alice', book.revision - 1)).toBe(authRefusals.oldRevision.text)
  expect(refusalOf(book, put('a'), 'root', book.revision - 1)).toBe(authRefusals.oldRevision.text)
  expect(refusalOf(book, { kind: 'admin' }, 'root', book.revision - 1)).toBeUndefined()
})

test('a permission is for a key, a range, a prefix or all from a key on', () => {
  const book = bookWith(grant('read', 'k'), grant('read', 'p/', 'p0'), grant('read', 'z', '\0'))
  for (const demand of [range('k'), range('p/', 'p0'), range('p/x'), range('z', '\0'), range('zz', 'zzz')]) {
    expect(refusalOf(book, demand)).toBeUndefined()
  }
  for (const demand of [
    range('k\0'),
    range('k', 'l'),
    range('p/', 'p1'),
    range('p/', '\0'),
    range('y', '\0'),
  ]) {
    expect(refusalOf(book, demand)).toBe(denied)
  }
  expect(refusalOf(book, put('k'))).toBe(denied)
})

test('a range is allowed when touching ranges of several roles cover it whole', () => {
  const book = bookWith(
    { kind: 'role-add', name: 'second' },
    { kind: 'user-grant', name: 'alice', role: 'second' },
    grant('read', 'a', 'c'),
    grant('readwrite', 'c', 'e', 'second'),
    grant('write', 'e', 'g', 'second'),
  )
  expect(refusalOf(book, range('a', 'e'))).toBeUndefined()
  expect(refusalOf(book, range('a', 'f'))).toBe(denied)
  expect(refusalOf(book, remove('c', 'g'))).toBeUndefined()
  expect(refusalOf(book, remove('c', 'g', true))).toBe(denied)
  expect(refusalOf(book, remove('c', 'e', true))).toBeUndefined()
  expect(refusalOf(book, range('d', 'b'))).toBe(denied)
})

test('the value before a put is only told to who may read it', () => {
  const book = bookWith(grant('write', 'w'), grant('readwrite', 'x'))
  expect(refusalOf(book, put('w'))).toBeUndefined()
  expect(refusalOf(book, put('w', { prevKv: true }))).toBe(denied)
  expect(refusalOf(book, put('x', { prevKv: true }))).toBeUndefined()
})

test('every operation and compare of a transaction is checked, on both ways and in nested ones', () => {
  const book = bookWith(grant('readwrite', 'a', 'b'), grant('write', 'w'))
  const get = (key: string) => ({ kind: 'range', request: { key: bytes(key), rangeEnd: bytes('') } }) as const
  const write = (key: string, prevKv = false) =>
    ({ kind: 'put', request: { key: bytes(key), value: bytes(''), prevKv } }) as const
  const compare = {
    key: bytes('w'),
    rangeEnd: bytes(''),
    result: 'equal',
    target: 'version',
    wanted: 0,
  } as const
  const inner = (request: Partial<TxnRequest>): RequestOp => ({
    kind: 'txn',
    request: { compare: [], success: [], failure: [], ...request },
  })
  expect(refusalOf(book, txn({ success: [get('a'), write('w')], failure: [write('a1')] }))).toBeUndefined()
  expect(refusalOf(book, txn({ compare: [{ ...compare, key: bytes('a') }] }))).toBeUndefined()
  const refusedOnes: Partial<TxnRequest>[] = [
    { compare: [compare] },
    { success: [get('a'), get('w')] },
    { failure: [get('x')] },
    { success: [write('w', true)] },
    { success: [inner({ failure: [inner({ success: [write('x')] })] })] },
    { failure: [inner({ compare: [compare] })] },
    { success: [{ kind: 'delete', request: { key: bytes('a'), rangeEnd: bytes('c') } }] },
  ]
  for (const request of refusedOnes) expect(refusalOf(book, txn(request))).toBe(denied)
})

test('a lease belongs to who may write all of its keys', () => {
  const book = bookWith(grant('readwrite', 'a', 'b'), grant('read', 'r'))
  leases.grant(1n, 10)
  leases.attach(1n, toKey(bytes('a1')))
  leases.grant(2n, 10)
  leases.attach(2n, toKey(bytes('a1')))
  leases.attach(2n, toKey(bytes('r')))
  leases.grant(3n, 10)
  leases.attach(3n, toKey(bytes('secret')))
  expect(refusalOf(book, put('a', { lease: 1n }))).toBeUndefined()
  expect(refusalOf(book, put('a', { lease: 2n }))).toBe(denied)
  const request = { key: bytes('a'), value: bytes(''), lease: 2n }
  expect(refusalOf(book, txn({ success: [{ kind: 'put', request }] }))).toBe(denied)
  expect(refusalOf(book, { kind: 'lease-revoke', id: 1n })).toBeUndefined()
  expect(refusalOf(book, { kind: 'lease-revoke', id: 2n })).toBe(denied)
  expect(refusalOf(book, { kind: 'lease-revoke', id: 99n })).toBeUndefined()
  expect(refusalOf(book, { kind: 'lease-keys', id: 2n })).toBeUndefined()
  expect(refusalOf(book, { kind: 'lease-keys', id: 3n })).toBe(denied)
  expect(refusalOf(book, { kind: 'lease-revoke', id: 3n }, 'root')).toBeUndefined()
})

test('a user may be told of itself and its own roles; the rest is for who has the role root', () => {
  const book = bookWith({ kind: 'role-add', name: 'other' })
  const of = (name: string) =>
    (
      [
        { kind: 'user', name: 'alice' },
        { kind: 'role', name: 'reader' },
        { kind: 'login' },
        { kind: 'user', name: 'root' },
        { kind: 'role', name: 'other' },
        { kind: 'admin' },
      ] satisfies Demand[]
    ).map((demand) => refusalOf(book, demand, name))
  const free = undefined
  expect(of('alice')).toEqual([free, free, free, denied, denied, denied])
  expect(of('root')).toEqual([free, free, free, free, free, free])
  apply(book, { kind: 'user-grant', name: 'alice', role: 'root' })
  expect(refusalOf(book, { kind: 'admin' })).toBeUndefined()
  expect(refusalOf(book, put('anything'))).toBeUndefined()
})

test('a permission is replaced by one for the same range, and one without keys is none', () => {
  const book = bookWith(grant('read', 'a', 'b'), grant('write', 'a', 'b'), grant('read', 'a'))
  expect(book.role('reader')?.permissions).toEqual([
    { type: 'read', key: 'a', rangeEnd: '' },
    { type: 'write', key: 'a', rangeEnd: 'b' },
  ])
  expect(book.apply(grant('read', 'b', 'a'))).toBe(authRefusals.invalidManagement)
  expect(book.apply(grant('read', '', '\0'))).toBe(authRefusals.invalidManagement)
  expect(book.apply(grant('read', 'a', '', 'none'))).toBe(authRefusals.roleNotFound)
  const revoke = { kind: 'role-revoke', name: 'reader', key: 'a', rangeEnd: 'b' } as const
  apply(book, revoke)
  expect(book.apply(revoke)).toBe(authRefusals.permissionNotGranted)
  expect(refusalOf(book, put('a'))).toBe(denied)
})

test('what a deleted role allowed is gone at once', () => {
  const book = bookWith(grant('read', 'a'))
  expect(refusalOf(book, range('a'))).toBeUndefined()
  apply(book, { kind: 'role-delete', name: 'reader' })
  expect(book.user('alice')?.roles).toEqual([])
  expect(refusalOf(book, range('a'))).toBe(denied)
})

test('users without a password keep none, and lists are in order of their names', () => {
  const book = new AuthBook()
  for (const name of ['b', 'ä', 'a']) {
    apply(book, { kind: 'user-add', name, passwordHash: 'h', noPassword: name === 'a' })
  }
  apply(book, { kind: 'user-password', name: 'a', passwordHash: 'new' })
  apply(book, { kind: 'user-password', name: 'b', passwordHash: 'new' })
  expect(book.users().map(({ name, passwordHash }) => `${name}:${passwordHash}`)).toEqual([
    'a:',
    'b:new',
    'ä:h',
  ])
  expect(book.apply({ kind: 'user-password', name: 'c', passwordHash: 'x' })).toBe(authRefusals.userNotFound)
  expect(book.apply({ kind: 'user-add', name: '', passwordHash: 'x', noPassword: false })).toBe(
    authRefusals.userEmpty,
  )
})

test('an exported state makes an equal book and does not change with the old one', () => {
  const book = bookWith(grant('read', 'a'))
  const state = book.exportState()
  apply(book, grant('read', 'b'))
  const copy = new AuthBook()
  copy.replace(structuredClone(state))
  expect(copy.exportState()).toEqual(state)
  expect(refusalOf(copy, range('a'))).toBeUndefined()
  expect(refusalOf(copy, range('b'))).toBe(denied)
})

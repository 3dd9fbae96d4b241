import fc from 'fast-check'
import { expect, test } from 'vitest'
import { contains, type Key, type Span, toKey, toSpan } from '../key.ts'
import type { Demand } from './access.ts'
import { AuthBook } from './auth-book.ts'
import type { AuthChange, AuthState, PermissionType } from './auth-types.ts'
import { coversSpan, mergeSpans } from './span-set.ts'

/**
 * Ends of spans are short keys, so a gap between two spans begins at one of them or just behind it; the last key stands
 * for all above. Looking at each of these keys is then as good as looking at all keys.
 */
const ends = ['a', 'a\0', 'ab', 'b', 'ba', 'c', '\xff', '\xff\xff']
const universe: Key[] = [...new Set(ends.flatMap((key) => [key, `${key}\0`])), '\xff\xff\xff\xff']

const keyOf = fc.constantFrom(...ends)
const rangeOf = fc.record({ key: keyOf, rangeEnd: fc.oneof(fc.constantFrom('', '\0'), keyOf) })
const spanOf = ({ key, rangeEnd }: { key: Key; rangeEnd: Key }): Span =>
  toSpan(Buffer.from(key, 'latin1'), Buffer.from(rangeEnd, 'latin1'))

/** Key by key; a span without keys is never allowed. */
function isCovered(spans: Span[], span: Span): boolean {
  const keys = universe.filter((key) => contains(span, key))
  const isHeld = (key: Key): boolean => spans.some((each) => contains(each, key))
  if (span.end === undefined && !spans.some((each) => each.end === undefined)) return false
  return keys.length > 0 && keys.every(isHeld)
}

test('merged spans cover what the spans cover key by key, and no two of them touch', () => {
  fc.assert(
    fc.property(fc.array(rangeOf, { maxLength: 6 }), rangeOf, (ranges, asked) => {
      const spans = ranges.map(spanOf)
      const merged = mergeSpans(spans)
      expect(coversSpan(merged, spanOf(asked))).toBe(isCovered(spans, spanOf(asked)))
      merged.forEach((span, at) => {
        const next = merged[at + 1]
        if (next) expect(span.end! < next.start).toBe(true)
      })
    }),
    { numRuns: 2000 },
  )
})

const userName = fc.constantFrom('root', 'u1', 'u2')
const roleName = fc.constantFrom('root', 'r1', 'r2')
const typeOf = fc.constantFrom<PermissionType>('read', 'write', 'readwrite')
const changeOf: fc.Arbitrary<AuthChange> = fc.oneof(
  fc.constantFrom<AuthChange>({ kind: 'enable' }, { kind: 'disable' }),
  userName.map((name): AuthChange => ({ kind: 'user-add', name, passwordHash: 'h', noPassword: false })),
  userName.map((name): AuthChange => ({ kind: 'user-delete', name })),
  fc.record({ kind: fc.constant('user-grant' as const), name: userName, role: roleName }),
  fc.record({ kind: fc.constant('user-revoke' as const), name: userName, role: roleName }),
  roleName.map((name): AuthChange => ({ kind: 'role-add', name })),
  roleName.map((name): AuthChange => ({ kind: 'role-delete', name })),
  fc.record({
    kind: fc.constant('role-grant' as const),
    name: roleName,
    permission: fc.tuple(typeOf, rangeOf).map(([type, range]) => ({ type, ...range })),
  }),
  fc.tuple(roleName, rangeOf).map(([name, range]): AuthChange => ({ kind: 'role-revoke', name, ...range })),
)

/** Lists of facts, searched through for every question; no order, no cache, no merging. */
class NaiveAuth {
  on = false
  users = new Set<string>()
  roles = new Set<string>()
  granted: [string, string][] = []
  permissions: { role: string; type: PermissionType; key: Key; rangeEnd: Key }[] = []

  apply(change: AuthChange): void {
    const isRootKept = this.on && 'name' in change && change.name === 'root'
    switch (change.kind) {
      case 'enable':
        if (this.users.has('root') && this.has('root', 'root')) this.on = true
        break
      case 'disable':
        this.on = false
        break
      case 'user-add':
        this.users.add(change.name)
        break
      case 'user-password':
        break
      case 'user-delete':
        if (isRootKept) break
        this.users.delete(change.name)
        this.granted = this.granted.filter(([user]) => user !== change.name)
        break
      case 'user-grant':
        if (!this.users.has(change.name) || (change.role !== 'root' && !this.roles.has(change.role))) break
        if (!this.has(change.name, change.role)) this.granted.push([change.name, change.role])
        break
      case 'user-revoke':
        if (isRootKept && change.role === 'root') break
        this.granted = this.granted.filter(([user, role]) => user !== change.name || role !== change.role)
        break
      case 'role-add':
        this.roles.add(change.name)
        break
      case 'role-delete':
        if (isRootKept || !this.roles.has(change.name)) break
        this.roles.delete(change.name)
        this.granted = this.granted.filter(([, role]) => role !== change.name)
        this.permissions = this.permissions.filter(({ role }) => role !== change.name)
        break
      case 'role-grant': {
        const { type, key, rangeEnd } = change.permission
        if (!this.roles.has(change.name)) break
        if (rangeEnd !== '' && rangeEnd !== '\0' && key >= rangeEnd) break
        this.drop(change.name, key, rangeEnd)
        this.permissions.push({ role: change.name, type, key, rangeEnd })
        break
      }
      case 'role-revoke':
        this.drop(change.name, change.key, change.rangeEnd)
        break
    }
  }

  has(user: string, role: string): boolean {
    return this.granted.some((each) => each[0] === user && each[1] === role)
  }

  drop(role: string, key: Key, rangeEnd: Key): void {
    this.permissions = this.permissions.filter(
      (each) => each.role !== role || each.key !== key || each.rangeEnd !== rangeEnd,
    )
  }

  may(user: string, type: 'read' | 'write', span: Span): boolean {
    if (!this.on) return true
    if (!this.users.has(user)) return false
    if (this.has(user, 'root')) return true
    const spans = this.permissions
      .filter((each) => this.has(user, each.role) && (each.type === type || each.type === 'readwrite'))
      .map(spanOf)
    return isCovered(spans, span)
  }
}

test('after any changes everybody may do what a naive model says, and a copy agrees', () => {
  fc.assert(
    fc.property(
      fc.array(changeOf, { maxLength: 25 }),
      fc.array(rangeOf, { minLength: 1, maxLength: 5 }),
      (changes, asked) => {
        const book = new AuthBook()
        const naive = new NaiveAuth()
        // Most sequences get auth on, with somebody who is not root.
        const start: AuthChange[] = [
          { kind: 'user-add', name: 'root', passwordHash: 'h', noPassword: false },
          { kind: 'user-grant', name: 'root', role: 'root' },
          { kind: 'user-add', name: 'u1', passwordHash: 'h', noPassword: false },
          { kind: 'role-add', name: 'r1' },
          { kind: 'user-grant', name: 'u1', role: 'r1' },
          { kind: 'enable' },
        ]
        for (const change of [...start, ...changes]) {
          const before = book.exportState()
          const refusal = book.apply(change)
          naive.apply(change)
          const after = book.exportState()
          if (refusal) expect(after).toEqual(before)
          else if (isDifferent(before, after)) expect(after.revision).toBe(before.revision + 1)
          else expect(after.revision - before.revision).toBeLessThanOrEqual(1)
          compare(book, naive, asked)
        }
        const copy = new AuthBook()
        copy.replace(JSON.parse(JSON.stringify(book.exportState())) as AuthState)
        compare(copy, naive, asked)
      },
    ),
    { numRuns: 60 },
  )
})

/** Whether more than enabling happened. */
const isDifferent = (a: AuthState, b: AuthState): boolean =>
  JSON.stringify([a.users, a.roles]) !== JSON.stringify([b.users, b.roles]) || (a.enabled && !b.enabled)

function compare(book: AuthBook, naive: NaiveAuth, asked: { key: Key; rangeEnd: Key }[]): void {
  expect(book.enabled).toBe(naive.on)
  for (const { key, rangeEnd } of asked) {
    const request = { key: Buffer.from(key, 'latin1'), rangeEnd: Buffer.from(rangeEnd, 'latin1') }
    expect(toKey(request.key)).toBe(key)
    for (const name of ['root', 'u1', 'u2']) {
      const isAllowed = (demand: Demand): boolean =>
        book.check({ name, revision: book.revision }, demand, () => []) === undefined
      const span = spanOf({ key, rangeEnd })
      expect(isAllowed({ kind: 'range', request })).toBe(naive.may(name, 'read', span))
      expect(isAllowed({ kind: 'delete', request })).toBe(naive.may(name, 'write', span))
    }
  }
}

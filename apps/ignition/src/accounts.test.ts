import type { IgnitionGroup, IgnitionUser } from '@kiln/schemas'
import { expect, test } from 'vitest'
import { type AccountFiles, findGroupId, findUser, planAccounts } from './accounts.ts'
import { parseLoginDefs } from './login-defs.ts'

const base: AccountFiles = {
  passwd: 'root:x:0:0:root:/root:/bin/bash\nold:x:1000:1000:Old:/home/old:/bin/sh\n',
  shadow: 'root:*:19000:0:99999:7:::\nold:!:::::::\n',
  group: 'root:x:0:\nsudo:x:27:old\nusers:x:100:\nold:x:1000:\n',
  gshadow: 'root:*::\nsudo:*::old\nusers:*::\nold:!::\n',
}

const plan = (users: IgnitionUser[], groups: IgnitionGroup[] = []) => planAccounts(groups, users, base)

test('a new user gets free ids, a group of its own, a locked password and a home', () => {
  const { files, homes, problems } = plan([{ name: 'core', gecos: 'Core', groups: ['sudo'] }])
  expect(problems).toEqual([])
  expect(files.passwd).toBe(`${base.passwd}core:x:1001:1001:Core:/home/core:/bin/bash\n`)
  expect(files.shadow).toBe(`${base.shadow}core:*:::::::\n`)
  expect(files.group).toBe('root:x:0:\nsudo:x:27:old,core\nusers:x:100:\nold:x:1000:\ncore:x:1001:\n')
  expect(files.gshadow).toContain('sudo:*::old,core\n')
  expect(homes).toEqual([{ kind: 'create', path: '/home/core', uid: 1001, gid: 1001 }])
})

test('planning the result again changes nothing', () => {
  const users = [{ name: 'core', groups: ['sudo'], passwordHash: '$y$x', uid: 1500 }]
  const groups = [{ name: 'ops', gid: 2000 }]
  const once = planAccounts(groups, users, base)
  expect(planAccounts(groups, users, once.files).files).toEqual(once.files)
})

test('groups come first, so that users may be in new ones', () => {
  const { files, problems } = plan([{ name: 'core', primaryGroup: 'ops' }], [{ name: 'ops', gid: 2000 }])
  expect(problems).toEqual([])
  expect(findUser(files.passwd, 'core')).toMatchObject({ gid: 2000 })
  expect(findGroupId(files.group, 'ops')).toBe(2000)
})

test('users of the system get the lowest ids of their range, and a home as useradd is told to make', () => {
  const { files, homes } = plan([{ name: 'daemon1', system: true }])
  expect(findUser(files.passwd, 'daemon1')).toMatchObject({ uid: 201, gid: 201 })
  expect(homes).toEqual([{ kind: 'create', path: '/home/daemon1', uid: 201, gid: 201 }])
})

test('login.defs of the root sets ranges and ageing, the clock the day of the last change', () => {
  const defs = parseLoginDefs(
    '# UID_MIN 1\nUID_MIN 5000\nPASS_MIN_DAYS\t0\nPASS_MAX_DAYS 99999\nPASS_WARN_AGE 7\n',
  )
  const { files } = planAccounts([], [{ name: 'core' }], base, { defs, day: 17_331 })
  expect(findUser(files.passwd, 'core')).toMatchObject({ uid: 5000 })
  expect(files.shadow).toContain('core:*:17331:0:99999:7:::\n')
})

test('a range that is full is refused', () => {
  const defs = parseLoginDefs('UID_MIN 1000\nUID_MAX 1000\n')
  expect(planAccounts([], [{ name: 'core' }], base, { defs, day: 0 }).problems.join()).toMatch(
    /every id from 1000/,
  )
})

test('an existing user keeps what is not asked for', () => {
  const { files, homes } = plan([{ name: 'old', shell: '/bin/bash', homeDir: '/srv/old', passwordHash: '' }])
  expect(files.passwd).toContain('old:x:1000:1000:Old:/srv/old:/bin/bash\n')
  expect(files.shadow).toContain('old:*:')
  expect(homes).toEqual([{ kind: 'move', from: '/home/old', to: '/srv/old' }])
})

test('a user that should not exist goes with group, memberships and home', () => {
  const { files, homes } = plan([{ name: 'old', shouldExist: false }])
  expect(Object.values(files).join('')).not.toContain('old')
  expect(homes).toEqual([{ kind: 'remove', path: '/home/old', uid: 1000 }])
})

test.each<[string, IgnitionUser[], IgnitionGroup[], RegExp]>([
  ['a uid that is taken', [{ name: 'core', uid: 1000 }], [], /uid 1000 belongs to user old/],
  ['a gid that is taken', [], [{ name: 'ops', gid: 27 }], /gid 27 belongs to group sudo/],
  ['a group that is unknown', [{ name: 'core', groups: ['nope'] }], [], /no group nope/],
  ['a primary group that is unknown', [{ name: 'core', primaryGroup: 'nope' }], [], /no group nope/],
  ['a field with a colon', [{ name: 'core', gecos: 'a:b' }], [], /colon/],
  ['a field with a line break', [{ name: 'core', shell: '/bin/sh\nroot2::0:0' }], [], /line break/],
  ['a name that is none', [{ name: 'a b' }], [], /not a user or group name/],
])('%s is refused', (_, users, groups, message) => {
  expect(plan(users, groups).problems.join('\n')).toMatch(message)
})

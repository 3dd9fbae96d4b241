import { cpSync, lstatSync, mkdirSync, renameSync, rmSync } from 'node:fs'
import { dirname } from 'node:path'
import type { IgnitionConfig, IgnitionUser } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import { type AccountFiles, findUser, type HomeChange, planAccounts } from './accounts.ts'
import type { Run } from './run.ts'
import type { TargetRoot } from './target-root.ts'

/** Modes of the account files, as Debian has them. */
const modes: Record<keyof AccountFiles, number> = {
  passwd: 0o644,
  shadow: 0o640,
  group: 0o644,
  gshadow: 0o640,
}
const shadowGroup = 42

const minimal: AccountFiles = {
  passwd: 'root:x:0:0:root:/root:/bin/bash\n',
  shadow: 'root:*:::::::\n',
  group: 'root:x:0:\n',
  gshadow: 'root:*::\n',
}

/** Users, groups, homes and ssh keys. */
export function applyAccounts(config: IgnitionConfig, target: TargetRoot, run: Run): void {
  const users = config.passwd?.users ?? []
  const groups = config.passwd?.groups ?? []
  if (users.length === 0 && groups.length === 0) return
  const files = Object.fromEntries(
    Object.entries(minimal).map(([name, text]) => [name, target.read(`/etc/${name}`) ?? text]),
  ) as AccountFiles
  const plan = planAccounts(groups, users, files)
  if (plan.problems.length > 0) throw new Fault('ACCOUNTS_REFUSED', plan.problems.join('; '))
  for (const line of plan.lines) run.reporter.say(`files: ${line}`)
  for (const name of Object.keys(modes) as (keyof AccountFiles)[]) {
    const secret = name === 'shadow' || name === 'gshadow'
    const owner = { uid: 0, gid: secret ? shadowGroup : 0 }
    target.write(`/etc/${name}`, plan.files[name], modes[name], owner)
  }
  for (const home of plan.homes) applyHome(home, target)
  for (const user of users) writeKeys(user, plan.files.passwd, target)
}

function applyHome(change: HomeChange, target: TargetRoot): void {
  switch (change.kind) {
    case 'create': {
      const { path, uid, gid } = change
      if (!lstatSync(target.place(path), { throwIfNoEntry: false })) target.folder(path, 0o700, { uid, gid })
      return
    }
    case 'move': {
      const from = target.place(change.from)
      const to = target.place(change.to)
      if (!lstatSync(from, { throwIfNoEntry: false }) || lstatSync(to, { throwIfNoEntry: false })) return
      mkdirSync(dirname(to), { recursive: true })
      // Across layers of the overlay a rename may not be possible.
      try {
        renameSync(from, to)
      } catch {
        cpSync(from, to, { recursive: true, preserveTimestamps: true, verbatimSymlinks: true })
        rmSync(from, { recursive: true })
      }
      return
    }
    case 'remove':
      target.remove(change.path)
  }
}

/** Keys go to their own fragment, which the image's sshd reads beside the user's own file. */
function writeKeys(user: IgnitionUser, passwd: string, target: TargetRoot): void {
  const keys = user.sshAuthorizedKeys ?? []
  if (keys.length === 0 || user.shouldExist === false) return
  const account = findUser(passwd, user.name)
  if (!account)
    throw new Fault('ACCOUNTS_REFUSED', `ssh keys are given for user ${user.name}, who does not exist`)
  const owner = { uid: account.uid, gid: account.gid }
  const folder = `${account.home.replace(/\/+$/, '')}/.ssh`
  if (!lstatSync(target.place(account.home), { throwIfNoEntry: false }))
    target.folder(account.home, 0o700, owner)
  target.folder(folder, 0o700, owner)
  target.folder(`${folder}/authorized_keys.d`, 0o700, owner)
  const text = keys.map((key) => `${key.replace(/\n+$/, '')}\n`).join('')
  target.write(`${folder}/authorized_keys.d/ignition`, text, 0o600, owner)
}

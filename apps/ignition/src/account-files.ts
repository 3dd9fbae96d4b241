import { cpSync, existsSync, lstatSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path/posix'
import type { IgnitionConfig } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import { type AccountFiles, type HomeChange, planAccounts } from './accounts.ts'
import { parseLoginDefs } from './login-defs.ts'
import type { Run } from './run.ts'
import { writeKeys } from './ssh-keys.ts'
import type { Owner, TargetRoot } from './target-root.ts'

/** Modes of the account files, as Debian has them; a file that is there keeps its own. */
const modes: Record<keyof AccountFiles, number> = {
  passwd: 0o644,
  shadow: 0o640,
  group: 0o644,
  gshadow: 0o640,
}
const shadowGroup = 42
const dayMs = 86_400_000

const minimal: AccountFiles = {
  passwd: 'root:x:0:0:root:/root:/bin/bash\n',
  shadow: 'root:*:::::::\n',
  group: 'root:x:0:\n',
  gshadow: 'root:*::\n',
}

/** Users, groups, homes and ssh keys. `made` are the directories that the mount stage had to make. */
export async function applyAccounts(
  config: IgnitionConfig,
  made: string[],
  target: TargetRoot,
  run: Run,
): Promise<void> {
  const users = config.passwd?.users ?? []
  const groups = config.passwd?.groups ?? []
  if (users.length === 0 && groups.length === 0) return
  const before = Object.fromEntries(
    Object.keys(minimal).map((name) => [name, target.read(`/etc/${name}`)]),
  ) as Record<keyof AccountFiles, string | undefined>
  const files = Object.fromEntries(
    Object.entries(minimal).map(([name, text]) => [name, before[name as keyof AccountFiles] ?? text]),
  ) as AccountFiles
  const defs = parseLoginDefs(target.read('/etc/login.defs') ?? '')
  const day = Math.floor(run.accountDate().getTime() / dayMs)
  const plan = planAccounts(groups, users, files, { defs, day })
  if (plan.problems.length > 0) throw new Fault('ACCOUNTS_REFUSED', plan.problems.join('; '))
  for (const line of plan.lines) run.reporter.say(`files: ${line}`)
  // Whoever is in passwd is complete: a run that ends before plans the same accounts again.
  for (const home of plan.homes) {
    applyHome(home, target, run)
    run.acted(`home ${home.kind}`)
  }
  ownMadeDirectories(plan.homes, made, target)
  run.acted('directories on the way to mount points')
  for (const name of ['gshadow', 'group', 'shadow', 'passwd'] as const) {
    if (plan.files[name] === files[name]) continue
    writeAccountFile(name, plan.files[name], target)
    run.acted(`write /etc/${name}`)
  }
  for (const { name, shouldExist } of users) {
    if (shouldExist === false) target.remove(`${defs.mailDir}/${name}`)
  }
  for (const user of users) {
    await writeKeys(user, plan.files.passwd, target, run)
    run.acted(`keys of ${user.name}`)
  }
}

function writeAccountFile(name: keyof AccountFiles, text: string, target: TargetRoot): void {
  const path = `/etc/${name}`
  const there = lstatSync(target.place(path), { throwIfNoEntry: false })
  const secret = name === 'shadow' || name === 'gshadow'
  const owner = there ?? { uid: 0, gid: secret ? shadowGroup : 0 }
  target.write(path, text, there ? there.mode & 0o7777 : modes[name], owner)
}

function applyHome(change: HomeChange, target: TargetRoot, run: Run): void {
  switch (change.kind) {
    case 'create': {
      const { path, uid, gid } = change
      if (lstatSync(target.place(path), { throwIfNoEntry: false })) return
      // A home is there whole or not at all.
      const fresh = `${path}.kiln-new`
      target.remove(fresh)
      target.folder(fresh, 0o700, { uid, gid })
      copySkeleton(fresh, { uid, gid }, target)
      renameSync(target.place(fresh), target.place(path))
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
    case 'remove': {
      const there = lstatSync(target.place(change.path), { throwIfNoEntry: false })
      // As userdel(8): a home that is the user's own, never / or what belongs to somebody else.
      if (
        there?.isDirectory() &&
        there.uid === change.uid &&
        target.place(change.path) !== target.place('/')
      ) {
        target.remove(change.path)
      } else if (there) {
        run.warn(`files: ${change.path} stays: it does not belong to the user that goes`)
      }
    }
  }
}

/** What useradd(8) puts into a new home. */
function copySkeleton(home: string, owner: Owner, target: TargetRoot): void {
  const skeleton = target.place('/etc/skel/.')
  if (!existsSync(skeleton)) return
  for (const name of readdirSync(skeleton, { recursive: true, encoding: 'utf8' })) {
    const from = join(skeleton, name)
    const stats = lstatSync(from)
    const to = join(home, name)
    if (stats.isDirectory()) target.folder(to, stats.mode & 0o7777, owner)
    else {
      cpSync(from, target.place(to), { verbatimSymlinks: true })
      target.own(to, owner)
    }
  }
}

/** Directories on the way to a mount point below a user's home are that user's, as if useradd had come first. */
function ownMadeDirectories(homes: HomeChange[], made: string[], target: TargetRoot): void {
  for (const home of homes) {
    if (home.kind !== 'create') continue
    const { path, uid, gid } = home
    for (const folder of made) {
      if (folder !== path && !folder.startsWith(`${path}/`)) continue
      target.folder(folder, 0o700, { uid, gid })
      if (folder === path) copySkeleton(path, { uid, gid }, target)
    }
  }
}

import {
  appendFileSync,
  chmodSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readlinkSync,
  symlinkSync,
  truncateSync,
} from 'node:fs'
import { dirname, normalize } from 'node:path/posix'
import type { IgnitionDirectory, IgnitionFile, IgnitionLink } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import { findGroupId, findUser } from './accounts.ts'
import { type ApplyJournal, openJournal } from './apply-journal.ts'
import { fetchResource } from './fetch-resource.ts'
import type { Fetched } from './fetch-stage.ts'
import { type PlannedNode, planNodes } from './node-order.ts'
import type { Run } from './run.ts'
import type { Owner, TargetRoot } from './target-root.ts'

/** A failure at one entry of the config. */
export type PlacedFault = Fault & { path?: string }

/** Directories, files and links of the config (Ignition, "storage.files" and its siblings). */
export async function applyNodes(
  { config, configHash }: Pick<Fetched, 'config' | 'configHash'>,
  target: TargetRoot,
  run: Run,
): Promise<void> {
  const planned = planNodes(config)
  if (planned.length === 0) return
  refuseSamePlace(planned, target)
  const journal = openJournal(planned, configHash, target)
  for (const each of planned) {
    try {
      await applyNode(each, journal, target, run)
      run.acted(`${each.kind} ${each.node.path}`)
    } catch (cause) {
      const list = { directory: 'directories', file: 'files', link: 'links' }[each.kind]
      if (cause instanceof Fault) Object.assign(cause, { path: `$.storage.${list}.${each.index}` })
      throw cause
    }
  }
  run.reporter.say(`files: ${planned.length} files, directories and links`)
}

/** Two entries may differ in text and still be one file, because of links in the root. */
function refuseSamePlace(planned: PlannedNode[], target: TargetRoot): void {
  const seen = new Map<string, string>()
  for (const { node } of planned) {
    const place = target.place(node.path)
    const other = seen.get(place)
    if (other !== undefined) throw new Fault('PATH_TWICE', `${node.path} and ${other} are the same place`)
    seen.set(place, node.path)
  }
}

async function applyNode(
  planned: PlannedNode,
  journal: ApplyJournal,
  target: TargetRoot,
  run: Run,
): Promise<void> {
  const { path } = planned.node
  const replaces =
    planned.node.overwrite === true || (planned.kind !== 'directory' && journal.madeBefore(path))
  // What replaces it is here and verified before the old one goes.
  const content = planned.kind === 'file' ? await newContent(planned.node, replaces, target, run) : undefined
  if (replaces) target.remove(path)
  const owner = ownerOf(planned, target)
  switch (planned.kind) {
    case 'directory':
      return applyDirectory(planned.node, target, owner)
    case 'file':
      return applyFile(planned.node, { content, owner, bytesBefore: journal.bytesBefore(path) }, target, run)
    case 'link':
      return planned.node.hard === true
        ? applyHardLink(planned.node, target)
        : applyLink(planned.node, target, owner)
  }
}

/** The owner a node asks for; what it leaves open stays as it is, or is root's. */
function ownerOf({ node }: PlannedNode, target: TargetRoot): Owner {
  const there = lstatSync(target.place(node.path), { throwIfNoEntry: false })
  const owner: Owner = { uid: there?.uid ?? 0, gid: there?.gid ?? 0 }
  if (node.user?.id !== undefined) owner.uid = node.user.id
  else if (node.user?.name) {
    const user = findUser(target.read('/etc/passwd') ?? '', node.user.name)
    if (!user) throw new Fault('OWNER_UNKNOWN', `${node.path}: there is no user ${node.user.name}`)
    owner.uid = user.uid
  }
  if (node.group?.id !== undefined) owner.gid = node.group.id
  else if (node.group?.name) {
    const gid = findGroupId(target.read('/etc/group') ?? '', node.group.name)
    if (gid === undefined)
      throw new Fault('OWNER_UNKNOWN', `${node.path}: there is no group ${node.group.name}`)
    owner.gid = gid
  }
  return owner
}

function applyDirectory(node: IgnitionDirectory, target: TargetRoot, owner: Owner): void {
  const full = target.place(node.path)
  const there = lstatSync(full, { throwIfNoEntry: false })
  if (there && !there.isDirectory()) throw taken(node.path, 'a directory')
  if (there) target.own(node.path, owner)
  else target.folder(node.path, node.mode ?? 0o755, owner)
  if (node.mode !== undefined) chmodSync(full, node.mode)
}

/** Bytes of a file that is to be made; undefined when the one that is there stays. */
async function newContent(
  node: IgnitionFile,
  replaces: boolean,
  target: TargetRoot,
  run: Run,
): Promise<Buffer | undefined> {
  const there = lstatSync(target.place(node.path), { throwIfNoEntry: false })
  if (there && !replaces) {
    if (!there.isFile()) throw taken(node.path, 'a file')
    if (node.contents?.source === undefined) return undefined
    throw new Fault('PATH_EXISTS', `${node.path} exists already`, { remedy: 'set overwrite to replace it' })
  }
  return node.contents ? fetchResource(node.contents, run.fetcher, run.settings) : Buffer.alloc(0)
}

async function applyFile(
  node: IgnitionFile,
  how: { content: Buffer | undefined; owner: Owner; bytesBefore: number | undefined },
  target: TargetRoot,
  run: Run,
): Promise<void> {
  const { content, owner, bytesBefore } = how
  const full = target.place(node.path)
  const there = lstatSync(full, { throwIfNoEntry: false })
  const mode = node.mode ?? (there ? there.mode & 0o7777 : 0o644)
  if (content !== undefined) {
    target.write(node.path, content, mode, owner)
    run.acted(`write ${node.path}`)
  } else if (node.append?.length && bytesBefore !== undefined && there && there.size > bytesBefore) {
    // An earlier run appended to it, all or some of what is to come.
    truncateSync(full, bytesBefore)
  }
  for (const resource of node.append ?? []) {
    appendFileSync(full, await fetchResource(resource, run.fetcher, run.settings))
    run.acted(`append ${node.path}`)
  }
  target.own(node.path, owner)
  chmodSync(full, mode)
}

function applyLink(node: IgnitionLink, target: TargetRoot, owner: Owner): void {
  const full = target.place(node.path)
  const wanted = node.target ?? ''
  const there = lstatSync(full, { throwIfNoEntry: false })
  if (there) {
    const same = there.isSymbolicLink() && normalize(readlinkSync(full)) === normalize(wanted)
    if (same) return
    throw taken(node.path, `a link to ${wanted}`)
  }
  makeParents(full, target, node.path)
  symlinkSync(wanted, full)
  target.own(node.path, owner)
}

function applyHardLink(node: IgnitionLink, target: TargetRoot): void {
  const full = target.place(node.path)
  const original = target.place(node.target ?? '')
  const there = lstatSync(full, { throwIfNoEntry: false })
  const wanted = lstatSync(original, { throwIfNoEntry: false })
  if (!wanted) throw new Fault('LINK_TARGET_MISSING', `${node.path}: there is no ${node.target} to link to`)
  if (there) {
    if (there.ino === wanted.ino && there.dev === wanted.dev) return
    throw taken(node.path, `a hard link to ${node.target}`)
  }
  makeParents(full, target, node.path)
  linkSync(original, full)
}

function makeParents(full: string, target: TargetRoot, path: string): void {
  if (!lstatSync(dirname(full), { throwIfNoEntry: false })) target.folder(dirname(path), 0o755)
  else mkdirSync(dirname(full), { recursive: true })
}

const taken = (path: string, what: string): Fault =>
  new Fault('PATH_EXISTS', `${path} exists already and is not ${what}`, {
    remedy: 'set overwrite to replace it',
  })

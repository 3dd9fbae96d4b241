import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync, type Stats } from 'node:fs'
import { join } from 'node:path'
import { journalPath, madePath } from '../apply-journal.ts'
import type { RunCommand } from '../commands.ts'

export type RootChange = {
  path: string
  change: 'create' | 'change' | 'remove'
  kind: 'file' | 'directory' | 'link' | 'other'
  mode: string
  /** Unified diff of the contents, where they are text and nobody's secret. */
  diff?: string
}

const diffBytesMax = 64 * 1024
/** Written by every run; says nothing about the config. */
const ownFiles = ['/etc/.ignition-result.json', journalPath, madePath]

/**
 * What differs between a root before and after: every path below `changed` is compared. With an overlay `changed` is
 * its upper layer, which holds only what was written.
 */
export async function rootChanges(
  roots: { before: string; after: string; changed: string[] },
  command: RunCommand,
): Promise<RootChange[]> {
  const paths = new Set(roots.changed.flatMap((folder) => pathsBelow(folder)))
  const changes: RootChange[] = []
  for (const path of [...paths].sort()) {
    if (ownFiles.includes(path)) continue
    const [before, after] = [join(roots.before, path), join(roots.after, path)]
    const [was, is] = [statsOf(before), statsOf(after)]
    if (!was && !is) continue
    const about = is ?? was!
    const change = !was ? 'create' : !is ? 'remove' : 'change'
    if (was && is && same({ path: before, stats: was }, { path: after, stats: is })) continue
    const entry: RootChange = {
      path,
      change,
      kind: kindOf(about),
      mode: (about.mode & 0o7777).toString(8).padStart(4, '0'),
    }
    const diff = await contentDiff(path, was && before, is && after, command)
    changes.push(diff === undefined ? entry : { ...entry, diff })
  }
  return changes
}

function pathsBelow(folder: string): string[] {
  const found: string[] = []
  const walk = (at: string): void => {
    for (const entry of readdirSync(join(folder, at), { withFileTypes: true })) {
      const path = `${at}/${entry.name}`
      found.push(path)
      if (entry.isDirectory()) walk(path)
    }
  }
  if (existsSync(folder)) walk('')
  return found
}

const statsOf = (path: string): Stats | undefined => lstatSync(path, { throwIfNoEntry: false })

function kindOf(stats: Stats): RootChange['kind'] {
  if (stats.isFile()) return 'file'
  if (stats.isDirectory()) return 'directory'
  return stats.isSymbolicLink() ? 'link' : 'other'
}

type Place = { path: string; stats: Stats }

function same(a: Place, b: Place): boolean {
  if (a.stats.mode !== b.stats.mode || a.stats.uid !== b.stats.uid || a.stats.gid !== b.stats.gid)
    return false
  if (a.stats.isSymbolicLink()) return readlinkSync(a.path) === readlinkSync(b.path)
  if (!a.stats.isFile()) return true
  return a.stats.size === b.stats.size && readFileSync(a.path).equals(readFileSync(b.path))
}

async function contentDiff(
  path: string,
  before: string | undefined,
  after: string | undefined,
  command: RunCommand,
): Promise<string | undefined> {
  const places = [before, after].filter((each) => each !== undefined)
  const stats = places.map((each) => lstatSync(each))
  if (stats.some((each) => each.isSymbolicLink())) {
    const target = (place: string | undefined): string => (place ? readlinkOr(place) : '')
    return `${before ? `-> ${target(before)}\n` : ''}${after ? `+> ${target(after)}\n` : ''}`
  }
  if (!stats.every((each) => each.isFile())) return undefined
  if (stats.some((each) => (each.mode & 0o004) === 0))
    return '(contents are not shown: not everybody may read them)\n'
  if (stats.some(({ size }) => size > diffBytesMax)) return `(${stats.at(-1)!.size} bytes)\n`
  if (places.some((each) => readFileSync(each).includes(0))) return `(binary, ${stats.at(-1)!.size} bytes)\n`
  const names = ['--label', before ? path : '/dev/null', '--label', after ? path : '/dev/null']
  const files = [before ?? '/dev/null', after ?? '/dev/null']
  const { stdout } = await command('diff', ['-u', ...names, ...files], { accepted: [0, 1] })
  return stdout
}

const readlinkOr = (path: string): string =>
  lstatSync(path).isSymbolicLink() ? readlinkSync(path) : '(not a link)'

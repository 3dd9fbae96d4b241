import { type FSWatcher, watch } from 'node:fs'
import { mkdir, readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { describeIgnitionProblem, parseIgnition } from '@kiln/schemas'
import type { Log } from '@kiln/service'
import { isButaneName, translateConfig } from './butane-config.ts'
import { buildCatalog, type Catalog, type Problem, type SourceFile } from './catalog.ts'

/** Folders of matchbox's data directory, and ours. */
const folders = ['groups', 'profiles', 'ignition', 'generic', 'release-keys'] as const
type Folder = (typeof folders)[number]

const fileBytesMax = 8 * 1024 * 1024
const filesMax = 20_000
/** Editors write a file in several steps. */
const settleMs = 50

/** A file as it was read, with what is wrong in it. */
type CachedFile = { stamp: string; source: SourceFile; problems: readonly Problem[] }

/** A config below the data directory, or why it cannot be served. */
export type ConfigFile =
  | { kind: 'text'; text: string }
  | { kind: 'missing' }
  | { kind: 'refused'; code: string; reason: string }

/** The data directory in memory: edits by hand show within a second, unchanged files are not read again. */
export class DataDirectory {
  readonly #root: string
  readonly #log: Log
  readonly #files = new Map<Folder, Map<string, CachedFile>>(folders.map((folder) => [folder, new Map()]))
  readonly #watchers: FSWatcher[] = []
  #catalog: Catalog = buildCatalog({ groups: [], profiles: [] })
  #problems: readonly Problem[] = []
  #timers: { settle?: NodeJS.Timeout; rescan?: NodeJS.Timeout } = {}
  #reading: Promise<void> = Promise.resolve()
  #closed = false

  constructor(root: string, log: Log) {
    this.#root = root
    this.#log = log
  }

  get catalog(): Catalog {
    return this.#catalog
  }

  /** Everything wrong with the files, by name. */
  get problems(): readonly Problem[] {
    return this.#problems
  }

  /** Public keys that sign releases: file name -> PEM. */
  get releaseKeys(): ReadonlyMap<string, string> {
    const keys = new Map<string, string>()
    for (const [name, { source }] of this.#files.get('release-keys') ?? []) {
      if ('text' in source && name.endsWith('.pub')) keys.set(name, source.text)
    }
    return keys
  }

  /** Reads everything, then follows changes: by notice of the kernel, and every `rescanMs` in case one was lost. */
  async open(rescanMs: number): Promise<void> {
    for (const folder of folders) await mkdir(join(this.#root, folder), { recursive: true })
    await this.refresh()
    for (const folder of folders) {
      const watcher = watch(join(this.#root, folder), () => this.#soon())
      watcher.on('error', (error) => this.#log.warn({ folder, error }, 'watching failed, rescans continue'))
      this.#watchers.push(watcher)
    }
    this.#timers.rescan = setInterval(() => void this.refresh(), rescanMs)
  }

  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timers.settle)
    clearInterval(this.#timers.rescan)
    for (const watcher of this.#watchers) watcher.close()
    await this.#reading
  }

  /** Reads what changed; calls made meanwhile wait for their turn. */
  refresh(): Promise<void> {
    this.#reading = this.#reading.then(() => this.#scan())
    return this.#reading
  }

  /** An Ignition config by matchbox's id, as it is or translated from Butane; templates are refused. */
  ignitionConfig(id: string): ConfigFile {
    return this.#config('ignition', id)
  }

  genericConfig(id: string): ConfigFile {
    return this.#config('generic', id)
  }

  #config(folder: 'ignition' | 'generic', id: string): ConfigFile {
    const source = this.#files.get(folder)?.get(id)?.source
    if (!source) return { kind: 'missing' }
    if ('unreadable' in source)
      return { kind: 'refused', code: 'CONFIG_UNREADABLE', reason: source.unreadable }
    const reason = templateProblem(folder, id, source.text)
    if (reason) return { kind: 'refused', code: 'TEMPLATE_UNSUPPORTED', reason }
    if (folder === 'generic' || !isButaneName(id)) return { kind: 'text', text: source.text }
    const translated = translateConfig(source.text, join(this.#root, folder))
    return translated.ok
      ? { kind: 'text', text: translated.text }
      : { kind: 'refused', code: 'BUTANE_INVALID', reason: translated.reason }
  }

  #soon(): void {
    if (this.#closed) return
    clearTimeout(this.#timers.settle)
    this.#timers.settle = setTimeout(() => void this.refresh(), settleMs)
  }

  async #scan(): Promise<void> {
    try {
      let changed = false
      for (const folder of folders) changed = (await this.#scanFolder(folder)) || changed
      if (changed) this.#rebuild()
    } catch (error) {
      this.#log.error({ error }, 'data directory cannot be read')
    }
  }

  async #scanFolder(folder: Folder): Promise<boolean> {
    const known = this.#files.get(folder) as Map<string, CachedFile>
    const names = (await readdir(join(this.#root, folder))).filter((name) => isConfigName(folder, name))
    const present = new Set(names.sort().slice(0, filesMax))
    let changed = false
    for (const name of known.keys()) {
      if (!present.has(name)) changed = known.delete(name) || changed
    }
    for (const name of present) {
      const path = join(this.#root, folder, name)
      const found = await stat(path, { bigint: true }).catch(() => undefined)
      if (!found?.isFile()) {
        changed = known.delete(name) || changed
        continue
      }
      const stamp = `${found.ino}:${found.size}:${found.mtimeNs}:${found.ctimeNs}`
      if (known.get(name)?.stamp === stamp) continue
      const source = await readSource(`${folder}/${name}`, path, found.size)
      const problems = configProblems(folder, name, source, join(this.#root, folder))
      known.set(name, { stamp, source, problems })
      changed = true
    }
    return changed
  }

  #rebuild(): void {
    const sources = (folder: Folder) =>
      [...(this.#files.get(folder)?.values() ?? [])].map((file) => file.source)
    this.#catalog = buildCatalog({ groups: sources('groups'), profiles: sources('profiles') })
    this.#problems = [...this.#catalog.problems, ...this.#configProblems()]
    for (const problem of this.#problems.slice(0, 100))
      this.#log.warn(problem, 'bad file in the data directory')
    this.#log.info(
      {
        groups: this.#catalog.groups.length,
        profiles: this.#catalog.profiles.size,
        problems: this.#problems.length,
      },
      'data directory read',
    )
  }

  #configProblems(): Problem[] {
    const problems: Problem[] = []
    for (const files of this.#files.values())
      for (const file of files.values()) problems.push(...file.problems)
    for (const profile of this.#catalog.profiles.values()) {
      const { ignition_id: ignition, generic_id: generic } = profile
      for (const [folder, id] of [['ignition', ignition] as const, ['generic', generic] as const]) {
        if (id && this.#config(folder, id).kind === 'missing') {
          problems.push({ file: `profiles/${profile.id}.json`, message: `${folder}/${id} does not exist` })
        }
      }
    }
    return problems
  }
}

function isConfigName(folder: Folder, name: string): boolean {
  if (name.startsWith('.') || name.endsWith('~') || /\.new-\d+-/.test(name)) return false
  return folder === 'groups' || folder === 'profiles' ? name.endsWith('.json') : true
}

async function readSource(file: string, path: string, size: bigint): Promise<SourceFile> {
  if (size > fileBytesMax) return { file, unreadable: `larger than ${fileBytesMax} bytes` }
  try {
    return { file, text: await readFile(path, 'utf8') }
  } catch (error) {
    return { file, unreadable: `cannot be read: ${(error as NodeJS.ErrnoException).code}` }
  }
}

/** What is wrong with a config; a config of another major version is not ours to judge. */
function configProblems(folder: Folder, name: string, source: SourceFile, place: string): Problem[] {
  if (folder !== 'ignition' && folder !== 'generic') return []
  const { file } = source
  if ('unreadable' in source) return [{ file, message: source.unreadable }]
  const template = templateProblem(folder, name, source.text)
  if (template) return [{ file, message: template }]
  if (folder === 'ignition' && isButaneName(name)) {
    const translated = translateConfig(source.text, place)
    return translated.ok ? [] : [{ file, message: translated.reason }]
  }
  if (folder === 'generic' || /"version"\s*:\s*"[12]\./.test(source.text)) return []
  return parseIgnition(source.text)
    .problems.filter((problem) => problem.severity === 'error')
    .map((problem) => ({ file, message: describeIgnitionProblem(problem) }))
}

/** Matchbox's Go templates are named as what they are, and refused. */
function templateProblem(folder: 'ignition' | 'generic', name: string, text: string): string | undefined {
  const butane = isButaneName(name)
  if (folder === 'ignition' && !butane && !/\.(ign|ignition|json)$/.test(name)) {
    return 'neither an Ignition config (.ign, .json) nor a Butane config (.bu, .yaml); templates are not rendered'
  }
  if (folder === 'ignition' && butane && /\{\{-?\s*(\.|if|range|with|template)/.test(text)) {
    return 'Go templates are not rendered; a text with {{ goes into a file that the config names'
  }
  if (folder === 'generic' && text.includes('{{')) return 'Go templates are not rendered'
  return undefined
}

import { appendMade, setContents, type Translation } from './base.ts'
import { addCommonOrigin, addOrigin, type ConfigPath } from './config-path.ts'
import type { Decoded } from './decode.ts'
import { escapeMessage, type FileEntry, localPath, noFilesMessage } from './files.ts'

export const nodeExistsMessage = 'matching filesystem node has existing contents or different type'
const typeMessage = 'trees may only contain files, directories, and symlinks'

const fileModeDefault = 0o644
const executableModeDefault = 0o755
/** Entries that all trees of a config may have together. */
const entriesMax = 100_000
const depthMax = 64

/** Files, directories and links that the config has, by path. */
export class NodeIndex {
  readonly #config: Decoded
  readonly #places = new Map<string, { list: 'files' | 'directories' | 'links'; index: number }>()

  constructor(config: Decoded) {
    this.#config = config
    for (const list of ['files', 'directories', 'links'] as const) {
      const nodes = (config['storage']?.[list] ?? []) as { path: string }[]
      for (const [index, node] of nodes.entries()) this.#places.set(node.path, { list, index })
    }
  }

  has(path: string): boolean {
    return this.#places.has(path)
  }

  find(list: 'files' | 'links', path: string): { node: Decoded; index: number } | undefined {
    const place = this.#places.get(path)
    if (place?.list !== list) return undefined
    return { node: this.#config['storage'][list][place.index], index: place.index }
  }

  add(list: 'files' | 'directories' | 'links', node: Decoded, from: ConfigPath, how: Translation): number {
    const index = appendMade(this.#config, ['storage', list], node, from, how.origins)
    this.#places.set(node['path'], { list, index })
    return index
  }
}

/** `storage.trees`: everything below a local directory is copied into the config. */
export function addTrees(source: Decoded, config: Decoded, how: Translation): void {
  const trees = (source['storage']?.trees ?? []) as Decoded[]
  if (trees.length === 0) return
  const walk = new TreeWalk(new NodeIndex(config), how)
  for (const [index, tree] of trees.entries()) {
    const at: ConfigPath = ['storage', 'trees', index]
    if (!how.files) {
      how.findings.push({ space: 'yaml', severity: 'error', path: at, message: noFilesMessage })
      return
    }
    walk.tree(tree, at)
  }
}

class TreeWalk {
  readonly #nodes: NodeIndex
  readonly #how: Translation
  #entries = 0

  constructor(nodes: NodeIndex, how: Translation) {
    this.#nodes = nodes
    this.#how = how
  }

  tree(tree: Decoded, at: ConfigPath): undefined {
    const local = localPath(tree['local'] ?? '')
    if (local === undefined) return this.#fail(at, escapeMessage)
    this.#directory({ tree, at, local, target: tree['path'] || '/', depth: 0 })
  }

  #directory(place: {
    tree: Decoded
    at: ConfigPath
    local: string
    target: string
    depth: number
  }): undefined {
    const { tree, at, local, target, depth } = place
    if (depth > depthMax) return this.#fail(at, `${local} is nested deeper than ${depthMax}`)
    const read = this.#how.files!.list(local)
    if (!read.ok) return this.#fail(at, depth === 0 ? read.message : `${local}: ${read.message}`)
    this.#addDirectory(tree, at, cleanTarget(target))
    for (const entry of read.entries.toSorted((a, b) => compareBytes(a.name, b.name))) {
      if (++this.#entries > entriesMax) {
        if (this.#entries === entriesMax + 1) this.#fail(at, `has more than ${entriesMax} entries`)
        return
      }
      const inner = {
        local: local === '' ? entry.name : `${local}/${entry.name}`,
        target: cleanTarget(`${target}/${entry.name}`),
      }
      if (entry.kind === 'directory') this.#directory({ tree, at, ...inner, depth: depth + 1 })
      else this.#add(entry, tree, at, inner)
    }
  }

  #add(entry: FileEntry, tree: Decoded, at: ConfigPath, inner: { local: string; target: string }): void {
    if (entry.kind === 'file') this.#addFile(tree, at, { ...inner, executable: entry.executable })
    else if (entry.kind === 'link') this.#addLink(tree, at, inner.target, entry.target)
    else this.#fail(at, typeMessage)
  }

  /** A directory of its own is needed only where it shall differ from what Ignition makes by itself. */
  #addDirectory(tree: Decoded, at: ConfigPath, path: string): undefined {
    const owners = ownersOf(tree)
    if (tree['dir_mode'] === undefined && Object.keys(owners).length === 0) return
    if (this.#nodes.has(path)) return this.#fail(at, nodeExistsMessage)
    const node = { path, ...owners, mode: tree['dir_mode'] ?? executableModeDefault }
    this.#nodes.add('directories', node, at, this.#how)
  }

  #addFile(
    tree: Decoded,
    at: ConfigPath,
    file: { local: string; target: string; executable: boolean },
  ): undefined {
    let found = this.#nodes.find('files', file.target)
    if (found ? found.node['contents']?.source : this.#nodes.has(file.target)) {
      return this.#fail(at, nodeExistsMessage)
    }
    const read = this.#how.files!.read(file.local)
    if (!read.ok) return this.#fail(at, read.message)
    if (!found) {
      const node: Decoded = { path: file.target, ...ownersOf(tree) }
      found = { node, index: this.#nodes.add('files', node, at, this.#how) }
    }
    const to = ['storage', 'files', found.index]
    found.node['contents'] ??= {}
    const contents = found.node['contents'] as Decoded
    setContents(contents, read.bytes, this.#how)
    addCommonOrigin(this.#how.origins, at, [...to, 'contents'], contents)
    if (found.node['mode'] === undefined) {
      found.node['mode'] = tree['file_mode'] ?? (file.executable ? executableModeDefault : fileModeDefault)
      addOrigin(this.#how.origins, at, [...to, 'mode'])
    }
  }

  #addLink(tree: Decoded, at: ConfigPath, path: string, target: string): undefined {
    let found = this.#nodes.find('links', path)
    if (found ? found.node['target'] : this.#nodes.has(path)) return this.#fail(at, nodeExistsMessage)
    if (!found) {
      const node: Decoded = { path, ...ownersOf(tree) }
      found = { node, index: this.#nodes.add('links', node, at, this.#how) }
    }
    found.node['target'] = target
    addOrigin(this.#how.origins, at, ['storage', 'links', found.index, 'target'])
  }

  #fail(path: ConfigPath, message: string): undefined {
    this.#how.findings.push({ space: 'yaml', severity: 'error', path, message })
  }
}

function ownersOf(tree: Decoded): Decoded {
  const owners: Decoded = {}
  for (const name of ['user', 'group']) {
    const owner = tree[name] as Decoded | undefined
    if (owner && Object.keys(owner).length > 0) owners[name] = { ...owner }
  }
  return owners
}

/** Collapses what is written twice, but keeps a path that does not begin at the root for the check to refuse. */
function cleanTarget(path: string): string {
  const clean: string[] = []
  for (const part of path.split('/')) {
    if (part === '' || part === '.') continue
    if (part === '..' && clean.length > 0 && clean.at(-1) !== '..') clean.pop()
    else if (part !== '..' || !path.startsWith('/')) clean.push(part)
  }
  return path.startsWith('/') ? `/${clean.join('/')}` : clean.join('/')
}

const compareBytes = (one: string, other: string): number =>
  Buffer.compare(Buffer.from(one, 'utf8'), Buffer.from(other, 'utf8'))

import type { IgnitionConfig } from './ignition.ts'

/**
 * Key of the entries of each keyed list, by the list's path without indices (Ignition, "config merging"). Lists that
 * are neither here nor in `valueLists` are concatenated.
 */
const listKeys: Record<string, (entry: Record<string, unknown>) => string> = {
  'ignition.config.merge': (entry) => text(entry['source']),
  'ignition.security.tls.certificateAuthorities': (entry) => text(entry['source']),
  'storage.disks': (entry) => text(entry['device']),
  'storage.disks.partitions': (entry) =>
    Number(entry['number'] ?? 0) !== 0
      ? `number:${entry['number']}`
      : entry['label'] === undefined
        ? ''
        : `label:${text(entry['label'])}`,
  'storage.raid': (entry) => text(entry['name']),
  'storage.luks': (entry) => text(entry['name']),
  'storage.luks.clevis.tang': (entry) => text(entry['url']),
  'storage.filesystems': (entry) => text(entry['device']),
  'storage.files': (entry) => text(entry['path']),
  'storage.directories': (entry) => text(entry['path']),
  'storage.links': (entry) => text(entry['path']),
  'systemd.units': (entry) => text(entry['name']),
  'systemd.units.dropins': (entry) => text(entry['name']),
  'passwd.users': (entry) => text(entry['name']),
  'passwd.groups': (entry) => text(entry['name']),
}

/** Lists of plain strings that hold a value at most once: the string is the key. */
const valueLists = new Set([
  'passwd.users.sshAuthorizedKeys',
  'passwd.users.groups',
  'kernelArguments.shouldExist',
  'kernelArguments.shouldNotExist',
  'storage.raid.devices',
  'storage.luks.openOptions',
  'ignition.proxy.noProxy',
])

/** Lists that share one key space: an entry of the child removes the parent's entry of the same key in the others. */
const sharedKeys: string[][] = [
  ['storage.directories', 'storage.files', 'storage.links'],
  ['kernelArguments.shouldExist', 'kernelArguments.shouldNotExist'],
]

/**
 * Ignition's merge: the child wins field by field, structures merge recursively, keyed lists merge by key in the
 * parent's order with new entries behind, other lists are concatenated.
 */
export function mergeIgnition(parent: IgnitionConfig, child: IgnitionConfig): IgnitionConfig {
  const merged = mergeObject(parent, child, '') as IgnitionConfig
  merged.ignition.version = laterVersion(parent.ignition.version, child.ignition.version)
  return merged
}

/** How the entries of a keyed list are told apart; undefined when the list at this path has no keys. */
export function entryKey(listPath: string, entry: unknown): string | undefined {
  if (valueLists.has(listPath)) return text(entry)
  if (typeof entry !== 'object' || entry === null) return undefined
  if (listPath.endsWith('.httpHeaders')) return text((entry as { name?: unknown }).name)
  return listKeys[listPath]?.(entry as Record<string, unknown>)
}

/** The group of lists whose keys must differ from those at `listPath`, itself included. */
export function keySpace(listPath: string): string[] {
  return sharedKeys.find((group) => group.includes(listPath)) ?? [listPath]
}

function mergeObject(parent: object, child: object, path: string): object {
  const kept = withoutShadowed(parent as Record<string, unknown>, child as Record<string, unknown>, path)
  const merged: Record<string, unknown> = { ...kept }
  for (const [key, value] of Object.entries(child)) {
    if (value === undefined) continue
    merged[key] = mergeValue(kept[key], value, path === '' ? key : `${path}.${key}`)
  }
  return merged
}

function mergeValue(parent: unknown, child: unknown, path: string): unknown {
  if (Array.isArray(child)) return mergeList(Array.isArray(parent) ? parent : [], child, path)
  if (isObject(child) && isObject(parent)) return mergeObject(parent, child, path)
  return child
}

function mergeList(parent: unknown[], child: unknown[], path: string): unknown[] {
  if (child.length === 0) return parent
  if (entryKey(path, child[0]) === undefined) return [...parent, ...child]
  const merged = new Map<string, unknown>(parent.map((entry) => [entryKey(path, entry)!, entry]))
  for (const entry of child) {
    const key = entryKey(path, entry)!
    // Where the parent has no such header, the deletion stays: the config may itself be merged into another.
    const deletes = path.endsWith('.httpHeaders') && (entry as { value?: string }).value === undefined
    if (deletes && merged.has(key)) {
      merged.delete(key)
    } else {
      merged.set(key, merged.has(key) ? mergeValue(merged.get(key), entry, path) : entry)
    }
  }
  return [...merged.values()]
}

/** The parent without the entries that the child declares in another list of the same key space. */
function withoutShadowed(
  parent: Record<string, unknown>,
  child: Record<string, unknown>,
  path: string,
): Record<string, unknown> {
  const space = sharedKeys.find((group) =>
    group.some((list) => list.slice(0, list.lastIndexOf('.')) === path),
  )
  if (!space) return parent
  const kept = { ...parent }
  for (const list of space) {
    const name = list.slice(list.lastIndexOf('.') + 1)
    const entries = kept[name]
    if (!Array.isArray(entries)) continue
    const taken = new Set(
      space
        .filter((other) => other !== list)
        .flatMap((other) => {
          const others = child[other.slice(other.lastIndexOf('.') + 1)]
          return Array.isArray(others) ? others.map((entry) => entryKey(other, entry)) : []
        }),
    )
    kept[name] = entries.filter((entry) => !taken.has(entryKey(list, entry)))
  }
  return kept
}

const laterVersion = (one: string, other: string): string => (one > other ? one : other)
const isObject = (value: unknown): value is object =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
const text = (value: unknown): string => (typeof value === 'string' ? value : '')

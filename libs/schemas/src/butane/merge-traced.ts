import { entryKey, keySpace } from '../ignition-merge.ts'
import { addOrigin, type ConfigPath, type Origins, pathKey } from './config-path.ts'

type Side = { value: unknown; path: ConfigPath }
export type Traced = { config: Record<string, unknown>; origins: Origins }

/**
 * Ignition's merge of a config that sugar made (the parent) with what the user wrote (the child), told apart down to
 * each value: the child's origin counts where both have one. Unlike the merge of whole configs it keeps what is
 * duplicate in one of them, so that the user hears of it.
 */
export function mergeTraced(parent: Traced, child: Traced): Traced {
  const origins: Origins = new Map()
  const tracer = new Tracer(parent.origins, child.origins, origins)
  const config = tracer.merge(
    { value: parent.config, path: [] },
    { value: child.config, path: [] },
    [],
  ) as Record<string, unknown>
  return { config, origins }
}

const listPath = (path: ConfigPath): string => path.filter((part) => typeof part === 'string').join('.')
const absent = (path: ConfigPath): Side => ({ value: undefined, path })

class Tracer {
  readonly #parents: Origins
  readonly #children: Origins
  readonly #result: Origins

  constructor(parents: Origins, children: Origins, result: Origins) {
    this.#parents = parents
    this.#children = children
    this.#result = result
  }

  merge(parent: Side, child: Side, path: ConfigPath): unknown {
    if (parent.value === undefined && child.value === undefined) return undefined
    const merged = this.#merged(parent, child, path)
    const origin =
      (child.value === undefined ? undefined : this.#children.get(pathKey(child.path))) ??
      (parent.value === undefined ? undefined : this.#parents.get(pathKey(parent.path)))
    if (origin) addOrigin(this.#result, origin, path)
    return merged
  }

  #merged(parent: Side, child: Side, path: ConfigPath): unknown {
    const sample = child.value ?? parent.value
    if (Array.isArray(sample)) return this.#list(parent, child, path)
    if (typeof sample !== 'object' || sample === null) return sample
    const sides = [parent, child].map((side) => (side.value ?? {}) as Record<string, unknown>)
    const keys = new Set([...Object.keys(sides[0]!), ...Object.keys(sides[1]!)])
    const merged: Record<string, unknown> = {}
    for (const key of keys) {
      const lists = { value: sides[0]![key], path: [...parent.path, key] }
      const kept = this.#withoutShadowed(lists, sides[1]!, [...path, key])
      const value = this.merge(kept, { value: sides[1]![key], path: [...child.path, key] }, [...path, key])
      if (value !== undefined) merged[key] = value
    }
    return merged
  }

  #list(parent: Side, child: Side, path: ConfigPath): unknown[] {
    const name = listPath(path)
    const parents = ((parent.value ?? []) as unknown[]).map((value, index) => ({
      value,
      path: [...parent.path, index],
    }))
    const children = ((child.value ?? []) as unknown[]).map((value, index) => ({
      value,
      path: [...child.path, index],
    }))
    const merged: unknown[] = []
    const taken = new Set<string>()
    for (const entry of parents) {
      if (entry.value === undefined) continue
      const key = entryKey(name, entry.value)
      const match =
        key === undefined ? undefined : children.findLast(({ value }) => entryKey(name, value) === key)
      if (match) taken.add(key!)
      const at = [...path, merged.length]
      merged.push(this.merge(entry, match ?? absent(entry.path), at))
    }
    for (const entry of children) {
      const key = entryKey(name, entry.value)
      if (key !== undefined && taken.has(key)) continue
      merged.push(this.merge(absent(entry.path), entry, [...path, merged.length]))
    }
    return merged
  }

  /** A parent's entry gives way to a child's of the same key in another list of the key space. */
  #withoutShadowed(parent: Side, child: Record<string, unknown>, path: ConfigPath): Side {
    if (!Array.isArray(parent.value)) return parent
    const name = listPath(path)
    const shadows = new Set(
      keySpace(name)
        .filter((other) => other !== name)
        .flatMap((other) => {
          const entries = child[other.slice(other.lastIndexOf('.') + 1)]
          return Array.isArray(entries) ? entries.map((entry) => entryKey(other, entry)) : []
        }),
    )
    if (shadows.size === 0) return parent
    // Places stay, so that the paths of the entries that are kept stay true.
    const value = parent.value.map((entry) => (shadows.has(entryKey(name, entry)) ? undefined : entry))
    return { ...parent, value }
  }
}

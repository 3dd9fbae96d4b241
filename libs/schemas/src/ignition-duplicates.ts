import type { IgnitionPath, Report } from './ignition-finding.ts'
import { entryKey, keySpace } from './ignition-merge.ts'

/** Lists with keys hold a key once; directories, files and links share their keys, and so do both lists of arguments. */
export function checkDuplicates(value: unknown, path: IgnitionPath, report: Report): void {
  if (typeof value !== 'object' || value === null) return
  for (const [name, child] of Object.entries(value)) {
    const childPath = [...path, name]
    if (!Array.isArray(child)) {
      checkDuplicates(child, childPath, report)
      continue
    }
    const list = childPath.filter((part) => typeof part === 'string').join('.')
    const space = keySpace(list)
    const earlier = space.slice(0, space.indexOf(list)).flatMap((other) => {
      const entries = (value as Record<string, unknown>)[other.slice(other.lastIndexOf('.') + 1)]
      return Array.isArray(entries) ? entries.map((entry) => entryKey(other, entry)) : []
    })
    const keys = child.map((entry) => entryKey(list, entry))
    for (const index of duplicateEntries(keys, earlier)) {
      report('error', [...childPath, index], 'duplicate entry defined')
    }
    for (const [index, entry] of child.entries()) checkDuplicates(entry, [...childPath, index], report)
  }
}

/** Places of the entries whose key was there before, in the list or among `earlier`. */
export function duplicateEntries(
  keys: (string | undefined)[],
  earlier: Iterable<string | undefined> = [],
): number[] {
  const seen = new Set(earlier)
  return [...keys.entries()].flatMap(([index, key]) => {
    if (key === undefined) return []
    const before = seen.has(key)
    seen.add(key)
    return before ? [index] : []
  })
}

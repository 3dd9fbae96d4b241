import type { RankedGroup } from './catalog.ts'
import type { Labels } from './labels.ts'

/**
 * matchbox's `/metadata`: a line `KEY=value` for each scalar of the group's metadata and selectors and of the request,
 * nested keys joined by `_`, arrays left out. Sorted, so that the same machine gets the same bytes.
 */
export function metadataText(group: RankedGroup, labels: Labels): string {
  const variables = new Map<string, string>()
  const { kiln: _kiln, ...metadata } = group.metadata ?? {}
  collect(variables, [], metadata)
  for (const [key, value] of group.selectors) variables.set(variableName([key]), value)
  for (const [key, value] of labels) variables.set(variableName(['request', 'query', key]), value)
  return [...variables]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, value]) => `${name}=${value.replaceAll(/[\r\n]/g, ' ')}\n`)
    .join('')
}

function collect(into: Map<string, string>, path: string[], value: unknown): void {
  if (Array.isArray(value) || value === null || value === undefined || path.length > 16) return
  if (typeof value === 'object') {
    for (const [key, inner] of Object.entries(value)) collect(into, [...path, key], inner)
  } else {
    into.set(variableName(path), String(value))
  }
}

const variableName = (path: string[]): string =>
  path
    .join('_')
    .toUpperCase()
    .replaceAll(/[^A-Z0-9_]/g, '_')

import type { ConfigPath, Finding } from './config-path.ts'

/**
 * Findings about sections of a config that a variant's machines cannot follow. `filters` maps the path of a section,
 * without indices, to the reason; one finding for each place that has something there.
 */
export function findFiltered(config: object, filters: Readonly<Record<string, string>>): Finding[] {
  return Object.entries(filters).flatMap(([filter, message]) =>
    placesOf(config, filter.split('.'), []).map(
      (path): Finding => ({ space: 'json', severity: 'error', path, message }),
    ),
  )
}

function placesOf(value: unknown, rest: readonly string[], path: ConfigPath): ConfigPath[] {
  const [name, ...deeper] = rest
  if (name === undefined) return isEmpty(value) ? [] : [path]
  if (Array.isArray(value)) {
    return value.flatMap((item, index) => placesOf(item, rest, [...path, index]))
  }
  if (typeof value !== 'object' || value === null) return []
  return placesOf((value as Record<string, unknown>)[name], deeper, [...path, name])
}

/** The empty string is what sugar leaves where it chose nothing. */
function isEmpty(value: unknown): boolean {
  if (value === undefined || value === null || value === '') return true
  if (Array.isArray(value)) return value.length === 0
  return typeof value === 'object' && Object.values(value).every(isEmpty)
}

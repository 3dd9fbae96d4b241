import type { ConfigPath, Finding } from './config-path.ts'

/**
 * Findings about sections of a config that a variant's machines cannot follow. `filters` maps the path of a section,
 * without indices, to the reason; one finding for each place that has something there.
 */
export function findFiltered(config: object, filters: Readonly<Record<string, string>>): Finding[] {
  return Object.entries(filters).flatMap(([filter, message]) =>
    placesOf(config, filter.split('.'), [], filter === leftBySugar).map(
      (path): Finding => ({ space: 'json', severity: 'error', path, message }),
    ),
  )
}

/** Sugar leaves the empty string here where it chose nothing; anywhere else it is something. */
const leftBySugar = 'storage.files.contents.compression'

function placesOf(
  value: unknown,
  rest: readonly string[],
  path: ConfigPath,
  emptyText: boolean,
): ConfigPath[] {
  const [name, ...deeper] = rest
  if (name === undefined) return isEmpty(value) || (emptyText && value === '') ? [] : [path]
  if (Array.isArray(value)) {
    return value.flatMap((item, index) => placesOf(item, rest, [...path, index], emptyText))
  }
  if (typeof value !== 'object' || value === null) return []
  return placesOf((value as Record<string, unknown>)[name], deeper, [...path, name], emptyText)
}

function isEmpty(value: unknown): boolean {
  if (value === undefined || value === null) return true
  if (Array.isArray(value)) return value.length === 0
  return typeof value === 'object' && Object.values(value).every(isEmpty)
}

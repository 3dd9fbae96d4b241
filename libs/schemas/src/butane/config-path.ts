/** Keys and indices from the top of a document, either the YAML source or the Ignition config made from it. */
export type ConfigPath = readonly (string | number)[]

/** `storage.files.0.path`: how a path is looked up. */
export const pathKey = (path: ConfigPath): string => path.join('.')

/** `$.storage.files.0.path`: how a path is reported. */
export const showPath = (path: ConfigPath): string => ['$', ...path].join('.')

/** `sizeMiB` to `size_mib`. */
export const snake = (name: string): string => name.replaceAll(/MiB|[A-Z]/g, '_$&').toLowerCase()

/** `size_mib` to `sizeMiB`. */
export const camel = (name: string): string =>
  name.replace(/_mib$/, 'MiB').replaceAll(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())

export const snakePath = (path: ConfigPath): ConfigPath =>
  path.map((part) => (typeof part === 'string' ? snake(part) : part))

/** Where in the source each value of the config came from, by the value's path. */
export type Origins = Map<string, ConfigPath>

export function addOrigin(origins: Origins, from: ConfigPath, to: ConfigPath): void {
  origins.set(pathKey(to), from)
}

/** Everything in `value`, which stands at `to`, was made by one place of the source. */
export function addCommonOrigin(origins: Origins, from: ConfigPath, to: ConfigPath, value: unknown): void {
  addOrigin(origins, from, to)
  if (typeof value !== 'object' || value === null) return
  for (const [key, child] of Object.entries(value)) {
    if (child !== undefined) {
      addCommonOrigin(origins, from, [...to, Array.isArray(value) ? Number(key) : key], child)
    }
  }
}

export type Severity = 'error' | 'warning'

/** A finding about the source (`yaml`) or about what was made of it (`json`), not yet placed in the text. */
export type Finding = {
  space: 'yaml' | 'json'
  severity: Severity
  path: ConfigPath
  message: string
  /** The finding is about the last key of the path itself, not about its value. */
  onKey?: boolean
}

export type Report = (severity: Severity, path: ConfigPath, message: string) => void

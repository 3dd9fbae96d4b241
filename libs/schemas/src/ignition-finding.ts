/** Keys and indices from the top of the config. */
export type IgnitionPath = (string | number)[]
export type IgnitionFinding = {
  path: IgnitionPath
  severity: 'error' | 'warning'
  message: string
  /** About the key at the path, not about its value. */
  atKey?: boolean
}
export type Report = (severity: 'error' | 'warning', path: IgnitionPath, message: string) => void

/** What is wrong with an absolute path, if anything. */
export function pathProblem(path: string): string | undefined {
  if (path === '') return 'path not specified'
  if (!path.startsWith('/')) return 'path not absolute'
  const clean = path === '/' || path.split('/').every((part, at) => (at === 0 ? part === '' : isName(part)))
  return clean ? undefined : 'path not fully simplified'
}

const isName = (part: string): boolean => part !== '' && part !== '.' && part !== '..'

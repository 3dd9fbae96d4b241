import { readFileSync } from 'node:fs'

/** The part of npm's lock file (version 3) and of its hidden twin in node_modules that says what a package is. */
export type Lock = { packages: Record<string, { version?: string; integrity?: string; link?: boolean }> }

/**
 * What is installed but not as the committed lock file says, a line each. The lock may name more than is installed:
 * optional packages of other platforms, which some registries lack.
 */
export function lockProblems(committed: Lock, installed: Lock): string[] {
  const problems: string[] = []
  for (const [path, found] of Object.entries(installed.packages)) {
    if (path === '' || found.link === true || !path.includes('node_modules/')) continue
    const wanted = committed.packages[path]
    if (wanted === undefined) problems.push(`${path} ${found.version} is not in package-lock.json`)
    else if (wanted.version !== found.version)
      problems.push(`${path}: ${wanted.version} is locked, ${found.version} came`)
    else if (wanted.integrity !== found.integrity)
      problems.push(`${path} ${found.version}: the integrity differs`)
  }
  return problems
}

/** Compares the two lock files of the repository at `root`; used by the `kiln` script after `npm install`. */
export function checkInstalled(root: string): string[] {
  const read = (path: string) => JSON.parse(readFileSync(`${root}/${path}`, 'utf8')) as Lock
  return lockProblems(read('package-lock.json'), read('node_modules/.package-lock.json'))
}

if (import.meta.main) {
  const problems = checkInstalled(process.argv[2] ?? '.')
  for (const problem of problems.slice(0, 20)) process.stderr.write(`kiln: ${problem}\n`)
  process.exitCode = problems.length > 0 ? 1 : 0
}

import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const root = join(import.meta.dirname, '../../../..')

/** The last commit whose kiln-kv knows only store version 1: what a machine would fall back to. */
export const previousCommit = '1a45aea'

export type PreviousProgram = { main: string; remove(): void }

/**
 * The sources of the previous program, from this repository's history, beside the packages that are installed here.
 * A text says why it cannot be had.
 */
export function previousProgram(): PreviousProgram | string {
  const git = (...args: string[]): Buffer =>
    execFileSync('git', ['-C', root, ...args], { stdio: ['ignore', 'pipe', 'ignore'], maxBuffer: 256 << 20 })
  try {
    git('cat-file', '-e', `${previousCommit}^{commit}`)
  } catch {
    return `commit ${previousCommit} is not in this clone's history`
  }
  const folder = mkdtempSync(join(tmpdir(), 'kiln-previous-'))
  execFileSync('tar', ['-x', '-C', folder], {
    input: git('archive', previousCommit, 'apps/kv', 'libs', 'package.json'),
  })
  linkModules(join(root, 'node_modules'), join(folder, 'node_modules'))
  mkdirSync(join(folder, 'node_modules/@kiln'))
  for (const lib of ['apps', 'libs'].flatMap((area) =>
    readdirSync(join(folder, area)).map((name) => join(area, name)),
  )) {
    const { name } = JSON.parse(readFileSync(join(folder, lib, 'package.json'), 'utf8')) as { name: string }
    symlinkSync(join(folder, lib), join(folder, 'node_modules', name))
    const own = join(root, lib, 'node_modules')
    if (existsSync(own)) linkModules(own, join(folder, lib, 'node_modules'))
  }
  return {
    main: join(folder, 'apps/kv/src/main.ts'),
    remove: () => rmSync(folder, { recursive: true, force: true }),
  }
}

/** A folder of links to the packages of another; the project's own packages are left out. */
function linkModules(from: string, to: string): void {
  mkdirSync(to, { recursive: true })
  for (const name of readdirSync(from)) {
    if (name !== '@kiln') symlinkSync(join(from, name), join(to, name))
  }
}

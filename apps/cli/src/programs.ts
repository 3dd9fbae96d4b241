import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Fault } from '@kiln/service'

/** Programs of Kiln that the command line starts, and the app each is. */
const apps = {
  'kiln-boot': 'boot',
  'kiln-kv': 'kv',
  'kiln-ignition': 'ignition',
  'kiln-runtime': 'runtime',
  'kiln-update': 'update',
} as const

export type ProgramName = keyof typeof apps

const here = dirname(fileURLToPath(import.meta.url))

/** Root of the repository when this runs from source; a bundle has none. */
export function repositoryRoot(): string | undefined {
  const root = join(here, '../../..')
  return here.endsWith(join('apps', 'cli', 'src')) && existsSync(join(root, 'package.json'))
    ? root
    : undefined
}

/** The repository, for commands that build or test it. */
export function requireRepository(): string {
  const root = repositoryRoot()
  if (root) return root
  throw new Fault('NO_REPOSITORY', 'this command works in the source repository only', {
    remedy: 'clone it and run ./kiln there',
  })
}

/** How to start a program: from source, or the launcher that belongs to this bundle. */
export function programCommand(name: ProgramName): { command: string; args: string[] } {
  const root = repositoryRoot()
  if (root) return { command: process.execPath, args: [join(root, 'apps', apps[name], 'src/main.ts')] }
  return { command: join(here, '../bin', name), args: [] }
}

/** How to start this very program again. */
export function selfCommand(): { command: string; args: string[] } {
  return { command: process.execPath, args: [process.argv[1] ?? ''] }
}

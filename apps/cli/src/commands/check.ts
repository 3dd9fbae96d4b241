import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { Fault } from '@kiln/service'
import { requireRepository } from '../programs.ts'
import type { CommandContext } from './context.ts'

/** `kiln check`: format and lint, types, layout. All run, so that all problems show at once. */
export async function check(context: CommandContext): Promise<void> {
  const root = requireRepository()
  const bin = (name: string): string => join(root, 'node_modules/.bin', name)
  const checks: [string, string, string[]][] = [
    ['format and lint', bin('biome'), ['check', '--error-on-warnings', '.']],
    ['types', bin('tsc'), ['-b']],
    ['layout', process.execPath, [join(root, 'tools/tidy/src/main.ts')]],
  ]
  const failed: string[] = []
  for (const [title, command, args] of checks) {
    const started = performance.now()
    const code = await new Promise<number | null>((resolve, reject) => {
      const child = spawn(command, args, { cwd: root, stdio: 'inherit' })
      child.once('error', reject)
      child.once('exit', resolve)
    })
    const seconds = ((performance.now() - started) / 1000).toFixed(1)
    context.print(`${code === 0 ? 'ok     ' : 'FAILED '} ${title} (${seconds} s)`)
    if (code !== 0) failed.push(title)
  }
  if (failed.length > 0) throw new Fault('CHECK_FAILED', `not as it should be: ${failed.join(', ')}`)
}

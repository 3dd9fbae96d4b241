import { spawn } from 'node:child_process'
import { appendFileSync } from 'node:fs'
import { join } from 'node:path'
import { Fault } from '@kiln/service'

/** Root of the repository, which has the sources of the programs. */
export const repositoryRoot = join(import.meta.dirname, '../..')

export type CommandResult = { code: number; stdout: string; stderr: string }

export type CommandOptions = {
  signal: AbortSignal
  /** File that what it says is added to. */
  logPath?: string
  /** Answers a refusal instead of throwing it. */
  mayFail?: boolean
}

const outputBytesMax = 16 * 1024 * 1024

/** Runs a program to its end; a code other than 0 is `COMMAND_FAILED` with the last thing it said. */
export async function runCommand(
  command: string,
  args: readonly string[],
  options: CommandOptions,
): Promise<CommandResult> {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], cwd: repositoryRoot })
  const said = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8')
    child[name].on('data', (chunk: string) => {
      if (said[name].length < outputBytesMax) said[name] += chunk
      if (options.logPath) appendFileSync(options.logPath, chunk)
    })
  }
  // Asked to end, so that it can take its machines with it.
  const abort = (): void => void child.kill('SIGTERM')
  if (options.signal.aborted) abort()
  options.signal.addEventListener('abort', abort, { once: true })
  try {
    const code = await new Promise<number>((resolve, reject) => {
      child.once('error', (cause) =>
        reject(new Fault('COMMAND_FAILED', `${command} cannot be started`, { cause })),
      )
      child.once('close', (exit, signal) => resolve(exit ?? (signal ? 128 : 1)))
    })
    if (options.signal.aborted) throw new Fault('CANCELLED', 'the story was ended')
    if (code !== 0 && !options.mayFail) {
      const words = said.stderr.trim().split('\n').slice(-3).join(' ')
      throw new Fault('COMMAND_FAILED', `${[command, ...args].join(' ')} ended with ${code}: ${words}`)
    }
    return { code, ...said }
  } finally {
    options.signal.removeEventListener('abort', abort)
  }
}

/** Runs `kiln`, as an operator would. */
export function kiln(args: readonly string[], options: CommandOptions): Promise<CommandResult> {
  return runCommand(process.execPath, [join(repositoryRoot, 'apps/cli/src/main.ts'), ...args], options)
}

/** Runs a command of `kiln-boot` that is no daemon. */
export function kilnBoot(args: readonly string[], options: CommandOptions): Promise<CommandResult> {
  return runCommand(process.execPath, [join(repositoryRoot, 'apps/boot/src/main.ts'), ...args], options)
}

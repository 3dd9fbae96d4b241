import { spawn } from 'node:child_process'
import { Fault } from '@kiln/service'
import { type ProgramName, programCommand } from '../programs.ts'
import type { CommandContext } from './context.ts'

/** Runs a command of another program with this terminal and answers its exit code; the end is handed on to it. */
export function runProgram(
  name: ProgramName,
  argv: readonly string[],
  { signal, environment }: CommandContext,
): Promise<number> {
  const { command, args } = programCommand(name)
  return new Promise((resolve, reject) => {
    const child = spawn(command, [...args, ...argv], { stdio: 'inherit', env: environment })
    const stop = (): void => void child.kill('SIGTERM')
    signal.addEventListener('abort', stop, { once: true })
    child.once('error', (cause) =>
      reject(new Fault('PROGRAM_MISSING', `${name} cannot be started`, { cause })),
    )
    child.once('exit', (code) => {
      signal.removeEventListener('abort', stop)
      resolve(code ?? 1)
    })
  })
}

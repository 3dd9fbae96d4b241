import { spawn } from 'node:child_process'
import { Fault } from '@kiln/service'

/** Bytes of a command's output that are kept for its caller or for its error. */
const outputMax = 64 << 20

/** Runs a program to its end and returns what it printed. A missing program or a failure is a Fault that names it. */
export function run(
  program: string,
  args: readonly string[],
  options: { cwd?: string; env?: NodeJS.ProcessEnv } = {},
): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] })
    const out: Buffer[] = []
    let size = 0
    let errors = ''
    child.stdout.on('data', (chunk: Buffer) => {
      size += chunk.length
      if (size <= outputMax) out.push(chunk)
    })
    child.stderr.on('data', (chunk: Buffer) => {
      errors = (errors + chunk.toString('utf8')).slice(-4000)
    })
    child.once('error', (cause) =>
      reject(new Fault('COMMAND_MISSING', `cannot run ${program}`, { cause, remedy: 'install its package' })),
    )
    child.once('close', (code, signal) => {
      if (code === 0) return resolve(Buffer.concat(out).toString('utf8'))
      const lastLines = errors.trim().split('\n').slice(-5).join('; ')
      reject(
        new Fault('COMMAND_FAILED', `${program} ${args.slice(0, 3).join(' ')} ended with ${code ?? signal}`, {
          cause: new Error(lastLines || 'it printed nothing'),
        }),
      )
    })
  })
}

import { spawn } from 'node:child_process'
import { Fault } from '@kiln/service'

/** Runs a program of the image and gives its output; a port, so that tests can watch. */
export type RunCommand = (
  command: string,
  args: string[],
  options?: { input?: string; accepted?: number[] },
) => Promise<{ code: number; stdout: string }>

const outputMax = 1024 * 1024
const messageMax = 400

/** Throws `COMMAND_FAILED` with what the program said when its exit code is not accepted. */
export const runCommand: RunCommand = (command, args, options = {}) =>
  new Promise((resolve, reject) => {
    const line = [command, ...args].join(' ')
    const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'] })
    let stdout = ''
    let stderr = ''
    child.stdout.on('data', (chunk: Buffer) => {
      if (stdout.length < outputMax) stdout += chunk.toString('utf8')
    })
    child.stderr.on('data', (chunk: Buffer) => {
      if (stderr.length < outputMax) stderr += chunk.toString('utf8')
    })
    child.on('error', (cause) =>
      reject(
        new Fault('COMMAND_MISSING', `${command} cannot be run`, {
          cause,
          remedy: `add ${command} to the image`,
        }),
      ),
    )
    child.on('close', (code, signal) => {
      if (code !== null && (options.accepted ?? [0]).includes(code)) return resolve({ code, stdout })
      const said = stderr.trim().replaceAll(/\s+/g, ' ').slice(0, messageMax)
      reject(new Fault('COMMAND_FAILED', `${line} ended with ${signal ?? code}: ${said}`))
    })
    // A program that ends before it has read everything says so with its exit code.
    child.stdin.on('error', () => undefined)
    child.stdin.end(options.input ?? '')
  })

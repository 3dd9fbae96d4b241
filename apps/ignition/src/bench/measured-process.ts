import { spawn } from 'node:child_process'

const processMs = 60_000

/** Time of a program and of all that it started. */
export type Measured = { wallMs: number; cpuMs: number }

/** Runs a program to its end; throws with what it said when that is not exit code 0. */
export async function measured(command: string, args: string[], env: NodeJS.ProcessEnv): Promise<Measured> {
  const script = '"$0" "$@" >&2; code=$?; times; exit $code'
  const started = performance.now()
  const child = spawn('sh', ['-c', script, command, ...args], {
    env,
    timeout: processMs,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let [stdout, stderr] = ['', '']
  child.stdout.on('data', (chunk: Buffer) => {
    stdout += chunk
  })
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk
  })
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  })
  const wallMs = performance.now() - started
  if (code !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${code}: ${stderr.slice(-800)}`)
  const times = stdout
    .trim()
    .split('\n')
    .at(-1)!
    .matchAll(/(\d+)m([\d.]+)s/g)
  const cpuMs = [...times].reduce(
    (sum, [, minutes, seconds]) => sum + Number(minutes) * 60_000 + Number(seconds) * 1000,
    0,
  )
  return { wallMs, cpuMs }
}

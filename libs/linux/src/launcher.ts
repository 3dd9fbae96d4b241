import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { Fault } from '@kiln/service'
import type { ProcessId } from './plan.ts'

/** What kiln-init writes to the plan's running file and prints when the program runs. */
export type RunningRecord = {
  formatVersion: 1
  pid: number
  startTime: string
  monitorPid: number
  monitorStartTime: string
  startedAtMs: number
}

/** What kiln-init writes to the plan's exit file. `code` is 128 + signal after a signal. */
export type ExitRecord = {
  formatVersion: 1
  pid: number
  code: number
  signal: number
  startedAtMs: number
  finishedAtMs: number
}

type Answer = RunningRecord | { error: { step: string; path: string; errno: number; message: string } }

/**
 * Has kiln-init start what the plan file says. `prefix` is a command that places it, such as `systemd-run --scope`.
 * The environment is empty: nothing of the daemon may reach a container.
 */
export async function startPlan(input: {
  initPath: string
  planFile: string
  prefix?: string[]
  timeoutMs: number
}): Promise<RunningRecord> {
  const [command, ...args] = [...(input.prefix ?? []), input.initPath, 'start', input.planFile]
  const { stdout, stderr, failed } = await capture(command!, args, input.timeoutMs)
  const answer = parseAnswer(stdout)
  if (answer && 'error' in answer) {
    const { step, path, message } = answer.error
    throw new Fault(
      step === 'exec' ? 'CONTAINER_EXEC_FAILED' : 'CONTAINER_START_FAILED',
      `${step}${path ? ` ${path}` : ''}: ${message}`,
    )
  }
  if (answer && !failed) return answer
  throw new Fault('CONTAINER_START_FAILED', `kiln-init said nothing: ${stderr.trim().slice(0, 500)}`, {
    cause: failed,
  })
}

/** Signals a process only if it still is the one that was started. False when it is gone. */
export async function signalProcess(
  initPath: string,
  process: ProcessId,
  signal: 'TERM' | 'KILL' | number,
): Promise<boolean> {
  const number = signal === 'TERM' ? 15 : signal === 'KILL' ? 9 : signal
  const args = ['kill', String(process.pid), process.startTime, String(number)]
  return !(await capture(initPath, args, 10_000)).failed
}

/** True while the process with this pid is the one that was started then, and not a zombie. */
export async function isAlive(process: ProcessId): Promise<boolean> {
  const text = await readFile(`/proc/${process.pid}/stat`, 'utf8').catch(() => '')
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return fields[19] === process.startTime && fields[0] !== 'Z'
}

function parseAnswer(text: string): Answer | undefined {
  try {
    return JSON.parse(text) as Answer
  } catch {
    return undefined
  }
}

function capture(
  command: string,
  args: string[],
  timeoutMs: number,
): Promise<{ stdout: string; stderr: string; failed: Error | undefined }> {
  return new Promise((resolve) => {
    execFile(command, args, { env: {}, cwd: '/', timeout: timeoutMs }, (error, stdout, stderr) =>
      resolve({ stdout, stderr, failed: error ?? undefined }),
    )
  })
}

import { spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { Fault } from '@kiln/service'
import { askLab, endProcess, isAlive } from '@kiln/vm'
import { selfCommand } from '../programs.ts'
import { type LabProcesses, readProcesses, runningHost, type StateFolder } from './state-folder.ts'

/** Starting the process that owns the cluster takes a Node start and one QEMU start a machine. */
const startTimeoutMs = 120_000
const pollMs = 100

/** Starts the process that owns switch, machines and boot server, detached from this one, and waits until it answers. */
export async function startLabHost(state: StateFolder, signal: AbortSignal): Promise<void> {
  const { command, args } = selfCommand()
  const log = openSync(state.hostLog, 'a')
  const child = spawn(command, [...process.execArgv, ...args, 'lab-host', '--state', state.root], {
    detached: true,
    stdio: ['ignore', log, log],
  })
  closeSync(log)
  let exit: string | undefined
  child.once('exit', (code, cause) => {
    exit = cause ?? `code ${code}`
  })
  child.once('error', (error) => {
    exit = error.message
  })
  const deadline = performance.now() + startTimeoutMs
  for (;;) {
    if (exit !== undefined) {
      endGroup(child.pid)
      throw new Fault('LAB_HOST', `the process that owns the cluster ended (${exit})`, {
        remedy: `see ${state.hostLog}`,
      })
    }
    const answered = await askLab(state.control, { command: 'status' }, 5_000).catch(() => undefined)
    if (answered) break
    if (signal.aborted || performance.now() > deadline) {
      endGroup(child.pid)
      throw new Fault('LAB_HOST', 'the process that owns the cluster did not come up', {
        remedy: `see ${state.hostLog}`,
      })
    }
    await new Promise((resolve) => setTimeout(resolve, pollMs))
  }
  child.unref()
}

/** Ends the owner with what it has started but not yet recorded: all of it is in the process group it leads. */
export function endGroup(pid: number | undefined): void {
  if (pid === undefined) return
  try {
    process.kill(-pid, 'SIGKILL')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

/**
 * Ends everything that belongs to a cluster: asks its owner, then looks at every recorded process itself, so that
 * nothing stays even if the owner was killed.
 */
export async function stopLabHost(state: StateFolder, graceMs: number): Promise<void> {
  const recorded = recordedProcesses(state)
  // With an unreadable record the owner may well run: its socket says.
  if (recorded === 'unreadable' || runningHost(state)) {
    await askLab(state.control, { command: 'stop', graceMs }, graceMs + 20_000).catch(() => undefined)
  }
  const processes = recordedProcesses(state)
  if (!processes || processes === 'unreadable') return
  for (let waited = 0; waited < 10_000 && isAlive(processes.host); waited += pollMs) {
    await new Promise((resolve) => setTimeout(resolve, pollMs))
  }
  for (const identity of [processes.host, ...Object.values(processes.others)]) {
    await endProcess(identity, 2_000)
  }
}

function recordedProcesses(state: StateFolder): LabProcesses | 'unreadable' | undefined {
  try {
    return readProcesses(state)
  } catch (error) {
    if (error instanceof Fault && error.code === 'STATE_INVALID') return 'unreadable'
    throw error
  }
}

import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import type { Log } from '@kiln/service'
import { identifyProcess, type ProcessIdentity } from '@kiln/vm'

export type ServiceCommand = {
  name: string
  command: string
  args: string[]
  environment?: Record<string, string>
  logPath: string
}

/** A crashed program is started again, but not in a tight loop. */
const restartMs = 2_000
const stopGraceMs = 5_000

/** A program kept running until it is stopped, with its output in a file. */
export class ServiceProcess {
  readonly spec: ServiceCommand
  readonly #log: Log
  readonly #changed: () => void
  #child: ChildProcess | undefined
  #wanted = false
  #restart: NodeJS.Timeout | undefined

  /** `changed` is called when the process behind this changes. */
  constructor(spec: ServiceCommand, log: Log, changed: () => void) {
    this.spec = spec
    this.#log = log
    this.#changed = changed
  }

  get identity(): ProcessIdentity | undefined {
    return this.#child?.pid === undefined ? undefined : identifyProcess(this.#child.pid)
  }

  start(): void {
    this.#wanted = true
    clearTimeout(this.#restart)
    if (this.#child) return
    const { command, args, environment, logPath, name } = this.spec
    const log = openSync(logPath, 'a')
    const child = spawn(command, args, {
      stdio: ['ignore', log, log],
      env: environment ? { ...process.env, ...environment } : process.env,
    })
    closeSync(log)
    this.#child = child
    const ended = (how: object): void => {
      if (this.#child !== child) return
      this.#child = undefined
      this.#changed()
      if (!this.#wanted) return
      this.#log.warn({ name, ...how }, 'program ended, starting it again')
      this.#restart = setTimeout(() => this.start(), restartMs)
    }
    child.once('exit', (code, signal) => ended({ code, signal }))
    child.once('error', (error) => ended({ error }))
    this.#changed()
  }

  /** Ends the program: politely, or at once as a power cut would. */
  async stop(how: 'gently' | 'at once' = 'gently'): Promise<void> {
    this.#wanted = false
    clearTimeout(this.#restart)
    const child = this.#child
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    const ended = new Promise((resolve) => child.once('exit', resolve))
    child.kill(how === 'gently' ? 'SIGTERM' : 'SIGKILL')
    const timer = setTimeout(() => child.kill('SIGKILL'), stopGraceMs)
    await ended
    clearTimeout(timer)
  }
}

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdirSync, openSync, readFileSync, rmSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { dirname } from 'node:path'
import { assert, Fault } from '@kiln/service'
import { identifyProcess, type ProcessIdentity, type ProcessUsage, processUsage } from './process-identity.ts'
import { type MachineSpec, monitorSocket, portSocket, qemuArguments, serialSocket } from './qemu-arguments.ts'
import { QmpClient } from './qmp.ts'
import { SerialLog } from './serial-log.ts'

export type MachineExit = { code: number | null; signal: NodeJS.Signals | null }

/** Longest path of a unix socket (unix(7), `sun_path` less its zero). */
const socketPathBytesMax = 107
/** A stopped or starved host is slow to start QEMU. */
const startTimeoutMs = 30_000

/** One QEMU process from power-on to power-off. To switch the machine on again, start a new one from the same spec. */
export class VirtualMachine {
  readonly spec: MachineSpec
  readonly identity: ProcessIdentity
  readonly console: SerialLog
  readonly exited: Promise<MachineExit>
  readonly #qmp: QmpClient
  #running = true

  private constructor(
    spec: MachineSpec,
    identity: ProcessIdentity,
    qmp: QmpClient,
    exited: Promise<MachineExit>,
    console: SerialLog,
  ) {
    this.spec = spec
    this.identity = identity
    this.#qmp = qmp
    this.exited = exited.then((exit) => {
      this.#running = false
      qmp.close()
      console.poll()
      console.close()
      return exit
    })
    this.console = console
  }

  static async start(spec: MachineSpec): Promise<VirtualMachine> {
    checkSocketPaths(spec)
    mkdirSync(spec.socketFolder, { recursive: true, mode: 0o700 })
    mkdirSync(dirname(spec.serialLogPath), { recursive: true })
    for (const path of socketPaths(spec)) rmSync(path, { force: true })
    const console = new SerialLog(spec.serialLogPath, 'end')
    const log = openSync(spec.qemuLogPath, 'a')
    const program = spec.networkNamespace
      ? ['ip', 'netns', 'exec', spec.networkNamespace, 'qemu-system-x86_64']
      : ['qemu-system-x86_64']
    const child = spawn(program[0]!, [...program.slice(1), ...qemuArguments(spec)], {
      stdio: ['ignore', log, log],
    })
    closeSync(log)
    const exited = new Promise<MachineExit>((resolve) => {
      child.once('exit', (code, signal) => resolve({ code, signal }))
      child.once('error', () => resolve({ code: 127, signal: null }))
    })
    const failed = exited.then((exit) => {
      throw new Fault('VM_START', `QEMU for ${spec.name} ended at once (${describeExit(exit)})`, {
        cause: new Error(lastLine(spec.qemuLogPath)),
      })
    })
    failed.catch(() => undefined)
    try {
      const qmp = await Promise.race([QmpClient.connect(monitorSocket(spec), startTimeoutMs), failed])
      assert(child.pid !== undefined, 'a running QEMU has a pid')
      const identity = identifyProcess(child.pid)
      assert(identity, 'QEMU that answered its monitor runs')
      const machine = new VirtualMachine(spec, identity, qmp, exited, console)
      if (spec.incomingPath) await machine.#awaitIncoming()
      return machine
    } catch (error) {
      console.close()
      child.kill('SIGKILL')
      throw error
    }
  }

  get running(): boolean {
    return this.#running
  }

  /** CPU time and memory of the QEMU process so far. */
  usage(): ProcessUsage | undefined {
    return processUsage(this.identity.pid)
  }

  onEvent(listener: (event: string) => void): () => void {
    return this.#qmp.onEvent(listener)
  }

  /** Freezes the guest; its clocks and CPUs stand still. */
  async pause(): Promise<void> {
    await this.#qmp.call('stop')
  }

  async resume(): Promise<void> {
    await this.#qmp.call('cont')
  }

  /** The reset button. */
  async reset(): Promise<void> {
    await this.#qmp.call('system_reset')
  }

  /** The power button: asks the guest to shut down. */
  async pressPowerButton(): Promise<void> {
    await this.#qmp.call('system_powerdown')
  }

  /** Pulls the plug. */
  async powerOff(): Promise<MachineExit> {
    if (this.#running) {
      try {
        process.kill(this.identity.pid, 'SIGKILL')
      } catch {
        // Gone between the look and the signal.
      }
    }
    return await this.exited
  }

  /** Asks the guest to shut down and pulls the plug if it has not after `graceMs`. */
  async shutDown(graceMs: number): Promise<MachineExit> {
    await this.pressPowerButton().catch(() => undefined)
    const timer = setTimeout(() => void this.powerOff(), graceMs)
    try {
      return await this.exited
    } finally {
      clearTimeout(timer)
    }
  }

  /**
   * Stops the guest and writes its state to a file. The disk's content at this moment belongs to it; the guest stays
   * stopped.
   */
  async saveState(path: string, timeoutMs = 60_000): Promise<void> {
    await this.pause()
    await this.#qmp.call('migrate-set-parameters', { 'max-bandwidth': 2 ** 40 })
    await this.#qmp.call('migrate', { uri: `exec:cat > '${path.replaceAll("'", `'\\''`)}'` })
    const deadline = performance.now() + timeoutMs
    for (;;) {
      const { status } = (await this.#qmp.call('query-migrate')) as { status?: string }
      if (status === 'completed') return
      if (status === 'failed' || performance.now() > deadline) {
        throw new Fault('VM_SAVE', `the state of ${this.spec.name} was not saved (${status})`)
      }
      await sleep(20)
    }
  }

  /** Writes to the serial console as a keyboard would. */
  async type(text: string): Promise<void> {
    const socket = await this.openConsole()
    socket.end(text)
    await once(socket, 'close')
  }

  /** The serial console as a byte stream; QEMU gives it to one at a time. */
  openConsole(): Promise<Socket> {
    return openSocket(serialSocket(this.spec))
  }

  /** A virtio-serial port as a byte stream. */
  openPort(name: string): Promise<Socket> {
    assert(this.spec.serialPorts.includes(name), `the machine has a port ${name}`)
    return openSocket(portSocket(this.spec, name))
  }

  async #awaitIncoming(): Promise<void> {
    const deadline = performance.now() + startTimeoutMs
    for (;;) {
      const { status } = (await this.#qmp.call('query-status')) as { status: string }
      if (status !== 'inmigrate') return
      if (performance.now() > deadline) {
        throw new Fault('VM_RESTORE', `the saved state of ${this.spec.name} did not load`)
      }
      await sleep(20)
    }
  }
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

function openSocket(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(path, () => resolve(socket))
    socket.once('error', (cause) => reject(new Fault('VM_SOCKET', `nobody listens on ${path}`, { cause })))
  })
}

function socketPaths(spec: MachineSpec): string[] {
  return [monitorSocket(spec), serialSocket(spec), ...spec.serialPorts.map((port) => portSocket(spec, port))]
}

function checkSocketPaths(spec: MachineSpec): void {
  for (const path of socketPaths(spec)) {
    if (Buffer.byteLength(path) > socketPathBytesMax) {
      throw new Fault(
        'SOCKET_PATH_LONG',
        `${path} is longer than the ${socketPathBytesMax} bytes of a socket's path`,
        {
          remedy: 'choose a shorter folder for temporary files (TMPDIR)',
        },
      )
    }
  }
}

const describeExit = ({ code, signal }: MachineExit): string => (signal ? `signal ${signal}` : `code ${code}`)

function lastLine(path: string): string {
  return readFileSync(path, 'utf8').trimEnd().split('\n').at(-1) ?? ''
}

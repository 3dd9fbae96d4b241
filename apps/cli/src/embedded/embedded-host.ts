import { existsSync, mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { atomicWrite, Fault, type Log } from '@kiln/service'
import {
  identifyProcess,
  LabControlServer,
  type LabRequest,
  type LabStatus,
  type ProcessIdentity,
  processUsage,
} from '@kiln/vm'
import type { z } from 'zod'
import { bootServer } from '../lab/boot-server.ts'
import { ServiceProcess } from '../lab/service-process.ts'
import { type LabRecord, requireLab, type StateFolder } from '../lab/state-folder.ts'
import { selfCommand } from '../programs.ts'
import { storeMember } from './store-member.ts'

const authorityTimeoutMs = 30_000

/** Owns an embedded cluster: boot server, store members and simulated machines, all processes of this host. */
export class EmbeddedHost {
  readonly #state: StateFolder
  readonly #lab: LabRecord
  readonly #ended: () => void
  readonly #bootServer: ServiceProcess
  readonly #members = new Map<string, ServiceProcess>()
  readonly #machines = new Map<string, ServiceProcess>()
  #control: LabControlServer | undefined
  #stopping = false

  private constructor(state: StateFolder, lab: LabRecord, log: Log, ended: () => void) {
    this.#state = state
    this.#lab = lab
    this.#ended = ended
    this.#bootServer = bootServer(state, lab, log, () => void this.#record())
  }

  static async start(state: StateFolder, log: Log, ended: () => void): Promise<EmbeddedHost> {
    const lab = requireLab(state)
    const host = new EmbeddedHost(state, lab, log, ended)
    mkdirSync(state.sockets, { recursive: true, mode: 0o700 })
    try {
      host.#bootServer.start()
      await host.#awaitAuthority()
      const changed = (): void => void host.#record()
      for (const machine of lab.machines) {
        const member = await storeMember({ state, lab, machine }, log, changed)
        host.#members.set(machine.name, member)
        member.start()
      }
      for (const machine of lab.machines) {
        const { command, args } = selfCommand()
        const folder = state.machine(machine.name).folder
        const simulated = new ServiceProcess(
          {
            name: machine.name,
            command,
            args: [
              ...[...process.execArgv, ...args, 'simulated-machine', '--folder', folder],
              ...['--mac', machine.bootMac, '--uuid', machine.uuid],
              ...['--boot-url', `http://127.0.0.1:${lab.bootPort}`],
            ],
            logPath: join(folder, 'machine.log'),
          },
          log,
          changed,
        )
        host.#machines.set(machine.name, simulated)
        simulated.start()
      }
      host.#control = await LabControlServer.listen(state.control, (request) => host.#handle(request))
      return host
    } catch (error) {
      await host.stop()
      throw error
    }
  }

  /** Simulated machines need no time to shut down, so the grace is nothing to them. */
  async stop(_graceMs = 0): Promise<void> {
    if (this.#stopping) return
    this.#stopping = true
    await this.#control?.close()
    await Promise.all([...this.#machines.values()].map((machine) => machine.stop()))
    await Promise.all([...this.#members.values()].map((member) => member.stop()))
    await this.#bootServer.stop()
    rmSync(this.#state.sockets, { recursive: true, force: true })
    rmSync(this.#state.processes, { force: true })
  }

  /** The boot server makes the cluster's CA at its first start. */
  async #awaitAuthority(): Promise<void> {
    const deadline = performance.now() + authorityTimeoutMs
    while (!existsSync(join(this.#state.adminPki, 'admin.pem'))) {
      if (performance.now() > deadline) {
        throw new Fault('BOOT_UNREACHABLE', 'the boot server made no certificates', {
          remedy: `see ${this.#state.bootLog}`,
        })
      }
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }

  async #handle(request: z.output<typeof LabRequest>): Promise<unknown> {
    switch (request.command) {
      case 'status':
        return this.#status()
      case 'stop':
        setImmediate(() => void this.stop().then(this.#ended))
        return undefined
      case 'power':
        return await this.#power(request.machine, request.action)
      case 'boot-server':
        if (request.action === 'stop') await this.#bootServer.stop()
        else this.#bootServer.start()
        return undefined
      case 'faults':
        throw new Fault('EMBEDDED_UNSUPPORTED', 'an embedded cluster has no switch to cut')
    }
  }

  #status(): LabStatus {
    return {
      bootServer: this.#bootServer.identity ? 'running' : 'stopped',
      machines: this.#lab.machines.map(({ name }) => {
        const pid = this.#machines.get(name)?.identity?.pid
        if (pid === undefined) return { name, power: 'off' as const }
        return { name, power: 'on' as const, pid, ...processUsage(pid) }
      }),
      switch: { ports: 0, frames: 0, bytes: 0, dropped: 0, delayed: 0 },
    }
  }

  /** Power of a simulated machine is that of its store member too. */
  async #power(
    name: string,
    action: Extract<z.output<typeof LabRequest>, { command: 'power' }>['action'],
  ): Promise<void> {
    const machine = this.#machines.get(name)
    const member = this.#members.get(name)
    if (!machine || !member) throw new Fault('MACHINE_UNKNOWN', `no machine ${name}`)
    switch (action) {
      case 'on':
        machine.start()
        member.start()
        return
      case 'off':
      case 'button':
        await machine.stop(action === 'button' ? 'gently' : 'at once')
        await member.stop(action === 'button' ? 'gently' : 'at once')
        return
      case 'reset':
      case 'pause':
      case 'resume':
        throw new Fault('EMBEDDED_UNSUPPORTED', `a simulated machine knows no ${action}`)
    }
  }

  async #record(): Promise<void> {
    if (this.#stopping) return
    const others: Record<string, ProcessIdentity> = {}
    for (const service of [this.#bootServer, ...this.#members.values(), ...this.#machines.values()]) {
      const identity = service.identity
      if (identity) others[service.spec.name] = identity
    }
    const host = identifyProcess(process.pid)
    await atomicWrite(this.#state.processes, JSON.stringify({ host, others }, null, 2) + '\n')
  }
}

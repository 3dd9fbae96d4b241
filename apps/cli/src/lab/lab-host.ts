import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { atomicWrite, Fault, type Log } from '@kiln/service'
import {
  EthernetSwitch,
  firmwareFiles,
  identifyProcess,
  LabControlServer,
  type LabRequest,
  type LabStatus,
  type ProcessIdentity,
  prepareFirmwareVars,
  VirtualMachine,
} from '@kiln/vm'
import type { z } from 'zod'
import { bootServer } from './boot-server.ts'
import { copyOver, requireSnapshot, snapshotFolder, writeSnapshot } from './cluster-snapshot.ts'
import { machineSpec } from './lab-plan.ts'
import type { ServiceProcess } from './service-process.ts'
import { type LabMachine, type LabRecord, requireLab, type StateFolder } from './state-folder.ts'

type Machine = { plan: LabMachine; vm: VirtualMachine | undefined; onSince: number }

/**
 * Owns a cluster of virtual machines: switch, machines and boot server live exactly as long as this process wants them
 * to. Asked over the control socket.
 */
export class LabHost {
  readonly #state: StateFolder
  readonly #lab: LabRecord
  readonly #log: Log
  readonly #machines: Machine[]
  readonly #ended: () => void
  #switch: EthernetSwitch | undefined
  #control: LabControlServer | undefined
  readonly #bootServer: ServiceProcess
  #stopping = false

  private constructor(state: StateFolder, lab: LabRecord, log: Log, ended: () => void) {
    this.#state = state
    this.#lab = lab
    this.#log = log
    this.#ended = ended
    this.#bootServer = bootServer(state, lab, log, () => void this.#record())
    this.#machines = lab.machines.map((plan) => ({ plan, vm: undefined, onSince: 0 }))
  }

  /** Starts everything; `ended` is called when somebody asked for the end over the control socket. */
  static async start(state: StateFolder, log: Log, ended: () => void): Promise<LabHost> {
    const host = new LabHost(state, requireLab(state), log, ended)
    mkdirSync(state.sockets, { recursive: true, mode: 0o700 })
    await host.#record()
    try {
      host.#switch = await EthernetSwitch.listen({
        path: join(state.sockets, 'switch'),
        nodes: Object.fromEntries(host.#lab.machines.map((machine) => [machine.clusterMac, machine.name])),
      })
      host.#bootServer.start()
      for (const machine of host.#machines) await host.#powerOn(machine)
      host.#control = await LabControlServer.listen(state.control, (request) => host.#handle(request))
      return host
    } catch (error) {
      await host.stop(0)
      throw error
    }
  }

  async stop(graceMs: number): Promise<void> {
    if (this.#stopping) return
    this.#stopping = true
    await this.#control?.close()
    await Promise.all(
      this.#machines.map(async ({ vm }) => {
        if (!vm?.running) return
        if (graceMs > 0) await vm.shutDown(graceMs)
        else await vm.powerOff()
      }),
    )
    await this.#bootServer.stop()
    await this.#switch?.close()
    rmSync(this.#state.sockets, { recursive: true, force: true })
    rmSync(this.#state.processes, { force: true })
  }

  async #handle(request: z.output<typeof LabRequest>): Promise<unknown> {
    switch (request.command) {
      case 'status':
        return this.#status()
      case 'stop':
        // Answered first: whoever asked waits for the process, not for the reply.
        setImmediate(() => void this.stop(request.graceMs).then(this.#ended))
        return undefined
      case 'power':
        return await this.#power(request.machine, request.action)
      case 'faults':
        this.#log.info({ rules: request.rules }, 'switch faults set')
        this.#switch?.setFaults(request.rules)
        return undefined
      case 'boot-server':
        if (request.action === 'stop') await this.#bootServer.stop()
        else this.#bootServer.start()
        return undefined
      case 'snapshot':
        if (request.action === 'save') await this.#save(request.name)
        else await this.#restore(request.name)
        return undefined
    }
  }

  #status(): LabStatus {
    return {
      bootServer: this.#bootServer.identity ? 'running' : 'stopped',
      machines: this.#machines.map(({ plan, vm, onSince }) => {
        if (!vm?.running) return { name: plan.name, power: 'off' as const }
        const onSeconds = Math.round((performance.now() - onSince) / 1000)
        return { name: plan.name, power: 'on' as const, pid: vm.identity.pid, onSeconds, ...vm.usage() }
      }),
      switch: this.#switch?.statistics() ?? { ports: 0, frames: 0, bytes: 0, dropped: 0, delayed: 0 },
    }
  }

  async #power(name: string, action: 'on' | 'off' | 'reset' | 'button' | 'pause' | 'resume'): Promise<void> {
    const machine = this.#machines.find(({ plan }) => plan.name === name)
    if (!machine) throw new Fault('MACHINE_UNKNOWN', `no machine ${name}`)
    this.#log.info({ machine: name, action }, 'power')
    if (action === 'on') {
      if (!machine.vm?.running) await this.#powerOn(machine)
      return
    }
    if (!machine.vm?.running) throw new Fault('MACHINE_OFF', `${name} is switched off`)
    switch (action) {
      case 'off':
        await machine.vm.powerOff()
        return
      case 'reset':
        return await machine.vm.reset()
      case 'button':
        return await machine.vm.pressPowerButton()
      case 'pause':
        return await machine.vm.pause()
      case 'resume':
        return await machine.vm.resume()
    }
  }

  /** Saves the whole cluster; it goes on afterwards. Machines that are off cannot be part of it. */
  async #save(name: string): Promise<void> {
    const machines = this.#machines.map(({ plan, vm }) => {
      if (!vm?.running) throw new Fault('MACHINE_OFF', `${plan.name} is switched off`)
      return { vm, paths: this.#state.machine(plan.name), name: plan.name }
    })
    this.#log.info({ name }, 'saving a snapshot')
    await Promise.all(machines.map(({ vm }) => vm.pause()))
    const bootServerRan = this.#bootServer.identity !== undefined
    await this.#bootServer.stop()
    try {
      await writeSnapshot(snapshotFolder(this.#state, name), async (into) => {
        await copyOver(this.#state.bootData, into.bootData)
        await Promise.all(
          machines.map(async ({ vm, paths, name: machine }) => {
            const files = into.machine(machine)
            await vm.saveState(files.memory)
            await copyOver(paths.disk, files.disk)
            await copyOver(paths.vars, files.vars)
          }),
        )
      })
    } finally {
      if (bootServerRan) this.#bootServer.start()
      await Promise.all(machines.map(({ vm }) => vm.resume()))
    }
  }

  /** Puts the whole cluster back to where a snapshot was taken; what happened since is gone. */
  async #restore(name: string): Promise<void> {
    const snapshot = snapshotFolder(this.#state, name)
    requireSnapshot(snapshot)
    this.#log.info({ name }, 'restoring a snapshot')
    await Promise.all(this.#machines.map(({ vm }) => vm?.powerOff()))
    await this.#bootServer.stop()
    await copyOver(snapshot.bootData, this.#state.bootData)
    await Promise.all(
      this.#machines.map(async (machine) => {
        const [files, paths] = [snapshot.machine(machine.plan.name), this.#state.machine(machine.plan.name)]
        await copyOver(files.disk, paths.disk)
        await copyOver(files.vars, paths.vars)
        await this.#powerOn(machine, files.memory)
      }),
    )
    this.#bootServer.start()
    await Promise.all(this.#machines.map(({ vm }) => vm?.resume()))
  }

  /** Switches a machine on, or loads it from a saved state, in which it stays paused. */
  async #powerOn(machine: Machine, incomingPath?: string): Promise<void> {
    prepareFirmwareVars(this.#state.machine(machine.plan.name).vars)
    const spec = machineSpec({
      state: this.#state,
      lab: this.#lab,
      machine: machine.plan,
      switchSocket: join(this.#state.sockets, 'switch'),
      firmwareCode: firmwareFiles.code,
    })
    machine.vm = await VirtualMachine.start(incomingPath ? { ...spec, incomingPath } : spec)
    machine.onSince = performance.now()
    machine.vm.exited.then(
      (exit) => this.#log.info({ machine: machine.plan.name, ...exit }, 'machine switched off'),
      () => undefined,
    )
    await this.#record()
  }

  async #record(): Promise<void> {
    if (this.#stopping) return
    const others: Record<string, ProcessIdentity> = {}
    for (const { plan, vm } of this.#machines) if (vm?.running) others[plan.name] = vm.identity
    const boot = this.#bootServer.identity
    if (boot) others[this.#bootServer.spec.name] = boot
    const host = identifyProcess(process.pid)
    await atomicWrite(this.#state.processes, JSON.stringify({ host, others }, null, 2) + '\n')
  }
}

import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { type EndpointStatus, EtcdClient } from '@kiln/etcd-api'
import { MachineRecord, MachineStatus, storeKeys } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import { askLab, type LabRequest, type LabStatus, type LinkFaultRule, labStatus, SerialLog } from '@kiln/vm'
import * as z from 'zod'
import { runOnConsole, type ShellResult } from './console-shell.ts'
import { type CommandResult, kiln } from './kiln-command.ts'
import { expect, until } from './waiting.ts'

/** What `kiln up --json` prints, as far as stories use it. */
const Summary = z.looseObject({
  state: z.string(),
  control: z.string(),
  console: z.url(),
  leader: z.string().optional(),
  seconds: z.number().optional(),
  machines: z.array(z.looseObject({ name: z.string(), address: z.string() })),
  etcdctl: z.record(z.string(), z.string()),
})
type Summary = z.output<typeof Summary>

export type ClusterMachine = {
  name: string
  address: string
  /** The machine's store member, as the host reaches it. */
  endpoint: string
  console: SerialLog
}

const powerOffTimeoutMs = 60_000
const snapshotTimeoutMs = 180_000

/** A cluster of virtual machines that `kiln up` made, driven as an operator would, and hurt over its control socket. */
export class Cluster {
  readonly machines: ClusterMachine[]
  readonly store: EtcdClient
  /** How long `kiln up` took. */
  readonly upSeconds: number
  readonly #summary: Summary
  readonly #logPath: string

  private constructor(summary: Summary, logPath: string) {
    const endpoints = (summary.etcdctl['ETCDCTL_ENDPOINTS'] ?? '').split(',')
    this.#summary = summary
    this.#logPath = logPath
    this.upSeconds = summary.seconds ?? 0
    this.machines = summary.machines.map(({ name, address }, index) => ({
      name,
      address,
      endpoint: endpoints[index] ?? '',
      console: new SerialLog(serialLogPath(summary.state, name)),
    }))
    for (const { console } of this.machines) console.poll()
    this.store = this.storeAt(endpoints)
  }

  /** Boots machines from empty disks; what they say stays in the state folder even if it fails. */
  static async start(at: {
    state: string
    nodes: number
    logPath: string
    signal: AbortSignal
  }): Promise<Cluster> {
    const { stdout } = await kiln(['up', '--json', '--state', at.state, '--nodes', String(at.nodes)], at)
    return new Cluster(Summary.parse(JSON.parse(stdout)), at.logPath)
  }

  /** Removes the cluster in a state folder, however it ended. */
  static async remove(state: string, logPath: string): Promise<void> {
    await kiln(['down', '--state', state], { signal: new AbortController().signal, logPath, mayFail: true })
  }

  get state(): string {
    return this.#summary.state
  }

  /** Base URL of kiln-boot, without the last slash. */
  get bootUrl(): string {
    return this.#summary.console.replace(/\/$/, '')
  }

  machine(name: string): ClusterMachine {
    const found = this.machines.find((machine) => machine.name === name)
    if (!found) throw new Fault('STORY_WRONG', `there is no machine ${name}`)
    return found
  }

  /** A client of some members only. */
  storeAt(endpoints: readonly string[]): EtcdClient {
    const file = (name: string): string =>
      readFileSync(this.#summary.etcdctl[`ETCDCTL_${name}`] ?? '', 'utf8')
    return new EtcdClient({ endpoints, tls: { ca: file('CACERT'), cert: file('CERT'), key: file('KEY') } })
  }

  async kiln(
    args: readonly string[],
    options: { signal: AbortSignal; mayFail?: boolean },
  ): Promise<CommandResult> {
    return await kiln([...args, '--state', this.state], { ...options, logPath: this.#logPath })
  }

  async ask(request: LabRequest): Promise<void> {
    await askLab(this.#summary.control, request)
  }

  async labStatus(): Promise<LabStatus> {
    return await labStatus(this.#summary.control)
  }

  /** Replaces all faults of the switch; none heals it. */
  async faults(rules: LinkFaultRule[]): Promise<void> {
    await this.ask({ command: 'faults', rules })
  }

  async pullPlug(machine: string): Promise<void> {
    await this.ask({ command: 'power', machine, action: 'off' })
  }

  async switchOn(machine: string): Promise<void> {
    await this.ask({ command: 'power', machine, action: 'on' })
  }

  /** Saves all machines and the boot server at one moment; they go on. */
  async saveSnapshot(name: string): Promise<void> {
    await askLab(this.#summary.control, { command: 'snapshot', action: 'save', name }, snapshotTimeoutMs)
  }

  /**
   * Puts the whole cluster back to a snapshot. The machines go on with the wall clock and the random numbers they had, so
   * both are refreshed through their consoles. The kernel takes the new seed into its pool at once and draws from it at
   * its next reseeding, a minute later at most (random(4)).
   */
  async restoreSnapshot(name: string, signal: AbortSignal): Promise<void> {
    await askLab(this.#summary.control, { command: 'snapshot', action: 'restore', name }, snapshotTimeoutMs)
    await Promise.all(
      this.machines.map(async (machine) => {
        const seed = randomBytes(32).toString('hex')
        const order = `echo ${seed} >/dev/urandom; date -s @${(Date.now() / 1000).toFixed(3)}`
        const { code, output } = await this.shell(machine.name, order, { signal })
        expect(code === 0, `${machine.name} sets its clock: ${output}`)
      }),
    )
  }

  /** Shuts a machine down from within and waits until it is off. */
  async shutDown(machine: string, signal: AbortSignal): Promise<void> {
    // A moment later, so that the shell can answer before it is ended itself.
    const order = '(sleep 1; exec systemctl poweroff) </dev/null >/dev/null 2>&1 & true'
    const { code, output } = await this.shell(machine, order, { signal })
    expect(code === 0, `${machine} takes the order to shut down: ${output}`)
    await until(`${machine} shuts down`, { timeoutMs: powerOffTimeoutMs, signal }, async () => {
      const { machines } = await this.labStatus()
      return machines.find(({ name }) => name === machine)?.power === 'off' ? true : undefined
    })
  }

  async cpuSeconds(machine: string): Promise<number> {
    const { machines } = await this.labStatus()
    return machines.find(({ name }) => name === machine)?.cpuSeconds ?? 0
  }

  /** Runs a command in a machine. */
  async shell(
    machine: string,
    command: string,
    options: { signal: AbortSignal; timeoutMs?: number },
  ): Promise<ShellResult> {
    const socket = join(dirname(this.#summary.control), `${machine}.ttyS0`)
    return await runOnConsole(socket, command, { timeoutMs: 60_000, ...options })
  }

  /** Status of a machine's own store member, `undefined` if it does not answer. */
  async member(machine: ClusterMachine): Promise<EndpointStatus | undefined> {
    return await this.store.status(machine.endpoint).catch(() => undefined)
  }

  /** Name of the machine that its own member calls leader, among some machines. */
  async leader(among: readonly ClusterMachine[] = this.machines): Promise<string | undefined> {
    for (const machine of among) {
      const status = await this.member(machine)
      if (status && status.leaderId !== 0n && status.leaderId === status.memberId) return machine.name
    }
    return undefined
  }

  /** What the machines say about themselves in the store, by name. */
  async statuses(): Promise<Map<string, MachineStatus>> {
    const { entries } = await this.store.getPrefix(storeKeys.machines)
    return new Map(
      entries.map((entry) => [
        entry.key.slice(storeKeys.machines.length),
        MachineStatus.parse(JSON.parse(entry.text)),
      ]),
    )
  }

  async records(): Promise<MachineRecord[]> {
    const answer = await fetch(`${this.bootUrl}/v1/machines`, { signal: AbortSignal.timeout(5_000) })
    return z.array(MachineRecord).parse(await answer.json())
  }

  /** Lets go of the cluster; it goes on. */
  release(): void {
    this.store.close()
    for (const { console } of this.machines) console.close()
  }
}

export const serialLogPath = (state: string, machine: string): string =>
  join(state, 'machines', machine, 'serial.log')

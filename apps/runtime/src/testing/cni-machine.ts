import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { isAlive, type ProcessId } from '@kiln/linux'
import { createLog, type Log } from '@kiln/service'
import { bundledBridge } from '../cni/bundled-networks.ts'
import { openPlugins } from '../cni/plugin.ts'
import { type CniNetworks, openCniNetworks } from '../cni/pod-networks.ts'
import { runTool } from '../host.ts'

/** Where Debian's containernetworking-plugins are. */
export const pluginFolder = '/usr/lib/cni'

/** Why the real plug-ins cannot run here; undefined when they can. */
export function whyNoPlugins(): string | undefined {
  if (process.getuid?.() !== 0) return 'making network namespaces needs root'
  if (!existsSync(join(pluginFolder, 'bridge'))) return 'containernetworking-plugins is not installed'
  return existsSync('/usr/sbin/iptables') ? undefined : 'iptables is not installed'
}

/** A network namespace that a process keeps: a machine's, a pod's or the world's. */
export type Namespace = {
  sandbox: ProcessId
  path: string
  run(command: string, ...args: string[]): Promise<string>
  /** Starts a program that is ended with the namespace. */
  spawn(command: string, ...args: string[]): ChildProcess
  /** Resolves when the sandbox is gone. */
  close(): Promise<void>
}

export async function openNamespace(): Promise<Namespace> {
  const keeper = spawn('unshare', ['--net', 'sleep', '600'], { stdio: 'ignore' })
  const pid = keeper.pid!
  const path = `/proc/${pid}/ns/net`
  const own = readlinkSync('/proc/self/ns/net')
  while (readlinkSync(path) === own || !readFileSync(`/proc/${pid}/comm`, 'utf8').startsWith('sleep'))
    await sleep(5)
  const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const startTime = text.slice(text.lastIndexOf(')') + 2).split(' ')[19]!
  const children: ChildProcess[] = [keeper]
  const namespace: Namespace = {
    sandbox: { pid, startTime },
    path,
    run: (command, ...args) => runTool('nsenter', [`--net=${path}`, command, ...args]),
    spawn: (command, ...args) => {
      const child = spawn('nsenter', [`--net=${path}`, command, ...args], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      children.push(child)
      return child
    },
    close: async () => {
      for (const child of children.splice(0)) child.kill('SIGKILL')
      while (await isAlive({ pid, startTime })) await sleep(5)
    },
  }
  await namespace.run('ip', 'link', 'set', 'lo', 'up')
  return namespace
}

/** The networks of a machine that is a namespace, with its state in a folder. */
export function networksOf(at: {
  folder: string
  machine: string
  path?: string
  log?: Log
  bootId?: string
  timeoutMs?: number
}): CniNetworks {
  const enter = ['nsenter', `--net=${at.machine}`]
  const bundled = bundledBridge({
    firstOctets: '10.89',
    machineAddress: '10.77.0.11',
    leasesDir: join(at.folder, 'leases'),
  })
  return openCniNetworks({
    configDir: join(at.folder, 'net.d'),
    bundled: [bundled.list],
    attachmentsDir: join(at.folder, 'attachments'),
    bootId: at.bootId ?? 'boot1',
    plugins: openPlugins({ path: at.path ?? pluginFolder, timeoutMs: at.timeoutMs ?? 30_000, enter }),
    run: (command, args, input) => runTool(enter[0]!, [enter[1]!, command, ...args], input),
    log: at.log ?? createLog('test', 'silent'),
  })
}

/** All that plug-ins leave on a machine: rules, links, leases, and what is recorded of them. */
export async function tracesOn(machine: Namespace, folder: string): Promise<Record<string, string[]>> {
  const rules = async (tool: string): Promise<string[]> =>
    (await machine.run(tool))
      .split('\n')
      .filter((line) => /^(-A|:)/.test(line))
      .map((line) => line.replace(/ \[\d+:\d+\]$/, ''))
      .sort()
  const links = (await machine.run('ip', '-o', 'link')).split('\n').map((line) => line.split(':')[1] ?? '')
  const files = (path: string): string[] =>
    existsSync(path) ? readdirSync(path, { recursive: true }).map(String).sort() : []
  return {
    rules: await rules('iptables-save'),
    rules6: await rules('ip6tables-save'),
    links: links.map((name) => name.trim()).sort(),
    leases: files(join(folder, 'leases')).filter((name) => !/lock|last_reserved/.test(name)),
    attachments: files(join(folder, 'attachments')),
  }
}

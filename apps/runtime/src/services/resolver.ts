import { existsSync } from 'node:fs'
import { mkdir, readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { PodManifest } from '@kiln/schemas'
import { atomicWrite, describeError, type Log } from '@kiln/service'
import { serviceZone } from './service-answer.ts'

/** Where systemd-resolved keeps what it says of itself. */
const resolvedFolder = '/run/systemd/resolve'
const resolverDefault = '/etc/resolv.conf'
/** The C library takes no more. */
const nameserversMax = 3

export type ResolverFiles = { resolved: string; fallback: string; udp: string }
const realFiles: ResolverFiles = {
  resolved: resolvedFolder,
  fallback: resolverDefault,
  udp: '/proc/net/udp',
}

/**
 * What tells systemd-resolved (resolved.conf(5)) that names of services are ours, and to listen for pods too: its stub at
 * 127.0.0.53 is not theirs to reach.
 */
export function resolverDropIn(at: { address: string; port: number; podGateways: string[] }): string {
  const server = at.port === 53 ? at.address : `${at.address.replace(/^(.*:.*)$/, '[$1]')}:${at.port}`
  return `# Written by kiln-runtime when it starts.
[Resolve]
DNS=${server}
Domains=~${serviceZone}
${at.podGateways.map((gateway) => `DNSStubListenerExtra=${gateway}\n`).join('')}`
}

/**
 * Writes the drop-in and, where it says something new, has a running systemd-resolved read it. A machine without
 * systemd-resolved is left alone. What fails is logged: pods run without names of services too.
 */
export async function pointResolver(input: {
  file: string
  text: string
  run(command: string, args: string[]): Promise<unknown>
  log: Log
  files?: ResolverFiles
}): Promise<void> {
  const { file, text, log } = input
  const { resolved } = input.files ?? realFiles
  if (!existsSync(resolved)) return
  try {
    if ((await readFile(file, 'utf8').catch(() => '')) === text) return
    await mkdir(dirname(file), { recursive: true })
    // resolved reads it as a user of its own.
    await atomicWrite(file, text, { mode: 0o644 })
    // It is not asked to reload: only a start opens another stub listener.
    await input.run('systemctl', ['try-restart', 'systemd-resolved.service'])
    log.info({ file }, 'systemd-resolved asks this machine for names of services')
  } catch (error) {
    log.warn({ file, error: describeError(error) }, 'systemd-resolved does not know of services')
  }
}

type ResolverPolicy = Pick<PodManifest['spec'], 'hostNetwork' | 'dnsPolicy' | 'dnsConfig'>

/** The resolv.conf(5) of a pod: its policy's, and what its own configuration adds (v1.PodSpec, dnsPolicy and dnsConfig). */
export async function podResolver(
  pod: ResolverPolicy & { gateways: string[]; nameservers: string[] },
  files: ResolverFiles = realFiles,
): Promise<string> {
  const text = pod.dnsPolicy === 'None' ? '' : await machineResolver(pod, files)
  const short = pod.dnsPolicy === 'ClusterFirst' || pod.dnsPolicy === 'ClusterFirstWithHostNet'
  if (!pod.dnsConfig && !short) return text
  const of = (keyword: string): string[] =>
    text.split('\n').flatMap((line) => {
      const [first, ...rest] = line.trim().split(/\s+/)
      return first === keyword ? rest : []
    })
  const { nameservers = [], searches = [], options = [] } = pod.dnsConfig ?? {}
  const named = new Map(of('options').map((option) => [option.split(':')[0], option]))
  for (const { name, value } of options) named.set(name, value === undefined ? name : `${name}:${value}`)
  const lines: [string, string[]][] = [
    ...[...new Set([...of('nameserver'), ...nameservers])]
      .slice(0, nameserversMax)
      .map((server): [string, string[]] => ['nameserver', [server]]),
    ['search', [...new Set([...(short ? [serviceZone] : []), ...of('search'), ...searches])]],
    ['options', [...named.values()]],
  ]
  return lines
    .flatMap(([keyword, words]) => (words.length > 0 ? `${keyword} ${words.join(' ')}\n` : []))
    .join('')
}

/**
 * The machine's resolver: a pod in the machine's network asks its stub; one with a network of its own the listener at one of its gateways
 * if there is one, and else the servers of its networks, or those behind the stub, which know no services.
 */
async function machineResolver(
  pod: { hostNetwork: boolean; gateways: string[]; nameservers: string[] },
  files: ResolverFiles,
): Promise<string> {
  const stub = join(files.resolved, 'stub-resolv.conf')
  if (pod.hostNetwork && existsSync(stub)) return await readFile(stub, 'utf8')
  const servers = join(files.resolved, 'resolv.conf')
  const source = existsSync(servers) ? servers : files.fallback
  const text = await readFile(source, 'utf8').catch(() => '')
  const sockets = await readFile(files.udp, 'utf8').catch(() => '')
  const gateway = pod.gateways.find((each) => each.includes('.') && isBound(sockets, each, 53))
  const own = gateway === undefined ? pod.nameservers : [gateway]
  if (pod.hostNetwork || own.length === 0) return text
  const search = text.split('\n').filter((line) => /^search\s/.test(line))
  return [...own.map((server) => `nameserver ${server}`), ...search, ''].join('\n')
}

/** Whether a socket of `/proc/net/udp` (proc(5)) is bound to just this address and port. */
function isBound(sockets: string, address: string, port: number): boolean {
  const hex = address
    .split('.')
    .map((octet) => Number(octet).toString(16).padStart(2, '0'))
    .reverse()
    .join('')
  const local = `${hex}:${port.toString(16).padStart(4, '0')}`.toUpperCase()
  return sockets.split('\n').some((line) => line.trim().split(/\s+/)[1] === local)
}

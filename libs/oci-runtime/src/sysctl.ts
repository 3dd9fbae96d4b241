import type { Namespace, PlanRecord } from '@kiln/linux'
import { refuse } from './config.ts'

const ipcKeys = new Set(
  ['msgmax', 'msgmnb', 'msgmni', 'sem', 'shmall', 'shmmax', 'shmmni', 'shm_rmid_forced'].map(
    (key) => `kernel.${key}`,
  ),
)

/** Kernel parameters of the container's own namespaces, and no others: those are the host's (config-linux.md, Sysctl). */
export function sysctlRecords(
  sysctl: Record<string, string>,
  namespaces: { created: Namespace[]; joined: { kind: Namespace; path: string }[] },
): PlanRecord[] {
  const own = new Set([...namespaces.created, ...namespaces.joined.map(({ kind }) => kind)])
  return Object.entries(sysctl).map(([key, value]): PlanRecord => {
    // `net/ipv4/conf/eth0.1/forwarding` keeps the dots of a name.
    const dotted = key.indexOf('/') < 0 || (key.indexOf('.') >= 0 && key.indexOf('.') < key.indexOf('/'))
    const swap = (letter: string) => (letter === '.' ? '/' : '.')
    const path = dotted ? key.replace(/[./]/g, swap) : key
    const parts = path.split('/')
    if (parts.some((part) => part === '' || part === '.' || part === '..'))
      refuse([`config.linux.sysctl: ${JSON.stringify(key)} is no parameter`])
    const name = parts.join('.')
    const needed = namespaceOf(name)
    if (!needed) refuse([`config.linux.sysctl: ${key} belongs to the whole host`])
    if (!own.has(needed))
      refuse([`config.linux.sysctl: ${key} needs a ${needed} namespace of the container's own`])
    if (name === 'kernel.hostname') refuse(['config.linux.sysctl: kernel.hostname is set by hostname'])
    return ['sysctl', `/${parts.join('/')}`, value]
  })
}

function namespaceOf(name: string): Namespace | undefined {
  if (name.startsWith('net.')) return 'network'
  if (name.startsWith('fs.mqueue.') || ipcKeys.has(name)) return 'ipc'
  return name === 'kernel.domainname' || name === 'kernel.hostname' ? 'uts' : undefined
}

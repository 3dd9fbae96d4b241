import { spawn } from 'node:child_process'
import { accessSync, constants, copyFileSync, existsSync, readFileSync, statfsSync } from 'node:fs'
import { createServer } from 'node:net'
import { delimiter, join } from 'node:path'
import { Fault } from '@kiln/service'

/** Where Debian's `ovmf` package puts the firmware and its empty variable store. */
export const firmwareFiles = {
  code: '/usr/share/OVMF/OVMF_CODE_4M.fd',
  vars: '/usr/share/OVMF/OVMF_VARS_4M.fd',
} as const

/** A place that a program name is found at along a search path. */
export function findProgram(name: string, searchPath: string): string | undefined {
  return searchPath
    .split(delimiter)
    .filter((folder) => folder !== '')
    .map((folder) => join(folder, name))
    .find((path) => isExecutable(path))
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

/** Debian packages a host lacks to run virtual machines. */
export function missingMachinePackages(searchPath: string): string[] {
  return [
    ...(findProgram('qemu-system-x86_64', searchPath) ? [] : ['qemu-system-x86']),
    ...(existsSync(firmwareFiles.code) && existsSync(firmwareFiles.vars) ? [] : ['ovmf']),
    ...(existsSync('/usr/lib/ipxe/qemu/efi-virtio.rom') ? [] : ['ipxe-qemu']),
  ]
}

/** A machine's own copy of the firmware's variables; an existing one is kept. */
export function prepareFirmwareVars(path: string): void {
  if (!existsSync(path)) copyFileSync(firmwareFiles.vars, path)
}

/** Memory the host can give away without swapping. */
export function availableMemoryMiB(): number {
  const found = /MemAvailable:\s+(\d+) kB/.exec(readFileSync('/proc/meminfo', 'utf8'))
  return Math.floor(Number(found?.[1] ?? 0) / 1024)
}

export function checkMemory(neededMiB: number): void {
  const available = availableMemoryMiB()
  if (available < neededMiB) {
    throw new Fault('MEMORY_SHORT', `needs ${neededMiB} MiB of memory, ${available} MiB are available`, {
      remedy: 'use fewer machines (--nodes) or smaller ones (--memory)',
    })
  }
}

export function freeDiskMiB(folder: string): number {
  const { bavail, bsize } = statfsSync(folder)
  return Math.floor((bavail * bsize) / (1024 * 1024))
}

export function checkDisk(folder: string, neededMiB: number): void {
  const free = freeDiskMiB(folder)
  if (free < neededMiB) {
    throw new Fault('DISK_SHORT', `needs ${neededMiB} MiB in ${folder}, ${free} MiB are free`, {
      remedy: 'free some space or choose another folder (--state)',
    })
  }
}

/** Free ports of the loopback. Another process may still take one first; whoever listens must say so. */
export async function freePorts(count: number): Promise<number[]> {
  const probes = Array.from({ length: count }, () => createServer())
  try {
    return await Promise.all(
      probes.map(
        (probe) =>
          new Promise<number>((resolve, reject) => {
            probe.once('error', reject)
            probe.listen(0, '127.0.0.1', () => {
              const address = probe.address()
              if (address && typeof address === 'object') resolve(address.port)
              else reject(new Error('no port'))
            })
          }),
      ),
    )
  } finally {
    for (const probe of probes) probe.close()
  }
}

/** Refuses with `PORT_TAKEN` if somebody listens on a port of the loopback. */
export async function checkPort(port: number, purpose: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const probe = createServer()
    probe.once('error', (cause) =>
      reject(
        new Fault('PORT_TAKEN', `port ${port} for ${purpose} is taken`, {
          cause,
          remedy: 'stop whoever listens there or choose another port',
        }),
      ),
    )
    probe.listen(port, '127.0.0.1', () => probe.close(() => resolve()))
  })
}

/** Time for a firmware to say its first word; half a second is usual. */
const probeTimeoutMs = 8_000

/**
 * KVM only where it works: `/dev/kvm` may be there and still not run a guest (nested, forbidden, broken), so a probe
 * boots SeaBIOS and waits for its banner on the debug port.
 */
export async function chooseAccelerator(): Promise<'kvm' | 'tcg'> {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK)
  } catch {
    return 'tcg'
  }
  const child = spawn(
    'qemu-system-x86_64',
    [
      ...['-accel', 'kvm', '-machine', 'q35', '-cpu', 'host', '-m', '64', '-nodefaults', '-no-user-config'],
      ...[
        '-display',
        'none',
        '-chardev',
        'stdio,id=debug',
        '-device',
        'isa-debugcon,iobase=0x402,chardev=debug',
      ],
    ],
    { stdio: ['ignore', 'pipe', 'ignore'] },
  )
  return await new Promise((resolve) => {
    let said = ''
    const decide = (result: 'kvm' | 'tcg'): void => {
      clearTimeout(timer)
      child.kill('SIGKILL')
      resolve(result)
    }
    const timer = setTimeout(() => decide('tcg'), probeTimeoutMs)
    child.once('error', () => decide('tcg'))
    child.once('exit', () => decide('tcg'))
    child.stdout.on('data', (chunk: Buffer) => {
      said += chunk.toString('latin1')
      if (said.includes('SeaBIOS')) decide('kvm')
    })
  })
}

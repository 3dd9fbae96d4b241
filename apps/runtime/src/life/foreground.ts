import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { describeError, Fault } from '@kiln/service'
import type { PodEntry } from './pod-entry.ts'

type ForegroundPorts = {
  print(line: string): void
  complain(line: string): void
  call<T>(method: 'GET' | 'POST', path: string, body?: unknown): Promise<T>
  at(name: string, verb?: string): string
  entry(id: string): Promise<PodEntry>
  /** Tells whoever supervises this command, as sd_notify(3) has it. */
  notify?: ((state: string) => void) | undefined
}

const lookEveryMs = 100

/** How long the daemon may be away, as when it is replaced: its pods run on meanwhile. */
const awayMs = 120_000

/**
 * Shows what a pod writes until it is over; answers its exit code. A signal stops the pod, a second one kills it. systemd hears when it is
 * ready, so that a unit of `Type=notify` owns the pod.
 */
export async function runInForeground(uuid: string, ports: ForegroundPorts): Promise<number> {
  let asked = 0
  const stop = (): void => {
    asked++
    ports.notify?.('STOPPING=1')
    ports
      .call('POST', ports.at(uuid, '/stop'), asked > 1 ? { graceSeconds: 0 } : {})
      .catch((error: unknown) => ports.complain(describeError(error)))
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, stop)
  const output = await followOutput(uuid, ports)
  const told = new Map<string, string>()
  let ready = false
  try {
    for (;;) {
      const entry = await entryOf(uuid, ports)
      if (entry.ready && !ready) ports.notify?.('READY=1')
      ready ||= entry.ready
      for (const { name, waits } of entry.apps) {
        if (waits === undefined || told.get(name) === waits) continue
        told.set(name, waits)
        ports.complain(`kiln-runtime: ${name} cannot be started, and is tried again: ${waits}`)
      }
      if (!entry.supervised) return entry.exitCode ?? 254
      await sleep(lookEveryMs)
    }
  } finally {
    await output.end()
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.off(signal, stop)
  }
}

async function entryOf(uuid: string, ports: ForegroundPorts): Promise<PodEntry> {
  const deadline = performance.now() + awayMs
  for (;;) {
    try {
      return await ports.entry(uuid)
    } catch (error) {
      const away = error instanceof Fault && error.code === 'RUNTIME_UNREACHABLE'
      if (!away || performance.now() > deadline) throw error
      await sleep(lookEveryMs)
    }
  }
}

/** The lines of the containers as they write them, without the time and stream that log files have. */
async function followOutput(uuid: string, ports: ForegroundPorts): Promise<{ end(): Promise<void> }> {
  const place = await ports
    .call<{ journal: boolean; files: string[] }>('GET', `/v1/life/${uuid}/logs`)
    .catch(() => undefined)
  if (!place) return { end: async () => undefined }
  const [command, args]: [string, string[]] = place.journal
    ? ['journalctl', ['--output=cat', '--lines=all', '--follow', `KILN_POD_UID=${uuid}`]]
    : ['tail', ['-q', '--lines=+1', '--follow=name', '--retry', '--sleep-interval=0.1', ...place.files]]
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'ignore'] })
  child.on('error', (error) => ports.complain(`output is not shown: ${error.message}`))
  const lines = createInterface({ input: child.stdout })
  lines.on('line', (line) => ports.print(place.journal ? line : line.replace(/^\S+ std(out|err) [FP] /, '')))
  const closed = new Promise<void>((resolve) => lines.once('close', resolve))
  return {
    end: async () => {
      // What was written last is still on its way.
      await sleep(place.journal ? 500 : 300)
      child.kill()
      await closed
    },
  }
}

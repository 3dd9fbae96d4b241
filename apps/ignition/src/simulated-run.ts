import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Clock, Fault } from '@kiln/service'
import type { RunCommand } from './commands.ts'
import { machineDevices } from './devices.ts'
import { defaultFetchSettings } from './fetch-resource.ts'
import type { Http, HttpCall, HttpReply } from './http-request.ts'
import { parseKernelArguments } from './kernel-arguments.ts'
import { parseOptions } from './options.ts'
import { createReporter } from './reporter.ts'
import type { Run } from './run.ts'

/** A run into a temporary folder with everything it says, for tests. */
export type SimulatedRun = {
  run: Run
  folder: string
  root: string
  said: string[]
  calls: HttpCall[]
  commands: string[]
}

/** Time that passes when somebody waits for it. */
export function hurryingClock(): Clock {
  let now = 0
  return {
    now: () => now,
    after(ms, fn) {
      let cancelled = false
      setImmediate(() => {
        if (cancelled) return
        now += ms
        fn()
      })
      return () => {
        cancelled = true
      }
    },
  }
}

export type Answer = { status: number; body?: string | Buffer; headers?: Record<string, string> } | Error

/** Answers requests by path, one answer after the other; the last one stays. */
export function answering(answers: Record<string, Answer | Answer[]>, calls: HttpCall[] = []): Http {
  const asked = new Map<string, number>()
  return async (call: HttpCall): Promise<HttpReply> => {
    calls.push(call)
    const path = new URL(call.url).pathname
    const list = [answers[path] ?? { status: 404 }].flat()
    const count = asked.get(path) ?? 0
    asked.set(path, count + 1)
    const answer = list[Math.min(count, list.length - 1)]!
    if (answer instanceof Error) throw answer
    return { status: answer.status, headers: answer.headers ?? {}, body: Buffer.from(answer.body ?? '') }
  }
}

export function simulatedRun(
  given: { flags?: string[]; http?: Http; calls?: HttpCall[]; cmdline?: string; folder?: string } = {},
): SimulatedRun {
  const folder = given.folder ?? mkdtempSync(join(tmpdir(), 'kiln-ignition-'))
  const root = join(folder, 'root')
  const flags = ['--platform', 'file', '--stage', 'all', '--root', root, '--machine', 'node1']
  const options = parseOptions([...flags, ...(given.flags ?? [])], {})
  const said: string[] = []
  const calls = given.calls ?? []
  const commands: string[] = []
  const clock = hurryingClock()
  const http = given.http ?? answering({}, calls)
  const reporter = createReporter({
    http,
    clock,
    bootUrl: options.bootUrl,
    machine: options.machine,
    write: (text) => said.push(text.trimEnd()),
    own: false,
  })
  const command: RunCommand = async (name, args) => {
    commands.push([name, ...args].join(' '))
    throw new Fault('COMMAND_MISSING', `${name} must not run here`)
  }
  const run: Run = {
    options,
    kernel: parseKernelArguments(given.cmdline ?? ''),
    reporter,
    command,
    devices: machineDevices(options, command, clock),
    hasProgram: (name) => name.startsWith('mk'),
    clock,
    now: () => new Date('2026-01-02T03:04:05Z'),
    accountDate: () => new Date('2026-01-02T03:04:05Z'),
    fetcher: { http, clock, network: true },
    settings: defaultFetchSettings,
    machine: options.machine,
    privileged: false,
    untold: [],
    acted: () => undefined,
    warn: (line) => said.push(`warning: ${line}`),
  }
  return { run, folder, root, said, calls, commands }
}

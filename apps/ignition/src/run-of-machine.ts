import { readFileSync } from 'node:fs'
import { systemClock } from '@kiln/service'
import { runCommand } from './commands.ts'
import { machineDevices } from './devices.ts'
import { defaultFetchSettings, type Fetcher } from './fetch-resource.ts'
import { sendHttp } from './http-request.ts'
import { parseKernelArguments } from './kernel-arguments.ts'
import { cloudIdentity } from './machine-attributes.ts'
import type { CloudIdentity } from './object-store.ts'
import type { Options } from './options.ts'
import { proxyOfEnvironment } from './proxy-rules.ts'
import { createReporter } from './reporter.ts'
import { programsOf } from './required-tools.ts'
import type { Run } from './run.ts'

/** Programs that work on devices of their own, which a disk image has not. */
const deviceTools = ['mdadm', 'cryptsetup', 'clevis', 'ignition-kargs-helper']

/** Options, kernel arguments and the real ports, put together. `write` gets every line of the log. */
export function createRun(
  options: Options,
  env: Record<string, string | undefined>,
  write: (text: string) => void,
): Run {
  const kernel = parseKernelArguments(
    options.platform === 'file' ? '' : readFileSync(options.cmdline, 'utf8'),
  )
  const bootUrl = options.bootUrl ?? kernel.bootUrl
  const machine = options.machine ?? kernel.machine
  const reporter = createReporter({
    http: sendHttp,
    clock: systemClock,
    bootUrl,
    machine,
    write,
    own: options.diskImage === undefined,
  })
  const said = new Set<string>()
  const has = programsOf(env['PATH'])
  const epoch = env['SOURCE_DATE_EPOCH']
  return {
    options,
    kernel,
    reporter,
    command: runCommand,
    hasProgram: (name) => !(options.diskImage !== undefined && deviceTools.includes(name)) && has(name),
    devices: machineDevices(options, runCommand, systemClock),
    clock: systemClock,
    now: () => new Date(),
    // As useradd(8) does, for trees that must come out the same every time.
    accountDate: () =>
      epoch !== undefined && /^\d+$/.test(epoch) ? new Date(Number(epoch) * 1000) : new Date(),
    fetcher: {
      http: sendHttp,
      clock: systemClock,
      network: true,
      identity: identityOf(options),
      retrying: ({ url, attempt, problem }) => reporter.say(`fetch: ${url}, try ${attempt}: ${problem}`),
    },
    settings: { ...defaultFetchSettings, proxy: proxyOfEnvironment(env) },
    machine,
    privileged: process.getuid?.() === 0,
    untold: [],
    acted: () => undefined,
    warn(line) {
      if (!said.has(line)) reporter.say(`warning: ${line}`)
      said.add(line)
    },
  }
}

/** What the instance shows to its own cloud, asked for once: a token outlives a run. */
function identityOf({ platform }: Options): Fetcher['identity'] {
  let known: Promise<CloudIdentity> | undefined
  return async (cloud) => {
    if (cloud !== platform) return {}
    known ??= cloudIdentity(platform, { http: sendHttp, clock: systemClock, network: true })
    return known
  }
}

import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import type { PodManifest, PodStatus } from '@kiln/schemas'
import { atomicWrite, describeError, Fault } from '@kiln/service'
import type { Command } from 'commander'
import { readPods } from '../pod-files.ts'
import { podTable } from '../pod-table.ts'
import {
  type AppOptions,
  type NetworkOptions,
  readApp,
  type WholeOptions,
  withAppOptions,
  withNetworkOptions,
  withWholeOptions,
} from './app-flags.ts'
import { podOfApps } from './app-options.ts'
import { runInForeground } from './foreground.ts'
import { entryLines, entryTable } from './life-table.ts'
import type { PodEntry } from './pod-entry.ts'

export type LifePorts = {
  print(line: string): void
  complain(line: string): void
  call<T>(method: 'GET' | 'POST', path: string, body?: unknown): Promise<T>
  at(name: string, verb?: string): string
  show(status: PodStatus, json: boolean | undefined): void
  /** With `tty` the program gets a terminal of its own, joined with ours. */
  enter(name: string, args: string[], container: string | undefined, tty: boolean): Promise<void>
  exit(code: number): void
  notify?: ((state: string) => void) | undefined
  /** Variables of whoever asks, for `--inherit-env`. */
  environment?: Record<string, string> | undefined
  /** What of the command line was after `---`. */
  moreApps: string[][]
}

type PodOptions = AppOptions & WholeOptions & { podManifest?: string; uuidFileSave?: string; quiet?: boolean }

/** What rkt exits with when the pod itself could not be run. */
const runtimeFailed = 254

const seconds = (text: string, flag: string): number => {
  const [, number, unit] = /^(\d{1,8}(?:\.\d+)?)(ms|s|m|h|)$/.exec(text) ?? []
  if (number === undefined)
    throw new Fault('REQUEST_INVALID', `${flag} takes a time such as 30m, not ${text}`)
  return Number(number) * { ms: 0.001, s: 1, m: 60, h: 3600, '': 1 }[unit as 'ms' | 's' | 'm' | 'h' | '']
}

/** rkt's life cycle of pods by uuid, on top of the daemon's `/v1/life`. */
export function addLifeCommands(program: Command, ports: LifePorts): void {
  const { print, call, at } = ports
  const life = (id: string, verb = ''): string => `/v1/life/${encodeURIComponent(id)}${verb}`
  const entry = (id: string): Promise<PodEntry> => call('GET', life(id))
  /** Errors of the runtime must not look like the code of an app. */
  const asRkt = async (work: () => Promise<void>): Promise<void> => {
    try {
      await work()
    } catch (error) {
      ports.complain(`kiln-runtime: ${describeError(error)}`)
      ports.exit(runtimeFailed)
    }
  }
  const prepare = async (image: string | undefined, args: string[], options: PodOptions): Promise<string> => {
    const pod =
      options.podManifest === undefined
        ? await podOfFlags(image, args, options)
        : await podOfFile(image, options)
    const { uuid } = await call<{ uuid: string }>('POST', '/v1/life', pod)
    if (options.uuidFileSave !== undefined) await atomicWrite(options.uuidFileSave, `${uuid}\n`)
    return uuid
  }
  const uuidOf = async (uuid: string | undefined, file: string | undefined): Promise<string[]> => {
    const saved = file === undefined ? [] : [(await readText(file)).trim()]
    const all = [...(uuid === undefined ? [] : [uuid]), ...saved]
    if (all.length === 0)
      throw new Fault('REQUEST_INVALID', 'name a pod, or a file with its uuid by --uuid-file')
    return all
  }
  const foreground = async (id: string, network: NetworkOptions = {}): Promise<void> => {
    const { uuid } = await call<PodEntry>('POST', life(id, '/run'), network)
    ports.exit(await runInForeground(uuid, { ...ports, entry }))
  }

  const podOfFlags = async (
    image: string | undefined,
    args: string[],
    options: PodOptions,
  ): Promise<PodManifest> => {
    if (image === undefined) throw new Fault('REQUEST_INVALID', 'name an image, or a file by --pod-manifest')
    return podOfApps(
      [{ image, args, options }, ...ports.moreApps.map(readApp)],
      options,
      randomUUID().slice(0, 8),
      {
        environment: ports.environment ?? {},
        envFiles: await Promise.all((options.setEnvFile ?? []).map(readEnvFile)),
      },
    )
  }
  const podOfFile = async (image: string | undefined, options: PodOptions): Promise<PodManifest> => {
    const { podManifest, uuidFileSave: _, quiet: __, ...others } = options
    if (image !== undefined || ports.moreApps.length > 0 || Object.keys(others).length > 0)
      throw new Fault(
        'REQUEST_INVALID',
        '--pod-manifest says all of the pod: no image and no flags of apps beside it',
      )
    const [pod, ...more] = await readPods(podManifest!)
    if (!pod || more.length > 0) throw new Fault('POD_INVALID', 'one pod at a time: the file has several')
    return pod
  }
  const podOf = (command: Command): Command =>
    withAppOptions(
      withWholeOptions(
        command
          .option('--pod-manifest <file>', 'the whole pod, as YAML or JSON')
          .option('--uuid-file-save <file>', 'write the uuid there'),
      ),
    ).addHelpText(
      'after',
      '\nFurther apps of the pod follow after ---, each with its image, flags and, after --, arguments.',
    )
  podOf(program.command('prepare [image] [args...]'))
    .description('fetch what a pod needs and make its folder; prints its uuid')
    .option('-q, --quiet', 'only the uuid')
    .action((image: string | undefined, args: string[], options: PodOptions) =>
      asRkt(async () => {
        if (!options.quiet) ports.complain('fetching and unpacking images')
        print(await prepare(image, args, options))
      }),
    )
  withNetworkOptions(program.command('run-prepared <uuid>'))
    .description('run a prepared pod here until it is over')
    .action((id: string, options: NetworkOptions) => asRkt(() => foreground(id, options)))
  podOf(program.command('run [image] [args...]'))
    .description(
      'prepare a pod and run it here until it is over; the exit code is its own, 254 if it could not be run',
    )
    .action((image: string | undefined, args: string[], options: PodOptions) =>
      asRkt(async () => foreground(await prepare(image, args, options))),
    )
  program
    .command('list')
    .description('all pods, one a line')
    .option('--full', 'whole uuids, and all apps with their images')
    .option('--no-legend', 'without the first line')
    .option('--format <format>', 'json or json-pretty')
    .option('--json', 'statuses of the pods that run, as JSON')
    .action(async (options: { full?: boolean; legend: boolean; format?: string; json?: boolean }) => {
      if (options.json) return print(JSON.stringify(await call('GET', '/v1/pods'), undefined, 2))
      const entries = await call<PodEntry[]>('GET', '/v1/life')
      if (options.format !== undefined) return print(formatted(entries, options.format))
      if (options.full)
        return entryTable(entries, true)
          .slice(options.legend ? 0 : 1)
          .forEach(print)
      const pods = await call<PodStatus[]>('GET', '/v1/pods')
      podTable(pods, entries)
        .slice(options.legend ? 0 : 1)
        .forEach(print)
    })
  program
    .command('status [pod]')
    .description('one pod: with its containers by its name, as key=value by its uuid')
    .option('--json', 'as JSON')
    .option('--format <format>', 'json or json-pretty')
    .option('--uuid-file <file>', 'a file with the uuid')
    .option('--wait', 'until the pod is over')
    .option('--wait-ready [time]', 'until its containers are ready')
    .action(async (name: string | undefined, options: StatusOptions) => {
      const [id] = await uuidOf(name, options.uuidFile)
      const found = await waitFor(
        await entry(id!).catch((error: unknown) => failUnlessRefused(error, id!)),
        options,
      )
      if (found && (found.name !== id || !found.supervised)) {
        if (options.json || options.format) return print(formatted(found, options.format ?? 'json-pretty'))
        return entryLines(found).forEach(print)
      }
      ports.show(await call('GET', at(id!)), options.json)
    })
  /** A pod that is refused has a status and no uuid. */
  const failUnlessRefused = async (error: unknown, id: string): Promise<undefined> => {
    const pods = await call<PodStatus[]>('GET', '/v1/pods')
    if (!pods.some(({ name }) => name === id)) throw error
  }
  const waitFor = async (
    first: PodEntry | undefined,
    options: StatusOptions,
  ): Promise<PodEntry | undefined> => {
    const forReady = options.waitReady !== undefined
    const limit =
      typeof options.waitReady === 'string'
        ? seconds(options.waitReady, '--wait-ready')
        : Number.POSITIVE_INFINITY
    const deadline = Date.now() + limit * 1000
    let now = first
    const over = (each: PodEntry): boolean => /^(exited|deleting|aborted)/.test(each.state)
    while (now && (options.wait || forReady) && !over(now) && !(forReady && now.ready)) {
      if (Date.now() > deadline) throw new Fault('POD_NOT_RUNNING', `pod ${now.uuid} is not ready in time`)
      await sleep(100)
      now = await entry(now.uuid)
    }
    if (now && forReady && !now.ready)
      throw new Fault('POD_NOT_RUNNING', `pod ${now.uuid} is over and was not seen ready`)
    return now
  }
  program
    .command('stop [pods...]')
    .description(
      'stop pods: asked first, killed after their grace; those of files and the store are kept, stopped',
    )
    .option('--grace <seconds>', 'instead of the pod\u2019s own grace period')
    .option('--force', 'kill at once')
    .option('--uuid-file <file>', 'a file with the uuid')
    .option('--json', 'as JSON')
    .action(async (names: string[], options: StopOptions) => {
      const grace = options.force ? { graceSeconds: 0 } : graceOf(options)
      await each(
        [...names, ...(options.uuidFile ? await uuidOf(undefined, options.uuidFile) : [])],
        async (id) => ports.show(await call('POST', at(id, '/stop'), grace), options.json),
      )
    })
  program
    .command('rm [pods...]')
    .description('forget pods: those that were applied are stopped before; those run by run must be over')
    .option('--grace <seconds>', 'instead of the pod\u2019s own grace period')
    .option('--uuid-file <file>', 'a file with the uuid')
    .action(async (names: string[], options: StopOptions) => {
      const grace = graceOf(options)
      await each(
        [...names, ...(options.uuidFile ? await uuidOf(undefined, options.uuidFile) : [])],
        async (id) => {
          const found = await entry(id).catch((error: unknown) => failUnlessRefused(error, id))
          if (found && (!found.supervised || found.once)) await call('POST', life(found.uuid, '/remove'), {})
          else await call('POST', at(id, '/remove'), grace)
        },
      )
    })
  program
    .command('gc')
    .description('mark pods that are over, and remove those marked longer ago than the grace')
    .option('--grace-period <time>', 'between the mark and the removal', '30m')
    .option('--expire-prepared <time>', 'how long a prepared pod is kept', '24h')
    .option('--mark-only', 'remove nothing')
    .action(async (options: { gracePeriod: string; expirePrepared: string; markOnly?: boolean }) => {
      const { marked, removed } = await call<{ marked: string[]; removed: string[] }>('POST', '/v1/life-gc', {
        graceSeconds: seconds(options.gracePeriod, '--grace-period'),
        expirePreparedSeconds: seconds(options.expirePrepared, '--expire-prepared'),
        markOnly: options.markOnly ?? false,
      })
      for (const uuid of marked) print(`${uuid}: marked`)
      for (const uuid of removed) print(`${uuid}: removed`)
    })
  program
    .command('enter <pod> [command...]')
    .description('run a program, or a shell, in a pod; --app is needed when it has several')
    .option('--app <name>', 'which container')
    .passThroughOptions()
    .action((id: string, args: string[], options: { app?: string }) =>
      asRkt(async () => {
        const { apps, name } = await entry(id)
        if (apps.length > 1 && options.app === undefined)
          throw new Fault('POD_AMBIGUOUS', `name one of ${apps.map((app) => app.name).join(', ')} by --app`)
        const command = args.length === 0 ? ['/bin/sh'] : args
        await ports.enter(name, command, options.app, process.stdin.isTTY === true)
      }),
    )
  program
    .command('cat-manifest <pod>')
    .description('the manifest of a pod, as it is run')
    .action(async (id: string) =>
      print(JSON.stringify(await call('GET', life(id, '/manifest')), undefined, 2)),
    )
  program
    .command('export <pod> <file>')
    .description('write the files of a container that is over, with its changes, as a tar archive')
    .option('--app <name>', 'which container; needed when there are several')
    .action(async (id: string, file: string, options: { app?: string }) => {
      const { layers } = await call<{ layers: string[] }>('POST', life(id, '/layers'), options)
      await writeTree(layers, file)
    })

  /** All are tried; the first failure is the command's. */
  async function each(ids: string[], work: (id: string) => Promise<void>): Promise<void> {
    if (ids.length === 0) throw new Fault('REQUEST_INVALID', 'name a pod')
    const failures: unknown[] = []
    for (const id of ids) await work(id).catch((error: unknown) => void failures.push(error))
    for (const error of failures.slice(1)) ports.complain(`kiln-runtime: ${describeError(error)}`)
    if (failures.length > 0) throw failures[0]
  }
}

type StatusOptions = {
  json?: boolean
  format?: string
  uuidFile?: string
  wait?: boolean
  waitReady?: string | true
}
type StopOptions = { grace?: string; force?: boolean; uuidFile?: string; json?: boolean }

function graceOf({ grace }: StopOptions): { graceSeconds?: number } {
  if (grace === undefined) return {}
  if (!/^\d{1,4}$/.test(grace)) throw new Fault('REQUEST_INVALID', `--grace takes seconds, not ${grace}`)
  return { graceSeconds: Number(grace) }
}

function formatted(value: unknown, format: string): string {
  if (format === 'json') return JSON.stringify(value)
  if (format === 'json-pretty') return JSON.stringify(value, undefined, 2)
  throw new Fault('REQUEST_INVALID', `--format is json or json-pretty, not ${format}`)
}

async function readEnvFile(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (cause) {
    throw new Fault('REQUEST_INVALID', `cannot read --set-env-file ${file}`, { cause })
  }
}

function readText(file: string): Promise<string> {
  return readFile(file, 'utf8').catch((cause: unknown) => {
    throw new Fault('POD_NOT_FOUND', `cannot read ${file}`, { cause })
  })
}

/** The layers are shown as one tree, for tar alone: nothing is mounted for others, or left. */
async function writeTree(layers: string[], file: string): Promise<void> {
  const script = 'mount -t overlay -o "ro,lowerdir=$1" overlay /mnt && exec tar --xattrs -C /mnt -cf - .'
  const args = ['--mount', '--propagation=private', 'sh', '-c', script, 'sh', layers.join(':')]
  const { createWriteStream } = await import('node:fs')
  const { pipeline } = await import('node:stream/promises')
  const child = spawn('unshare', args, { stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = new Promise<void>((resolve, reject) => {
    child.on('error', reject)
    child.on('exit', (status) =>
      status === 0 ? resolve() : reject(new Fault('TOOL_FAILED', `tar ended with ${status}`)),
    )
  })
  await Promise.all([pipeline(child.stdout, file === '-' ? process.stdout : createWriteStream(file)), ended])
}

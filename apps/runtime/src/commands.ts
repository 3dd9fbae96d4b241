import { spawn } from 'node:child_process'
import { rm } from 'node:fs/promises'
import type { PodStatus } from '@kiln/schemas'
import { describeError, Fault, version } from '@kiln/service'
import { Command, CommanderError } from 'commander'
import { callRuntime, callRuntimeLines, exitCodeOf, followRuntime } from './client.ts'
import { addEventCommands } from './events/event-commands.ts'
import { addImageCommands } from './image-commands.ts'
import { splitApps } from './life/app-flags.ts'
import { addLifeCommands } from './life/life-commands.ts'
import type { PodEntry } from './life/pod-entry.ts'
import { addNetworkCommands } from './network-commands.ts'
import { readPods } from './pod-files.ts'
import { podLines } from './pod-table.ts'

export type CommandPorts = {
  socket: string
  print(line: string): void
  complain(line: string): void
  /** Shows how work goes on, in place of what was shown before. */
  status?: ((text: string) => void) | undefined
  /** Tells systemd how a pod in the foreground is, for units of `Type=notify`. */
  notify?: ((state: string) => void) | undefined
  /** Variables of whoever asks; none where they are not to be handed on. */
  environment?: Record<string, string> | undefined
}

/** The command line: everything is asked of the daemon, except that programs and journals need this terminal. */
export async function runCommand(line: string[], ports: CommandPorts): Promise<number> {
  let code = 0
  const { argv, more } = splitApps(line)
  const program = new Command('kiln-runtime')
    .description('runs the pods of this machine; without a command it is the daemon itself')
    .version(version, '--version')
    .option('--socket <path>', 'where the daemon listens', ports.socket)
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({
      writeOut: (text) => ports.print(text.trimEnd()),
      writeErr: (text) => ports.complain(text.trimEnd()),
    })
  const socket = (): string => program.opts<{ socket: string }>().socket
  const call = <T>(method: 'GET' | 'POST', path: string, body?: unknown): Promise<T> =>
    callRuntime<T>(socket(), method, path, body)
  const at = (name: string, verb = ''): string => `/v1/pods/${encodeURIComponent(name)}${verb}`
  const show = (status: PodStatus, json: boolean | undefined): void =>
    json ? ports.print(JSON.stringify(status, undefined, 2)) : podLines(status).forEach(ports.print)

  program.command('daemon').description('run the daemon (also without any command)')
  program
    .command('apply <file>')
    .description('keep the pods of a file (- for standard input) running until they are removed')
    .option('--json', 'as JSON')
    .action(async (file: string, options: { json?: boolean }) => {
      for (const pod of await readPods(file)) show(await call('POST', '/v1/pods', pod), options.json)
    })
  program
    .command('start <pod>')
    .description('start a stopped pod, or retry at once')
    .option('--json', 'as JSON')
    .action(async (name: string, options: { json?: boolean }) =>
      show(await call('POST', at(name, '/start'), {}), options.json),
    )
  program
    .command('logs <pod>')
    .description('what the containers have written')
    .option('-c, --container <name>', 'one container only')
    .option('-n, --lines <count>', 'the last lines only')
    .option('-f, --follow', 'go on as it is written')
    .action(async (name: string, options: LogOptions) => {
      const { uuid, supervised } = await call<PodEntry>('GET', `/v1/life/${encodeURIComponent(name)}`)
      // By name what earlier pods of that name have written is shown as well, as long as the journal has it.
      const [place, match] = supervised
        ? [
            await call<LogPlace>('GET', at(name, '/logs')),
            name === uuid ? `KILN_POD_UID=${uuid}` : `KILN_POD=${name}`,
          ]
        : [await call<LogPlace>('GET', `/v1/life/${uuid}/logs`), `KILN_POD_UID=${uuid}`]
      code = await showLogs(place, match, options)
    })
  const enter = async (
    name: string,
    args: string[],
    container: string | undefined,
    tty: boolean,
  ): Promise<void> => {
    const { stdout } = process
    const terminal = {
      rows: stdout.rows ?? 24,
      columns: stdout.columns ?? 80,
      type: ports.environment?.['TERM'],
    }

    const { planFile, initPath } = await call<{ planFile: string; initPath: string }>(
      'POST',
      at(name, '/exec'),
      {
        args: args[0] === '--' ? args.slice(1) : args,
        ...(container === undefined ? {} : { container }),
        ...(tty ? { terminal } : {}),
      },
    )
    try {
      code = await runAttached(initPath, ['exec', planFile])
    } finally {
      await rm(planFile, { force: true })
    }
  }
  program
    .command('exec <pod> <command...>')
    .description('run a program in a container, with input, output and exit code of here')
    .option('-c, --container <name>', 'which container; the first by default')
    .option('-t, --tty', 'with a terminal of its own, for shells and the like', false)
    .option('-i, --interactive', 'hand on the input, which is done anyway')
    .passThroughOptions()
    .action((name: string, args: string[], options: { container?: string; tty: boolean }) =>
      enter(name, args, options.container, options.tty),
    )
  addLifeCommands(program, {
    ...ports,
    call,
    at,
    show,
    enter,
    moreApps: more,
    exit: (wanted) => {
      code = wanted
    },
  })
  addEventCommands(program, {
    ...ports,
    events: (query, heard) => followRuntime(socket(), `/v1/events?${query}`, heard),
  })
  addImageCommands(program, {
    ...ports,
    list: () => call('GET', '/v1/images'),
    ask: (what, body, onProgress) => callRuntimeLines(socket(), `/v1/images/${what}`, body, onProgress),
    exit: (wanted) => {
      code = wanted
    },
  })
  addNetworkCommands(program, {
    ...ports,
    list: () => call('GET', '/v1/networks'),
    collect: () => call('POST', '/v1/networks/gc'),
    exit: (wanted) => {
      code = wanted
    },
  })

  try {
    await program.parseAsync(argv, { from: 'user' })
    return code
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
    ports.complain(`kiln-runtime: ${describeError(error)}`)
    return exitCodeOf(error)
  }
}

type LogPlace = { journal: boolean; files: string[]; containers: string[] }
type LogOptions = { container?: string; lines?: string; follow?: boolean }

function showLogs(place: LogPlace, pod: string, options: LogOptions): Promise<number> {
  if (options.container !== undefined && !place.containers.includes(options.container))
    throw new Fault('POD_NOT_FOUND', `the pod has no container ${options.container}`)
  if (place.journal) {
    const match = [pod, ...(options.container ? [`KILN_CONTAINER=${options.container}`] : [])]
    const lines = options.lines ? [`--lines=${options.lines}`] : ['--lines=all']
    return runAttached('journalctl', [
      '--no-pager',
      '--output=short-iso',
      ...lines,
      ...(options.follow ? ['--follow'] : []),
      ...match,
    ])
  }
  const files = place.files.filter((file) => !options.container || file.includes(`/c-${options.container}/`))
  if (files.length === 0) return Promise.resolve(0)
  return runAttached('tail', [
    '-q',
    `--lines=${options.lines ?? '+1'}`,
    ...(options.follow ? ['--follow=name'] : []),
    ...files,
  ])
}

function runAttached(command: string, args: string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: 'inherit' })
    child.on('error', (cause) => reject(new Fault('TOOL_FAILED', `cannot run ${command}`, { cause })))
    child.on('exit', (status, signal) => resolve(status ?? (signal ? 130 : 1)))
  })
}

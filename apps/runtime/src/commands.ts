import { spawn } from 'node:child_process'
import { readFile, rm } from 'node:fs/promises'
import type { PodStatus } from '@kiln/schemas'
import { describeError, Fault, version } from '@kiln/service'
import { Command, CommanderError } from 'commander'
import { callRuntime, callRuntimeLines, exitCodeOf } from './client.ts'
import { addImageCommands } from './image-commands.ts'
import { alignColumns } from './image-table.ts'
import { addNetworkCommands } from './network-commands.ts'
import { parsePodText } from './pod-files.ts'

export type CommandPorts = {
  socket: string
  print(line: string): void
  complain(line: string): void
  /** Shows how work goes on, in place of what was shown before. */
  status?: ((text: string) => void) | undefined
}

/** The command line: everything is asked of the daemon, except that programs and journals need this terminal. */
export async function runCommand(argv: string[], ports: CommandPorts): Promise<number> {
  let code = 0
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
    .command('list')
    .description('all pods, one a line')
    .option('--json', 'as JSON')
    .action(async (options: { json?: boolean }) => {
      const pods = await call<PodStatus[]>('GET', '/v1/pods')
      if (options.json) ports.print(JSON.stringify(pods, undefined, 2))
      else podTable(pods).forEach(ports.print)
    })
  program
    .command('status <pod>')
    .description('one pod with its containers')
    .option('--json', 'as JSON')
    .action(async (name: string, options: { json?: boolean }) =>
      show(await call('GET', at(name)), options.json),
    )
  program
    .command('run <file>')
    .description('run the pods of a file (- for standard input) until they are removed')
    .option('--json', 'as JSON')
    .action(async (file: string, options: { json?: boolean }) => {
      const text = await readFile(file === '-' ? '/dev/stdin' : file, 'utf8').catch((cause: unknown) => {
        throw new Fault('POD_NOT_FOUND', `cannot read ${file}`, { cause })
      })
      const { pods, problems } = parsePodText(text)
      if (problems.length > 0) throw new Fault('POD_INVALID', problems.join('; '))
      for (const pod of pods) show(await call('POST', '/v1/pods', pod), options.json)
    })
  const grace = (options: { grace?: string }): object => {
    if (options.grace === undefined) return {}
    if (!/^\d{1,4}$/.test(options.grace)) program.error(`--grace takes seconds, not ${options.grace}`)
    return { graceSeconds: Number(options.grace) }
  }
  program
    .command('stop <pod>')
    .description('stop a pod and keep it')
    .option('--grace <seconds>', 'instead of the pod\u2019s own grace period')
    .option('--json', 'as JSON')
    .action(async (name: string, options: { grace?: string; json?: boolean }) =>
      show(await call('POST', at(name, '/stop'), grace(options)), options.json),
    )
  program
    .command('start <pod>')
    .description('start a stopped pod, or retry at once')
    .option('--json', 'as JSON')
    .action(async (name: string, options: { json?: boolean }) =>
      show(await call('POST', at(name, '/start'), {}), options.json),
    )
  program
    .command('rm <pod>')
    .description('stop and forget a pod that was run by hand')
    .option('--grace <seconds>', 'instead of the pod\u2019s own grace period')
    .action(async (name: string, options: { grace?: string }) => {
      await call('POST', at(name, '/remove'), grace(options))
    })
  program
    .command('logs <pod>')
    .description('what the containers have written')
    .option('-c, --container <name>', 'one container only')
    .option('-n, --lines <count>', 'the last lines only')
    .option('-f, --follow', 'go on as it is written')
    .action(async (name: string, options: LogOptions) => {
      code = await showLogs(await call('GET', at(name, '/logs')), name, options)
    })
  program
    .command('exec <pod> <command...>')
    .description('run a program in a container, with this terminal\u2019s input and output')
    .option('-c, --container <name>', 'which container; the first by default')
    .passThroughOptions()
    .action(async (name: string, args: string[], options: { container?: string }) => {
      const { planFile, initPath } = await call<{ planFile: string; initPath: string }>(
        'POST',
        at(name, '/exec'),
        {
          args: args[0] === '--' ? args.slice(1) : args,
          ...options,
        },
      )
      try {
        code = await runAttached(initPath, ['exec', planFile])
      } finally {
        await rm(planFile, { force: true })
      }
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

type LogOptions = { container?: string; lines?: string; follow?: boolean }

function showLogs(
  place: { journal: boolean; files: string[]; containers: string[] },
  name: string,
  options: LogOptions,
): Promise<number> {
  if (options.container !== undefined && !place.containers.includes(options.container))
    throw new Fault('POD_NOT_FOUND', `pod ${name} has no container ${options.container}`)
  if (place.journal) {
    const match = [`KILN_POD=${name}`, ...(options.container ? [`KILN_CONTAINER=${options.container}`] : [])]
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

export function podTable(pods: PodStatus[]): string[] {
  const rows = [
    ['POD', 'PHASE', 'READY', 'RESTARTS', 'ADDRESS', 'SOURCE', 'REASON'],
    ...pods.map((pod) => [
      pod.name,
      pod.phase,
      readyCount(pod),
      String(pod.containers.reduce((sum, container) => sum + container.restarts, 0)),
      pod.address ?? '-',
      pod.source,
      pod.containers.find((container) => container.reason)?.reason ?? pod.code ?? '',
    ]),
  ]
  return alignColumns(rows)
}

/** `1/2`: containers that are ready, of those that go on running. */
function readyCount({ containers }: PodStatus): string {
  const main = containers.filter(({ init }) => !init)
  const ready = main.filter((container) => container.ready ?? container.state === 'running')
  return `${ready.length}/${main.length}`
}

function podLines(pod: PodStatus): string[] {
  const ports = pod.ports.map(({ port, hostPort, protocol }) =>
    hostPort === undefined ? `${port}/${protocol}` : `${hostPort}->${port}/${protocol}`,
  )
  return [
    `${pod.name}: ${pod.phase}${pod.ready ? ', ready' : ''}${pod.address ? `, ${(pod.addresses ?? [pod.address]).join(' ')}` : ''}`,
    `  service ${pod.service}${ports.length > 0 ? `, ports ${ports.join(' ')}` : ''}, from ${pod.source}`,
    ...(pod.code ? [`  ${pod.code}: ${pod.message ?? ''}`] : []),
    ...pod.containers.map((container) => {
      const exit = container.lastExit
      const last = exit ? `, last exit ${exit.code}${exit.oomKilled ? ' (out of memory)' : ''}` : ''
      const why = container.reason ? ` (${container.reason})` : ''
      return `  ${container.name}: ${container.state}${why}, ${container.restarts} restarts${last}`
    }),
  ]
}

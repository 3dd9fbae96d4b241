import { readFile } from 'node:fs/promises'
import { RuntimeClient } from '@kiln/runtime-api'
import type { ContainerStats, Event, TerminalSize } from '@kiln/runtime-api/messages'
import { storeKeys } from '@kiln/schemas'
import { describeError, Fault } from '@kiln/service'
import { adminIdentity, listJson, withStore } from '../lab/cluster-store.ts'
import {
  type LabMachine,
  requireLab,
  requireMachine,
  type StateFolder,
  stateFolder,
} from '../lab/state-folder.ts'
import { table } from '../progress/table.ts'
import type { CommandContext } from './context.ts'

type Place = { state?: string }

const statsTimeoutMs = 10_000

/** `kiln pods logs`: what the containers of a pod write, on whatever machine it runs. */
export async function podLogs(
  options: Place & { pod: string; container?: string; lines?: number; follow: boolean },
  context: CommandContext,
): Promise<void> {
  const { container, lines, follow } = options
  await atPod(options, context, (client, pod) =>
    client.logs(
      {
        pod,
        follow,
        ...(container === undefined ? {} : { container }),
        ...(lines === undefined ? {} : { lines }),
      },
      context.print,
      context.signal,
    ),
  )
}

/**
 * `kiln pods exec`: runs a program in a container with this command's input and output; answers its exit code. With `tty` it gets a terminal, which has
 * the size of ours and each key that is pressed at ours, Ctrl-C included.
 */
export async function podExec(
  options: Place & { pod: string; args: string[]; container?: string; tty: boolean },
  context: CommandContext,
): Promise<number> {
  const { args, container, tty } = options
  const { stdin, stdout, stderr } = process
  const size = (): TerminalSize => ({ rows: stdout.rows ?? 24, columns: stdout.columns ?? 80 })
  const type = context.environment['TERM']
  const wanted = {
    args,
    ...(container === undefined ? {} : { container }),
    ...(tty ? { terminal: size(), ...(type ? { terminalType: type } : {}) } : {}),
  }
  const followSize = (heard: (size: TerminalSize) => void): (() => void) => {
    const changed = (): void => heard(size())
    stdout.on('resize', changed)
    return () => stdout.off('resize', changed)
  }
  const raw = tty && stdin.isTTY
  try {
    if (raw) stdin.setRawMode(true)
    return await atPod(options, context, (client, pod) =>
      client.exec(
        { pod, ...wanted },
        {
          input: stdin,
          output: (bytes) => void stdout.write(bytes),
          errorOutput: (bytes) => void stderr.write(bytes),
          ...(tty ? { followSize } : {}),
        },
        context.signal,
      ),
    )
  } finally {
    if (raw) stdin.setRawMode(false)
    // It may wait for input that nobody wants any more.
    stdin.destroy()
  }
}

/** `kiln pods events`: what happened to a pod, or to all pods of all machines. */
export async function podEvents(
  options: Place & { pod?: string; follow: boolean; json: boolean },
  context: CommandContext,
): Promise<void> {
  const seen: { machine: string; event: Event }[] = []
  const heard = (machine: string, event: Event): void => {
    if (options.json) context.print(eventJson(machine, event))
    else if (options.follow) context.print(eventCells(machine, event).join('  '))
    else seen.push({ machine, event })
  }
  const { pod } = options
  if (pod !== undefined)
    await atPod({ ...options, pod }, context, (client, name, machine) =>
      client.events({ pod: name, follow: options.follow }, (event) => heard(machine, event), context.signal),
    )
  else
    await atEveryMachine(options, context, (client, machine) =>
      client.events({ follow: options.follow }, (event) => heard(machine, event), context.signal),
    )
  if (options.json || options.follow) return
  seen.sort((a, b) => (a.event.at < b.event.at ? -1 : 1))
  const heading = ['TIME', 'TYPE', 'REASON', 'POD', 'MESSAGE']
  context.print(table([heading, ...seen.map(({ machine, event }) => eventCells(machine, event))]))
}

/** `kiln pods stats`: what the containers of a pod, or of all pods of all machines, use now. */
export async function podStats(
  options: Place & { pod?: string; json: boolean },
  context: CommandContext,
): Promise<void> {
  const seen: ({ machine: string } & ContainerStats)[] = []
  const ask = async (client: RuntimeClient, pod: string | undefined, machine: string): Promise<void> => {
    for (const each of await client.stats(pod, statsTimeoutMs)) seen.push({ machine, ...each })
  }
  const { pod } = options
  if (pod !== undefined) await atPod({ ...options, pod }, context, ask)
  else await atEveryMachine(options, context, (client, machine) => ask(client, undefined, machine))
  if (options.json) return context.print(JSON.stringify(seen, plainNumbers, 2))
  const heading = ['MACHINE', 'POD', 'CONTAINER', 'CPU', 'MEMORY', 'PEAK', 'LIMIT', 'PROCESSES', 'OOM KILLS']
  context.print(table([heading, ...seen.map(statsCells)]))
}

const plainNumbers = (_: string, value: unknown): unknown =>
  typeof value === 'bigint' ? Number(value) : value

const mebibytes = (bytes: bigint | undefined): string =>
  bytes === undefined ? '-' : `${(Number(bytes) / 2 ** 20).toFixed(1)} MiB`

function statsCells(each: { machine: string } & ContainerStats): string[] {
  const { machine, pod, container, processes, oomKills } = each
  return [
    machine,
    pod,
    container,
    `${(Number(each.cpuMicroseconds) / 1e6).toFixed(2)} s`,
    mebibytes(each.memoryBytes),
    mebibytes(each.memoryPeakBytes),
    mebibytes(each.memoryLimitBytes),
    String(processes),
    String(oomKills),
  ]
}

function eventCells(machine: string, { at, warning, reason, pod, container, message }: Event): string[] {
  const where = `${machine}/${pod}${container === undefined ? '' : `/${container}`}`
  return [at, warning ? 'Warning' : 'Normal', reason, where, message]
}

const eventJson = (machine: string, event: Event): string =>
  JSON.stringify({ machine, ...event }, plainNumbers)

/** A pod is named `MACHINE/POD`, or by its own name or uuid where only one machine has it. Pure. */
export function findPod(
  pods: readonly { machine: string; pod: string; uid?: string | undefined }[],
  wanted: string,
): { machine: string; pod: string } {
  const [machine, name] = wanted.includes('/') ? wanted.split('/', 2) : [undefined, wanted]
  const found = pods.filter(
    (each) => (machine === undefined || each.machine === machine) && (each.pod === name || each.uid === name),
  )
  if (found.length === 1) return { machine: found[0]!.machine, pod: found[0]!.pod }
  if (found.length > 1)
    throw new Fault(
      'POD_AMBIGUOUS',
      `${wanted} may be ${found.map((each) => `${each.machine}/${each.pod}`).join(', ')}`,
      {
        remedy: 'name one of them',
      },
    )
  // Pods that are over are not in the store; their machine knows them.
  if (machine !== undefined && name) return { machine, pod: name }
  throw new Fault('POD_NOT_FOUND', `no machine tells of a pod ${wanted}`, {
    remedy: 'see kiln pods; one that is over is MACHINE/POD',
  })
}

async function atPod<T>(
  options: Place & { pod: string },
  context: CommandContext,
  work: (client: RuntimeClient, pod: string, machine: string) => Promise<T>,
): Promise<T> {
  const state = stateFolder(options.state, context.environment)
  const lab = requireLab(state)
  const entries = await withStore(state, lab, (store) => listJson(store, storeKeys.status))
  const pods = entries.map(({ key, value }) => {
    const [machine = '', pod = ''] = key.slice(storeKeys.status.length).split('/')
    return { machine, pod, uid: (value as { uid?: string } | undefined)?.uid }
  })
  const { machine, pod } = findPod(pods, options.pod)
  const client = await openRuntime(state, requireMachine(lab, machine))
  try {
    return await work(client, pod, machine)
  } finally {
    client.close()
  }
}

/** One that does not answer is told of; the command fails only if none does. */
async function atEveryMachine(
  options: Place,
  context: CommandContext,
  work: (client: RuntimeClient, machine: string) => Promise<void>,
): Promise<void> {
  const state = stateFolder(options.state, context.environment)
  const { machines } = requireLab(state)
  const failures: unknown[] = []
  const each = machines.map(async (machine) => {
    const client = await openRuntime(state, machine)
    try {
      await work(client, machine.name)
    } finally {
      client.close()
    }
  })
  for (const [index, outcome] of (await Promise.allSettled(each)).entries()) {
    if (outcome.status === 'fulfilled') continue
    failures.push(outcome.reason)
    context.note(`${machines[index]!.name}: ${describeError(outcome.reason)}`)
  }
  if (failures.length === machines.length) throw failures[0]
}

async function openRuntime(state: StateFolder, machine: LabMachine): Promise<RuntimeClient> {
  if (machine.runtimePort === undefined)
    throw new Fault('RUNTIME_UNREACHABLE', `there is no way to kiln-runtime of ${machine.name}`, {
      remedy:
        'simulated machines have no pods; a cluster that an earlier version made is made anew: kiln down, kiln up',
    })
  const paths = adminIdentity(state)
  const [ca, cert, key] = await Promise.all(
    [paths.ca, paths.cert, paths.key].map((path) => readFile(path, 'utf8')),
  )
  return new RuntimeClient({
    host: '127.0.0.1',
    port: machine.runtimePort,
    tls: { ca: ca!, cert: cert!, key: key! },
  })
}

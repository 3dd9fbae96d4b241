import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type KeptLabels, keepArgument, keptText, type MachinePlan } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import { BootClient } from '../lab/boot-client.ts'
import { diskBytes } from '../lab/lab-plan.ts'
import { requireLab, stateFolder } from '../lab/state-folder.ts'
import { programCommand } from '../programs.ts'
import type { CommandContext } from './context.ts'
import { parseKept } from './machine-reprovision.ts'

export type MachinePlanOptions = {
  machine: string
  /** `[DEVICE=]IMAGE`; without one the machine's own disk, or an empty one. */
  disk: string[]
  /** Shown as a reprovision that keeps these partitions. */
  keep: string[]
  offline: boolean
  json: boolean
  state?: string
}

const outputBytesMax = 64 * 1024 * 1024

/**
 * `kiln machine plan`: what an install of a machine of the boot server would change, by the stages themselves on a copy
 * of its disk. Answers the exit code of `kiln ignition simulate`: 0 it would apply, 1 it would fail, 7 invalid.
 */
export async function machinePlan(options: MachinePlanOptions, context: CommandContext): Promise<number> {
  const state = stateFolder(options.state, context.environment)
  const keep = parseKept(options.keep)
  const plan = await new BootClient(state, requireLab(state)).plan(options.machine)
  const folder = await mkdtemp(join(tmpdir(), 'kiln-plan-'))
  try {
    const config = join(folder, 'config.ign')
    await writeFile(config, JSON.stringify(plan.config), { mode: 0o600 })
    const cmdline = join(folder, 'cmdline')
    await writeFile(cmdline, kernelArguments(plan, keep).join(' '))
    const own = state.machine(plan.machine).disk
    const disks = options.disk.length > 0 ? options.disk : [existsSync(own) ? own : await emptyDisk(folder)]
    const flags = [
      ...disks.flatMap((disk) => ['--disk', disk]),
      ...['--install', '--cmdline', cmdline],
      ...(options.offline ? ['--offline'] : []),
      ...(options.json ? ['--json'] : []),
    ]
    const { code, output } = await simulated([config, ...flags], context)
    if (options.json && output !== '') {
      const { machine, next } = plan
      context.print(JSON.stringify({ machine, next, ...(JSON.parse(output) as object) }, null, 2))
    } else if (output !== '') context.print(`${headOf(plan)}\n\n${output.trimEnd()}`)
    return code
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

function kernelArguments({ kernelArguments: planned }: MachinePlan, keep: KeptLabels): string[] {
  if (keep.length === 0) return planned
  const others = planned.filter((word) => !word.startsWith(`${keepArgument}=`))
  return [...others, 'kiln.reinstall=1', `${keepArgument}=${keptText(keep)}`]
}

/** What the machine would really do now, before what an install would do. */
function headOf({ machine, next }: MachinePlan): string {
  switch (next.kind) {
    case 'wait':
      return `${machine} would wait: ${next.message}. This is what its install would do:`
    case 'install':
      return `${machine} installs itself when it asks the network next${next.reinstall ? ', over what it has' : ''}:`
    case 'disk':
      return `${machine} is installed and starts from its disk. This is what an install anew would do:`
  }
}

async function emptyDisk(folder: string): Promise<string> {
  const path = join(folder, 'disk.raw')
  await writeFile(path, '')
  await truncate(path, diskBytes)
  return path
}

/** Runs the simulation, with what it warns of on our standard error. */
function simulated(
  argv: readonly string[],
  { signal, environment }: CommandContext,
): Promise<{ code: number; output: string }> {
  const { command, args } = programCommand('kiln-ignition')
  return new Promise((resolve, reject) => {
    const child = spawn(command, [...args, 'simulate', ...argv], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: environment,
    })
    const stop = (): void => void child.kill('SIGTERM')
    signal.addEventListener('abort', stop, { once: true })
    const chunks: Buffer[] = []
    let bytes = 0
    child.stdout.on('data', (chunk: Buffer) => {
      bytes += chunk.length
      if (bytes <= outputBytesMax) chunks.push(chunk)
      else stop()
    })
    child.once('error', (cause) =>
      reject(new Fault('PROGRAM_MISSING', 'kiln-ignition cannot be started', { cause })),
    )
    child.once('close', (code) => {
      signal.removeEventListener('abort', stop)
      if (signal.aborted) reject(new Fault('CANCELLED', 'the plan was not finished'))
      else
        resolve({ code: code ?? 1, output: bytes > outputBytesMax ? '' : Buffer.concat(chunks).toString() })
    })
  })
}

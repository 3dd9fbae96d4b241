import { execFileSync } from 'node:child_process'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { defaultSpec, features } from '@kiln/oci-runtime'
import { describeError } from '@kiln/service'
import { printEvents } from './events.ts'
import { processesOf, readContainer } from './statistics.ts'

/** Commands that only print or write a document: `features`, `spec`, `events`, the table of `ps`. Answers the exit code. */
export async function printing(command: string, root: string, args: string[]): Promise<number> {
  try {
    switch (command) {
      case 'features':
        console.log(JSON.stringify(features(), undefined, 2))
        return 0
      case 'spec':
        return writeSpec(args)
      case 'ps':
        return printProcesses(root, args)
      case 'events':
        return await watch(root, args)
      default:
        throw new Error(`there is no ${command}`)
    }
  } catch (error) {
    console.error(`kiln-oci: ${describeError(error)}`)
    return 1
  }
}

function optionValue(args: string[], ...names: string[]): string | undefined {
  for (const [at, argument] of args.entries()) {
    for (const name of names) {
      if (argument === name) return args[at + 1]
      if (argument.startsWith(`${name}=`)) return argument.slice(name.length + 1)
    }
  }
  return undefined
}

function writeSpec(args: string[]): number {
  const file = join(optionValue(args, '--bundle', '-b') ?? '.', 'config.json')
  if (existsSync(file)) throw new Error(`${file} exists already`)
  const rootless = args.includes('--rootless')
  const ids = { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 }
  const unified = existsSync('/sys/fs/cgroup/cgroup.controllers')
  const spec = defaultSpec({ ...(rootless && { ids }), cgroupNamespace: unified })
  writeFileSync(file, `${JSON.stringify(spec, undefined, 2)}\n`, { flag: 'wx' })
  return 0
}

/** ps's own table, of the container's processes only. What follows the id is for ps. */
function printProcesses(root: string, args: string[]): number {
  const at = args.findIndex(
    (argument, place) => !argument.startsWith('-') && !['--format', '-f'].includes(args[place - 1] ?? ''),
  )
  const id = args[at]
  const container = id === undefined || id.includes('/') ? undefined : readContainer(root, id)
  if (!container) throw new Error(`container ${id} does not exist or has stopped`)
  const own = new Set(processesOf(container))
  const options = args.slice(at + 1)
  const lines = execFileSync('ps', options.length > 0 ? options : ['-ef'], { encoding: 'utf8' })
    .trimEnd()
    .split('\n')
  const column = lines[0]!.trim().split(/\s+/).indexOf('PID')
  if (column < 0) throw new Error('ps printed no column PID')
  for (const [row, line] of lines.entries()) {
    if (row === 0 || own.has(Number(line.trim().split(/\s+/)[column]))) console.log(line)
  }
  return 0
}

function watch(root: string, args: string[]): Promise<number> {
  const once = args.includes('--stats') || args.includes('-stats')
  const id = args.filter(
    (argument, at) => !argument.startsWith('-') && !/^--?interval$/.test(args[at - 1] ?? ''),
  )[0]
  if (!id || id.includes('/')) throw new Error('events needs a container id')
  return printEvents(root, { id, once, interval: optionValue(args, '--interval', '-interval') ?? '5s' })
}

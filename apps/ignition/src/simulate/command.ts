import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import type { GptTable } from '@kiln/gpt'
import { Fault } from '@kiln/service'
import { isUrl } from '../config-source.ts'
import { fileDisk } from '../file-disk.ts'
import { parseKernelArguments } from '../kernel-arguments.ts'
import { parseOptions } from '../options.ts'
import type { Run } from '../run.ts'
import { createRun } from '../run-of-machine.ts'
import type { SimulatedDisk } from './simulated-disks.ts'
import { type SimulationPlace, type SimulationReport, simulate, simulationText } from './simulation.ts'

const usage = `usage: kiln-ignition simulate CONFIG --disk [DEVICE=]IMAGE... [--root DIR | --install] [--json] [--offline]

Shows what applying CONFIG (a file or URL) would change, on copies: neither IMAGE nor DIR is written to.
  --disk [DEVICE=]IMAGE  an image of a disk; DEVICE may be left out when the config names one disk
  --root DIR             root of the system as it is now (default: an empty one)
  --install              as a machine of Kiln installs itself: its partitions too, and a new root
  --cmdline FILE         with --install: kernel arguments, of which kiln.disk and kiln.reinstall count
  --json                 the report as JSON
  --offline              fetch nothing over the network; a config that needs it fails
Exit codes: 0 it would apply, 1 it would fail or CONFIG cannot be read, 2 a flag is wrong, 7 the config is invalid.
`

const exitCodes: Record<SimulationReport['outcome'], number> = { applies: 0, fails: 1, invalid: 7 }
/** Set for the process that runs in a mount namespace, where an overlay can be mounted: the folder of its copies. */
const overlayVariable = 'KILN_IGNITION_SIMULATION'
const rootVariable = 'KILN_IGNITION_SIMULATION_ROOT'

export async function simulateCommand(
  argv: string[],
  env: Record<string, string | undefined>,
  write: (descriptor: 1 | 2, text: string) => void,
): Promise<number> {
  const { values, positionals } = parse(argv)
  if (values.help) {
    write(1, usage)
    return 0
  }
  if (positionals.length !== 1) {
    write(2, `kiln-ignition: simulate needs one CONFIG\n\n${usage}`)
    return 2
  }
  const problem = contradiction(values)
  if (problem !== undefined) {
    write(2, `kiln-ignition: ${problem}\n\n${usage}`)
    return 2
  }
  const config = positionals[0]!
  requireConfig(config)
  const folder = env[overlayVariable]
  if (values.root !== undefined && folder === undefined) {
    const code = inNamespace(argv, env)
    if (code !== undefined) return code
  }
  const own = folder ?? mkdtempSync(join(tmpdir(), 'kiln-simulation-'))
  try {
    const after = join(own, 'root')
    mkdirSync(after)
    const run = runOf(['--root', after, '--config', config, '--state-file', join(own, 'state')], values, env)
    const offline = { ...run, fetcher: { ...run.fetcher, network: !values.offline } }
    const disks: SimulatedDisk[] = []
    for (const [index, given] of values.disk.entries()) {
      disks.push(await copyOf(given, join(own, `disk${index}`)))
    }
    const changed = values.root === undefined ? [after] : prepareRoot(resolve(values.root), own, after)
    const place: SimulationPlace = {
      disks,
      folder: own,
      before: values.root === undefined ? undefined : resolve(values.root),
      after,
      changed,
    }
    // In a user namespace of our own we are called root, but own no other user's files.
    const privileged = folder === undefined ? run.privileged : env[rootVariable] === '1'
    const report = await simulate({ ...offline, privileged }, place)
    if (values.install) report.notes.push("files are shown against an empty root, not the image's own /etc")
    else if (values.root === undefined)
      report.notes.push('no --root was given: files are shown against an empty root')
    write(1, values.json ? `${JSON.stringify(report, null, 2)}\n` : simulationText(report))
    return exitCodes[report.outcome]
  } finally {
    if (folder === undefined) rmSync(own, { recursive: true, force: true })
  }
}

/**
 * A file that cannot be there on any machine says nothing of the config, so that there is nothing to simulate.
 * @throws Fault `CONFIG_UNREADABLE`
 */
function requireConfig(config: string): void {
  if (isUrl(config)) return
  const found = statSync(config, { throwIfNoEntry: false })
  if (!found) throw new Fault('CONFIG_UNREADABLE', `there is no config ${config}; name a file or a URL`)
  if (found.isDirectory())
    throw new Fault('CONFIG_UNREADABLE', `${config} is a folder; name the file of the config in it`)
}

function contradiction(given: {
  root?: string | undefined
  install: boolean
  cmdline?: string | undefined
}): string | undefined {
  if (given.install && given.root !== undefined)
    return 'an install makes a new root: --root does not go with it'
  if (!given.install && given.cmdline !== undefined) return '--cmdline is for --install'
  return undefined
}

/** The run that is simulated: of a root that is there, or of an install, which has kernel arguments and an image. */
function runOf(
  flags: string[],
  { install, cmdline }: { install: boolean; cmdline?: string | undefined },
  env: Record<string, string | undefined>,
): Run {
  const run = createRun(
    parseOptions(['--platform', 'file', '--stage', 'all', ...flags], env),
    env,
    () => undefined,
  )
  if (!install) return run
  // The distribution's configs of this host are not those of the image.
  const systemConfigDir = env['IGNITION_SYSTEM_CONFIG_DIR']
  const options = { ...run.options, systemConfigDir, image: '/run/image/usr.img' }
  return {
    ...run,
    options,
    kernel: parseKernelArguments(cmdline === undefined ? '' : readFileSync(cmdline, 'utf8')),
  }
}

function parse(argv: string[]) {
  try {
    return parseArgs({
      args: argv,
      allowPositionals: true,
      options: {
        disk: { type: 'string', multiple: true, default: [] },
        root: { type: 'string' },
        install: { type: 'boolean', default: false },
        cmdline: { type: 'string' },
        json: { type: 'boolean', default: false },
        offline: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
      },
    })
  } catch (cause) {
    throw new Fault('USAGE', (cause as Error).message)
  }
}

/** Copies an image, sparse, sharing blocks where the file system can; the original is only read. */
async function copyOf(given: string, copy: string): Promise<SimulatedDisk> {
  const equals = given.indexOf('=')
  const image = given.slice(equals + 1)
  if (!existsSync(image)) throw new Fault('USAGE', `there is no image ${image}`)
  const kind = statSync(image)
  if (!kind.isFile() && !kind.isBlockDevice())
    throw new Fault('USAGE', `${image} is neither a file nor a disk`)
  const copied = spawnSync('cp', ['--reflink=auto', '--sparse=always', image, copy], { encoding: 'utf8' })
  if (copied.status !== 0)
    throw new Fault('COMMAND_FAILED', `${image} cannot be copied: ${copied.stderr.trim()}`)
  const { reading } = await fileDisk(copy, 0).find()
  const before: GptTable | undefined = reading.kind === 'table' ? reading.table : undefined
  return { device: equals > 0 ? given.slice(0, equals) : '', copy, before }
}

/** Runs this command again where it may mount an overlay over the root; undefined when the host does not allow it. */
function inNamespace(argv: string[], env: Record<string, string | undefined>): number | undefined {
  const root = process.getuid?.() === 0
  const flags = ['--mount', ...(root ? [] : ['--map-root-user'])]
  if (spawnSync('unshare', [...flags, 'true']).status !== 0) return undefined
  const own = mkdtempSync(join(tmpdir(), 'kiln-simulation-'))
  try {
    const node = [process.execPath, ...process.execArgv, process.argv[1]!, 'simulate', ...argv]
    const { status } = spawnSync('unshare', [...flags, ...node], {
      stdio: 'inherit',
      env: { ...env, [overlayVariable]: own, [rootVariable]: root ? '1' : '0' },
    })
    return status ?? 1
  } finally {
    rmSync(own, { recursive: true, force: true })
  }
}

/** Lays an overlay over the root, or copies it where that is not possible. Gives the folders that hold the changes. */
function prepareRoot(root: string, own: string, after: string): string[] {
  const [upper, work] = [join(own, 'upper'), join(own, 'work')]
  mkdirSync(upper)
  mkdirSync(work)
  const layers = `lowerdir=${root},upperdir=${upper},workdir=${work}`
  if (spawnSync('mount', ['-t', 'overlay', 'overlay', '-o', layers, after]).status === 0) return [upper]
  const copied = spawnSync('cp', ['-a', '--reflink=auto', `${root}/.`, after], { encoding: 'utf8' })
  if (copied.status !== 0)
    throw new Fault('COMMAND_FAILED', `${root} cannot be copied: ${copied.stderr.trim()}`)
  return [root, after]
}

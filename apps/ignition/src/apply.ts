import { existsSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import type { IgnitionConfig } from '@kiln/schemas'
import { Fault, version } from '@kiln/service'
import { closeJournal } from './apply-journal.ts'
import { ConfigInvalid } from './config-invalid.ts'
import { describeFailure } from './failure.ts'
import { configHashOf } from './fetch-stage.ts'
import { applyParts } from './files-stage.ts'
import { impossibleParts } from './impossible-values.ts'
import { needsNetwork } from './needs-network.ts'
import { parseOptions } from './options.ts'
import { emptyConfig, mergeRendered, renderConfig } from './render-config.ts'
import type { Run } from './run.ts'
import { openTargetRoot } from './target-root.ts'

const usage = `usage: ignition-apply [flags] CONFIG
       kiln-ignition apply [flags] CONFIG

Applies users, files and units of an Ignition config to a container that is being built. CONFIG is a file, or - for standard
input.

  --root FOLDER         root of the filesystem (/)
  --ignore-unsupported  leave out what a container cannot have: kernel arguments, disks, RAID, volumes, filesystems
  --offline             refuse a config that needs the network
  --version             print the version
`

const flags = {
  root: { type: 'string', default: '/' },
  'ignore-unsupported': { type: 'boolean', default: false },
  offline: { type: 'boolean', default: false },
  version: { type: 'boolean', default: false },
  help: { type: 'boolean', short: 'h', default: false },
} as const

export type ApplyPorts = {
  env: Record<string, string | undefined>
  write(descriptor: 1 | 2, text: string): void
  exists(path: string): boolean
  createRun(options: Run['options']): Run
}

/** Ignition's own ignition-apply, with its flags. 0 when applied, 1 for everything else, the command line included. */
export async function runApply(argv: string[], ports: ApplyPorts): Promise<number> {
  const { values, positionals } = parseArgs({ args: argv, options: flags, strict: false }) as {
    values: { root: string; offline: boolean; version: boolean; help: boolean; 'ignore-unsupported': boolean }
    positionals: string[]
  }
  const unknown = Object.keys(values).find((name) => !Object.hasOwn(flags, name))
  if (values.help || values.version) {
    ports.write(1, values.help ? usage : `ignition-apply ${version}\n`)
    return 0
  }
  const [path] = positionals
  if (unknown !== undefined || path === undefined || positionals.length > 1) {
    ports.write(
      2,
      `ignition-apply: ${unknown ? `unknown flag --${unknown}` : 'it takes one config'}\n\n${usage}`,
    )
    return 1
  }
  try {
    await apply(path, values, ports)
    return 0
  } catch (error) {
    const { lines } = describeFailure('apply', error, { installing: false })
    ports.write(2, `${lines.join('\n')}\n`)
    return 1
  }
}

async function apply(
  path: string,
  flags: { root: string; offline: boolean; 'ignore-unsupported': boolean },
  ports: ApplyPorts,
): Promise<void> {
  if (!isContainer(ports)) {
    throw new Fault('NO_CONTAINER', 'this is no container, but a machine', {
      remedy:
        'install the machine again with the config (kiln machine reprovision); in a container set container=oci',
    })
  }
  const root = resolve(flags.root)
  const options = parseOptions(['--platform', 'file', '--stage', 'files', '--root', root], ports.env)
  const run = ports.createRun(options)
  const [text, source] = path === '-' ? [read(0), '-'] : [read(path), pathToFileURL(resolve(path)).href]
  const fetcher = { ...run.fetcher, network: !flags.offline }
  const rendered = await renderConfig(text, source, fetcher, run.settings)
  for (const warning of rendered.warnings) run.warn(`apply: ${warning}`)
  const config = mergeRendered(emptyConfig, rendered.config)
  const refused = impossibleParts(config)
  if (refused.length > 0) throw new ConfigInvalid(source, refused)
  for (const part of unsupportedParts(config)) {
    if (!flags['ignore-unsupported']) {
      throw new Fault('PART_UNSUPPORTED', `a container cannot have what ${part} asks for`, {
        remedy: 'take it out of the config, or give --ignore-unsupported',
      })
    }
    run.warn(`apply: ${part} is left out: a container cannot have it`)
  }
  if (flags.offline && needsNetwork(config)) {
    throw new Fault('NEEDS_NETWORK', 'the config needs the network, and --offline was given')
  }
  const target = openTargetRoot(run)
  const fetched = { config, userConfigProvided: true, configHash: configHashOf(config) }
  await applyParts(fetched, [], target, { ...run, fetcher })
  await run.command('sync', [])
  closeJournal(target)
}

function read(path: string | 0): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (cause) {
    throw new Fault('CONFIG_UNREADABLE', `cannot read ${path === 0 ? 'standard input' : path}`, { cause })
  }
}

/** As tools that build and run containers mark them: podman, docker, systemd-nspawn. */
function isContainer({ env, exists }: ApplyPorts): boolean {
  return !!env['container'] || ['/run/.containerenv', '/.dockerenv'].some(exists)
}

/** Paths of what only a machine has. */
function unsupportedParts({ kernelArguments, storage }: IgnitionConfig): string[] {
  const has = (list: readonly unknown[] | undefined): boolean => (list?.length ?? 0) > 0
  const parts: [path: string, list: readonly unknown[] | undefined][] = [
    ['$.kernelArguments.shouldExist', kernelArguments?.shouldExist],
    ['$.kernelArguments.shouldNotExist', kernelArguments?.shouldNotExist],
    ['$.storage.disks', storage?.disks],
    ['$.storage.raid', storage?.raid],
    ['$.storage.luks', storage?.luks],
    ['$.storage.filesystems', storage?.filesystems],
  ]
  return parts.filter(([, list]) => has(list)).map(([path]) => path)
}

/** What the real command works with. */
export const applyPorts = (
  env: Record<string, string | undefined>,
  write: ApplyPorts['write'],
  createRun: ApplyPorts['createRun'],
): ApplyPorts => ({ env, write, createRun, exists: existsSync })

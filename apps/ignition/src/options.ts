import { parseArgs } from 'node:util'
import { Fault } from '@kiln/service'

/** Stages in the order they run; `all` runs every one in this process. */
export const stageNames = [
  'fetch-offline',
  'fetch',
  'kargs',
  'disks',
  'image',
  'mount',
  'files',
  'umount',
] as const
export type StageName = (typeof stageNames)[number]

/** Clouds and hypervisors with a config of their own, by the name that Ignition gives them. */
export const cloudNames = [
  'aws',
  'azure',
  'digitalocean',
  'gcp',
  'hetzner',
  'nocloud',
  'openstack',
  'proxmoxve',
  'vmware',
] as const
export type CloudName = (typeof cloudNames)[number]

export const platformNames = ['metal', 'qemu', 'file', ...cloudNames] as const
export type PlatformName = (typeof platformNames)[number]

/** What the command line asked for. */
export type Options = {
  root: string
  platform: PlatformName
  stage: StageName | 'all'
  configCache: string
  /** Stage `all` needs no cache; it leaves one where it is told to. */
  cacheGiven: boolean
  clearCache: boolean
  fetchTimeoutMs: number
  needNet: string
  stateFile: string
  logToStdout: boolean
  /** Where the machine's attributes go. */
  metadataFile: string
  /** Folder of the distribution's own configs; with a disk image the one at hand is another machine's. */
  systemConfigDir: string | undefined
  /** Where the config is: URL or path; overrides kernel argument and platform. */
  config: string | undefined
  /** What platform file reads. */
  platformFile: string | undefined
  /** `auto`, or the device to install to. */
  disk: string
  /** A sparse file that stands for the disk; the root is then a plain directory. */
  diskImage: string | undefined
  diskSizeMiB: number
  /** Image that goes to USR-A; without one nothing is installed. */
  image: string | undefined
  bootUrl: string | undefined
  releaseUrl: string | undefined
  machine: string | undefined
  cmdline: string
  /** Whether ssh keys go to a fragment in authorized_keys.d instead of authorized_keys. */
  keysFragment: boolean
}

const flags = {
  root: { type: 'string', default: '/' },
  platform: { type: 'string' },
  stage: { type: 'string' },
  'config-cache': { type: 'string' },
  'clear-cache': { type: 'boolean', default: false },
  'fetch-timeout': { type: 'string', default: '2m' },
  neednet: { type: 'string', default: '/run/ignition/neednet' },
  'state-file': { type: 'string', default: '/run/ignition/state' },
  'metadata-file': { type: 'string', default: '/run/metadata/kiln' },
  'log-to-stdout': { type: 'boolean', default: false },
  config: { type: 'string' },
  disk: { type: 'string', default: 'auto' },
  'disk-image': { type: 'string' },
  'disk-size': { type: 'string', default: '6144' },
  image: { type: 'string' },
  'boot-url': { type: 'string' },
  'release-url': { type: 'string' },
  machine: { type: 'string' },
  cmdline: { type: 'string', default: '/proc/cmdline' },
} as const

export const usage = `usage: kiln-ignition --platform NAME --stage NAME [--root FOLDER] [flags]
       kiln-ignition validate FILE...
       kiln-ignition butane [--help] [FILE]
       kiln-ignition config build|types [FILE]
       kiln-ignition simulate CONFIG --disk IMAGE
       kiln-ignition apply [--help] CONFIG       (also as ignition-apply)
       kiln-ignition rmcfg --platform NAME       (also as ignition-rmcfg)
       kiln-ignition --version

Flags may have one dash or two.
  --platform NAME       where the config is: ${platformNames.slice(0, 6).join(', ')},
                        ${platformNames.slice(6).join(', ')}
  --stage NAME          ${stageNames.join(', ')}, or all
  --root FOLDER         root of the system to configure (/)
  --config-cache FILE   the rendered config between stages (/run/ignition.json)
  --clear-cache         forget the cached config first
  --fetch-timeout TIME  how long to try for the config, such as 90s or 2m (2m)
  --neednet FILE        flag file that fetch-offline makes when it needs the network
  --state-file FILE     what stages in processes of their own tell each other (/run/ignition/state)
  --metadata-file FILE  what the platform says of the machine, as environment lines (/run/metadata/kiln)
  --log-to-stdout       log to standard output instead of standard error
  --config URL          config to use (platform file: also $IGNITION_CONFIG_FILE)
  --disk DEVICE         disk to install to (auto: the only one)
  --disk-image FILE     a file stands for the disk, the root is a plain folder; needs no privileges
  --disk-size MIB       size of a disk image that does not exist yet (6144)
  --image FILE          system image for slot A
  --boot-url URL        kiln-boot, for reports and releases
  --release-url URL     folder of the release (default: from kiln.usr.url)
  --machine ID          id for reports (default: from kiln.machine)
  --cmdline FILE        kernel command line (/proc/cmdline)
`

/** Whether this run puts a system on a disk, not only a config on a root that is there. */
export const installs = ({ image, diskImage }: Options): boolean =>
  image !== undefined || diskImage !== undefined

/** Reads the command line; every problem is a `USAGE`. */
export function parseOptions(argv: string[], env: Record<string, string | undefined>): Options {
  const { values } = parse(argv)
  const stage = oneOf('stage', values.stage, [...stageNames, 'all'] as const)
  const platform = oneOf('platform', values.platform, platformNames)
  const file = platform === 'file' ? (env['IGNITION_CONFIG_FILE'] ?? 'config.ign') : undefined
  const disk = values['disk-image']
  const diskSizeMiB = Number(values['disk-size'])
  if (!Number.isInteger(diskSizeMiB) || diskSizeMiB < 64) {
    throw new Fault('USAGE', `--disk-size ${values['disk-size']} is not a number of MiB from 64`)
  }
  return {
    root: values.root,
    platform,
    stage,
    configCache: values['config-cache'] ?? '/run/ignition.json',
    cacheGiven: values['config-cache'] !== undefined,
    clearCache: values['clear-cache'],
    fetchTimeoutMs: parseDuration(values['fetch-timeout']),
    needNet: values.neednet,
    stateFile: values['state-file'],
    logToStdout: values['log-to-stdout'],
    metadataFile: values['metadata-file'],
    systemConfigDir:
      env['IGNITION_SYSTEM_CONFIG_DIR'] ?? (disk === undefined ? '/usr/lib/ignition' : undefined),
    config: values.config,
    platformFile: file,
    disk: values.disk,
    diskImage: disk,
    diskSizeMiB,
    image: values.image,
    bootUrl: values['boot-url']?.replace(/\/+$/, ''),
    releaseUrl: values['release-url']?.replace(/\/+$/, ''),
    machine: values.machine,
    cmdline: values.cmdline,
    keysFragment: env['IGNITION_WRITE_AUTHORIZED_KEYS_FRAGMENT'] !== 'false',
  }
}

/** Flags may have one dash, as Go's have. */
export const withTwoDashes = (argv: string[]): string[] =>
  argv.map((arg) => (/^-[a-z][a-z-]+(=|$)/.test(arg) ? `-${arg}` : arg))

function parse(argv: string[]) {
  try {
    return parseArgs({ args: withTwoDashes(argv), options: flags, strict: true, allowPositionals: false })
  } catch (cause) {
    throw new Fault('USAGE', (cause as Error).message)
  }
}

function oneOf<const T extends string>(flag: string, value: string | undefined, names: readonly T[]): T {
  const found = names.find((name) => name === value)
  if (found !== undefined) return found
  const problem = value === undefined ? 'is missing' : `${value} is unknown`
  throw new Fault('USAGE', `--${flag} ${problem}; it is one of ${names.join(', ')}`)
}

const unitsMs: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }

/** A duration as Go writes it (`1h2m3s`, `500ms`), or plain seconds. */
export function parseDuration(text: string): number {
  if (/^\d+$/.test(text)) return Number(text) * 1000
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)]
  if (parts.length === 0 || parts.map(([part]) => part).join('') !== text) {
    throw new Fault('USAGE', `--fetch-timeout ${text} is not a duration such as 90s or 2m`)
  }
  return parts.reduce((sum, [, number, unit]) => sum + Number(number) * unitsMs[unit!]!, 0)
}

import { arch } from 'node:os'
import { posix } from 'node:path'
import { deviceTypes, encodeRecords, type Namespace, namespaceBits, type PlanRecord } from '@kiln/linux'
import { type CgroupLayout, cgroupPlace, folderIn, readLayout } from './cgroup-layout.ts'
import { enableRecords, type Folders, resourceRecords } from './cgroup-resources.ts'
import { numberOf, type ParsedLine, parseLine } from './command-line.ts'
import { type Config, type ConfigProcess, parseConfig, type Resources, refuse } from './config.ts'
import { ms, rootPropagations } from './mount-options.ts'
import { idMapRecords, mountRecords } from './mount-records.ts'
import type { Planned } from './planner.ts'
import { processRecords, unknownCapabilities } from './process-records.ts'
import { type FrontRequest, keptFdsMax } from './request.ts'
import { compileSeccomp } from './seccomp.ts'
import { sysctlRecords } from './sysctl.ts'

/** What `create` keeps for a later `exec` or `update`. */
export type ExecBase = {
  process: ConfigProcess
  layout: CgroupLayout
  folders: Folders
  memory?: { limit?: number | null; swap?: number | null }
  cpu?: { quota?: number | null }
  personality?: Config['linux']['personality']
  rootless?: boolean
}

const createOptions = {
  bundle: 'value',
  config: 'value',
  'console-socket': 'value',
  'pid-file': 'value',
  'pidfd-socket': 'value',
  'preserve-fds': 'value',
  detach: 'flag',
  keep: 'flag',
  'no-pivot': 'flag',
  'no-new-keyring': 'flag',
  'no-subreaper': 'flag',
} as const

const options = { detach: 1, noKeyring: 2, noPivot: 4, run: 8, keep: 16 } as const

const namespaceTypes: Readonly<Record<string, Namespace>> = {
  cgroup: 'cgroup',
  ipc: 'ipc',
  mount: 'mount',
  network: 'network',
  pid: 'pid',
  time: 'time',
  user: 'user',
  uts: 'uts',
}

/** `create` and `run`: the whole plan, or a refusal that names the member. */
export function planContainer(request: FrontRequest): Planned {
  const line = parseLine(request.args, createOptions, { b: 'bundle', d: 'detach', f: 'config' })
  const id = line.rest[0] ?? ''
  const bundle = posix.resolve(request.cwd, line.values.get('bundle') ?? '.')
  const config = parseConfig(request.document ?? '')
  const program = config.process ?? refuse(['config.process: missing'])
  const namespaces = namespacesOf(config)
  const layout = readLayout(request.mountinfo, request.cgroup)
  const place = cgroupPlace(config.linux.cgroupsPath, id, request.systemd)
  const folders: Folders = layout.hierarchies.map((hierarchy) => ({
    controllers: hierarchy.controllers,
    folder: folderIn(hierarchy, place),
  }))
  const resources: Resources = config.linux.resources ?? {}
  const keep = line.flags.has('keep') ? options.keep : 0
  const base: ExecBase = {
    process: { ...program, consoleSize: undefined },
    layout,
    folders,
    memory: resources.memory ?? {},
    cpu: { quota: resources.cpu?.quota },
    personality: config.linux.personality,
    rootless: request.rootless,
  }
  const state = {
    ociVersion: config.ociVersion,
    id,
    bundle,
    annotations: config.annotations ?? {},
  }
  const { listenFds } = request
  const environment = listenFds > 0 ? [`LISTEN_FDS=${listenFds}`, 'LISTEN_PID=1'] : []
  const records: PlanRecord[] = [
    ['id', id],
    ['bundle', bundle],
    ['state', JSON.stringify(state).slice(1, -1)],
    ['processJson', JSON.stringify(base)],
    [
      'options',
      (line.flags.has('detach') ? options.detach : 0) |
        (line.flags.has('no-new-keyring') ? options.noKeyring : 0) |
        (line.flags.has('no-pivot') ? options.noPivot : 0) |
        (request.command === 'run' ? options.run : 0) |
        keep,
      keptFds(line, listenFds),
    ],
    ...pathRecords(request.cwd, line),
    ...consoleRecords(request, program, line.values.get('console-socket'), line.flags.has('detach')),
    ...namespaceRecords(config, namespaces),
    ...cgroupRecords(layout, folders, resources, request.rootless),
    ...rootRecords(config, bundle),
    ...mountRecords({
      config,
      bundle,
      layout,
      place,
      ownCgroupNamespace: namespaces.created.includes('cgroup'),
    }),
    ...deviceRecords(config),
    ...(config.linux.readonlyPaths ?? []).map((path): PlanRecord => ['readonly', path]),
    ...(config.linux.maskedPaths ?? []).map((path): PlanRecord => ['mask', path]),
    ...nameRecords(config, namespaces.all),
    ...sysctlRecords(config.linux.sysctl ?? {}, namespaces),
    ...hookRecords(config),
    ...processRecords(
      { ...program, env: [...(program.env ?? []), ...environment] },
      config.root.readonly ?? false,
    ),
    ...personalityRecords(config.linux.personality),
    ...seccompRecords(config, state),
  ]
  return { plan: encodeRecords('ociCreate', id, records), warnings: unknownCapabilities(program) }
}

export type Namespaces = {
  created: Namespace[]
  joined: { kind: Namespace; path: string }[]
  all: Set<Namespace>
}

/** config-linux.md, Namespaces: created without a path, entered with one, left alone when not listed. */
function namespacesOf(config: Config): Namespaces {
  const created: Namespace[] = []
  const joined: { kind: Namespace; path: string }[] = []
  const all = new Set<Namespace>()
  for (const [at, { type, path }] of (config.linux.namespaces ?? []).entries()) {
    const kind = Object.hasOwn(namespaceTypes, type) ? namespaceTypes[type] : undefined
    const place = `config.linux.namespaces.${at}`
    if (!kind) return refuse([`${place}.type: unknown ${JSON.stringify(type)}`])
    if (all.has(kind)) refuse([`${place}.type: ${type} a second time`])
    all.add(kind)
    if (!path) created.push(kind)
    else if (path.startsWith('/')) joined.push({ kind, path })
    else refuse([`${place}.path: not an absolute path`])
  }
  if (!all.has('mount')) refuse(['config.linux.namespaces: a mount namespace is needed'])
  const mapped = (config.linux.uidMappings?.length ?? 0) + (config.linux.gidMappings?.length ?? 0) > 0
  if (mapped && !all.has('user')) refuse(['config.linux.uidMappings: without a user namespace'])
  if (created.includes('user') && !(config.linux.uidMappings?.length && config.linux.gidMappings?.length))
    refuse(['config.linux.uidMappings, gidMappings: missing for the new user namespace'])
  const offsets = Object.values(config.linux.timeOffsets ?? {}).some((offset) => offset != null)
  if (offsets && !created.includes('time')) refuse(['config.linux.timeOffsets: without a new time namespace'])
  return { created, joined, all }
}

function namespaceRecords(config: Config, { created, joined }: Namespaces): PlanRecord[] {
  const bits = created.reduce((sum, kind) => sum | namespaceBits[kind], 0)
  const offsets = Object.entries(config.linux.timeOffsets ?? {}) as [
    string,
    { secs?: number; nanosecs?: number } | null,
  ][]
  const newUser = created.includes('user')
  return [
    ['namespaces', bits],
    ...joined.map(({ kind, path }): PlanRecord => ['namespacePath', namespaceBits[kind], path]),
    ...(newUser ? idMapRecords(0, config.linux.uidMappings ?? [], config.linux.gidMappings ?? []) : []),
    ...offsets.flatMap(([clock, offset]): PlanRecord[] =>
      offset ? [['timeOffset', `${clock} ${offset.secs ?? 0} ${offset.nanosecs ?? 0}\n`]] : [],
    ),
    ...(created.includes('network') ? [['loopback'] satisfies PlanRecord] : []),
  ]
}

const folderFlags = { cpuset: 1, mayFail: 2 } as const

function cgroupRecords(
  layout: CgroupLayout,
  folders: Folders,
  resources: Resources,
  rootless: boolean,
): PlanRecord[] {
  const mountPoint = layout.hierarchies[0]?.mountPoint ?? ''
  return [
    ...folders.map(
      ({ controllers, folder }): PlanRecord => [
        'cgroupFolder',
        controllers.join(','),
        folder,
        (controllers.includes('cpuset') ? folderFlags.cpuset : 0) | (rootless ? folderFlags.mayFail : 0),
      ],
    ),
    ...(layout.kind === 'v2' ? enableRecords(mountPoint, folders[0]!.folder) : []),
    ...resourceRecords(resources, layout, folders, { update: false, rootless }),
  ]
}

function rootRecords(config: Config, bundle: string): PlanRecord[] {
  const wanted = config.linux.rootfsPropagation || undefined
  const known = wanted === undefined ? 0 : rootPropagations[wanted]
  if (known === undefined) refuse([`config.linux.rootfsPropagation: unknown ${JSON.stringify(wanted)}`])
  const kind = known & ~ms.rec
  // What the host mounts later arrives only where the document asks for it; nothing goes back unless it is shared.
  const host =
    (kind === ms.shared ? ms.shared : kind === ms.private || kind === ms.unbindable ? ms.private : ms.slave) |
    ms.rec
  const final = kind === ms.private ? 0 : known
  return [['root', posix.resolve(bundle, config.root.path), host, final]]
}

const defaultDevices: [string, number, number][] = [
  ['null', 1, 3],
  ['zero', 1, 5],
  ['full', 1, 7],
  ['random', 1, 8],
  ['urandom', 1, 9],
  ['tty', 5, 0],
]

/** Devices of the document, then those every container has (config-linux.md, Default Devices), unless /dev is someone else's. */
function deviceRecords(config: Config): PlanRecord[] {
  const kinds = { c: deviceTypes.char, u: deviceTypes.char, b: deviceTypes.block, p: deviceTypes.fifo }
  const named = new Set<string>()
  const records: PlanRecord[] = (config.linux.devices ?? []).map((device, at) => {
    const path = posix.resolve('/', device.path)
    if (named.has(path)) refuse([`config.linux.devices.${at}.path: ${path} a second time`])
    named.add(path)
    if (device.type !== 'p' && (device.major === undefined || device.minor === undefined))
      refuse([`config.linux.devices.${at}: major and minor are missing`])
    const mode = (device.fileMode ?? 0o666) & 0o7777
    return [
      'device',
      path,
      kinds[device.type] | mode,
      device.major ?? 0,
      device.minor ?? 0,
      device.uid ?? 0,
      device.gid ?? 0,
    ]
  })
  const bound = (config.mounts ?? []).some(
    (mount) =>
      posix.resolve('/', mount.destination) === '/dev' &&
      (mount.type === 'bind' || mount.options?.some((option) => option === 'bind' || option === 'rbind')),
  )
  if (bound) return records
  for (const [name, major, minor] of defaultDevices) {
    if (!named.has(`/dev/${name}`))
      records.push(['device', `/dev/${name}`, deviceTypes.char | 0o666, major, minor, 0, 0])
  }
  const links: [string, string][] = [
    ['/proc/self/fd', '/dev/fd'],
    ['/proc/self/fd/0', '/dev/stdin'],
    ['/proc/self/fd/1', '/dev/stdout'],
    ['/proc/self/fd/2', '/dev/stderr'],
  ]
  if (!named.has('/dev/ptmx')) links.push(['pts/ptmx', '/dev/ptmx'])
  return [...records, ...links.map(([target, path]): PlanRecord => ['symlink', target, path])]
}

function nameRecords(config: Config, namespaces: Set<Namespace>): PlanRecord[] {
  const records: PlanRecord[] = []
  for (const name of ['hostname', 'domainname'] as const) {
    const value = config[name]
    if (!value) continue
    if (!namespaces.has('uts')) refuse([`config.${name}: without a UTS namespace it would be the host's`])
    records.push([name, value])
  }
  return records
}

const hookKinds = [
  'prestart',
  'createRuntime',
  'createContainer',
  'startContainer',
  'poststart',
  'poststop',
] as const

function hookRecords(config: Config): PlanRecord[] {
  return hookKinds.flatMap((kind, when) =>
    (config.hooks?.[kind] ?? []).flatMap((hook): PlanRecord[] => [
      ['hook', when, hook.path, hook.timeout ?? 0],
      ...(hook.args ?? []).map((argument): PlanRecord => ['hookArgument', argument]),
      ...(hook.env ?? []).map((variable): PlanRecord => ['hookEnvironment', variable]),
    ]),
  )
}

export function personalityRecords(personality: Config['linux']['personality']): PlanRecord[] {
  if (!personality) return []
  if (personality.flags?.length) refuse(['config.linux.personality.flags: none are defined'])
  return [['personality', personality.domain === 'LINUX32' ? 8 : 0]]
}

function seccompRecords(config: Config, state: object): PlanRecord[] {
  const { seccomp } = config.linux
  if (!seccomp) return []
  const host = arch() === 'arm64' ? 'arm64' : 'x64'
  const { flags, filter, listenerPath, listenerMetadata } = compileSeccomp(seccomp, host)
  const message = {
    ociVersion: config.ociVersion,
    fds: ['seccompFd'],
    pid: 0,
    metadata: listenerMetadata,
    state,
  }
  return [['seccomp', flags, filter, listenerPath, listenerPath ? JSON.stringify(message) : '']]
}

/** The terminal: where its other end goes. `create` has no terminal of its own to join it with. */
export function consoleRecords(
  request: FrontRequest,
  program: Pick<ConfigProcess, 'terminal' | 'consoleSize'>,
  socket: string | undefined,
  detached: boolean,
): PlanRecord[] {
  if (!program.terminal) {
    if (socket) refuse(['--console-socket: process.terminal is not set'])
    return []
  }
  if (!socket && (detached || request.command === 'create'))
    refuse(['process.terminal: needs --console-socket'])
  const { height = 0, width = 0 } = program.consoleSize ?? {}
  return [['console', socket ? posix.resolve(request.cwd, socket) : '', height, width]]
}

/** `--pid-file` and `--pidfd-socket`, from where the caller is. */
export function pathRecords(cwd: string, line: ParsedLine): PlanRecord[] {
  const names = [
    ['pidFile', 'pid-file'],
    ['pidfdSocket', 'pidfd-socket'],
  ] as const
  return names.flatMap(([operation, option]): PlanRecord[] => {
    const path = line.values.get(option)
    return path ? [[operation, posix.resolve(cwd, path)]] : []
  })
}

/** `--preserve-fds` and those of `LISTEN_FDS`: how many descriptors after stderr the program gets. */
export function keptFds(line: ParsedLine, listenFds: number): number {
  const given = numberOf(line, 'preserve-fds') ?? 0
  if (given < 0 || given + listenFds > keptFdsMax) refuse([`--preserve-fds: not 0 to ${keptFdsMax}`])
  return given + listenFds
}

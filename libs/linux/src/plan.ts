import { assert } from '@kiln/service'

/** `CLONE_NEW*` of clone(2). */
export const namespaceBits = {
  cgroup: 0x02000000,
  ipc: 0x08000000,
  mount: 0x00020000,
  network: 0x40000000,
  pid: 0x20000000,
  time: 0x00000080,
  user: 0x10000000,
  uts: 0x04000000,
} as const
export type Namespace = keyof typeof namespaceBits

/** `MS_*` of mount(2) that a plan may use. */
export const mountFlagBits = {
  ro: 1,
  nosuid: 2,
  nodev: 4,
  noexec: 8,
  noatime: 1024,
  bind: 4096,
  rec: 16384,
  relatime: 1 << 21,
  strictatime: 1 << 24,
} as const
export type MountFlag = keyof typeof mountFlagBits

/** A process for all time: its pid and field 22 of `/proc/PID/stat`. */
export type ProcessId = { pid: number; startTime: string }

export type Mount = {
  source: string
  target: string
  type: string
  flags: MountFlag[]
  data?: string
  /** What to make when the target is missing. */
  create?: 'directory' | 'file'
  /** No symlink may lead to the source of a bind: somebody else writes there. */
  plainSource?: boolean
  /** Whether mounts that appear below the source of a bind appear here; what a bind inherits if not set. */
  propagation?: 'private' | 'slave'
}

export type Device = {
  path: string
  kind: 'char' | 'block' | 'fifo'
  mode: number
  major: number
  minor: number
  uid?: number
  gid?: number
}

/** Bit masks by capability number, see `capabilityMask`. */
export type Capabilities = {
  bounding: bigint
  effective: bigint
  permitted: bigint
  inheritable: bigint
  ambient: bigint
}

export type ProcessPlan = {
  args: string[]
  env: Record<string, string>
  cwd: string
  uid: number
  gid: number
  groups: number[]
  umask: number
  oomScoreAdj: number
  noNewPrivileges: boolean
  capabilities: Capabilities
  /** Soft and hard value by `RLIMIT_*` number. */
  rlimits: { resource: number; soft: bigint; hard: bigint }[]
  /** A program of seccomp(2) with its flags. */
  seccomp?: { flags: number; filter: Uint8Array }
}

/** The process that keeps the namespaces a pod's containers share. */
export type SandboxPlan = {
  kind: 'sandbox'
  id: string
  runningFile: string
  namespaces: Namespace[]
  monitorCgroup?: string
  hostname?: string
  loopback: boolean
  /** Kernel parameters of the new namespaces: paths below `/proc/sys` and their values. */
  sysctls?: Record<string, string>
}

/** One container and the process that supervises it. */
export type ContainerPlan = {
  kind: 'container'
  id: string
  runningFile: string
  exitFile: string
  namespaces: Namespace[]
  join?: ProcessId & { namespaces: Namespace[] }
  monitorCgroup?: string
  cgroup?: string
  log: { journal: boolean; file: string; bytesMax: number; fields: Record<string, string> }
  root:
    | { kind: 'overlay'; mountPoint: string; lower: string; upper: string; work: string }
    | { kind: 'bind'; mountPoint: string; source: string }
  readonlyRoot: boolean
  mounts: Mount[]
  masked: string[]
  readonly: string[]
  devices: Device[]
  symlinks: { target: string; path: string }[]
  hostname?: string
  loopback: boolean
  process: ProcessPlan
}

/** A further program in a running container. */
export type ExecPlan = {
  kind: 'exec'
  id: string
  join: ProcessId & { namespaces: Namespace[] }
  cgroup?: string
  /**
   * The program gets a terminal of the container's own, of this size, whose other side is joined with the caller's standard input and output. The
   * caller's terminal tells of another size; or descriptor 3, a socket that has a `struct winsize` for each SIGWINCH.
   */
  terminal?: TerminalSize
  process: ProcessPlan
}

/** In characters. */
export type TerminalSize = { rows: number; columns: number }

export type Plan = SandboxPlan | ContainerPlan | ExecPlan

export const planVersion = 1
export const planKinds = {
  sandbox: 1,
  container: 2,
  exec: 3,
  ociCreate: 4,
  ociExec: 5,
  ociUpdate: 6,
} as const
export type PlanKind = keyof typeof planKinds

/** Operation numbers of `native/plan.h`, with the fields of each: u32, u64 (q), text or blob. */
export const operations = {
  id: [1, 's'],
  files: [2, 'ss'],
  namespaces: [3, 'u'],
  join: [4, 'uqu'],
  monitorCgroup: [5, 's'],
  cgroup: [6, 's'],
  log: [7, 'usu'],
  logField: [8, 's'],
  rootOverlay: [9, 'ss'],
  rootBind: [10, 'ss'],
  mask: [12, 's'],
  readonly: [13, 's'],
  device: [14, 'suuuuu'],
  symlink: [15, 'ss'],
  hostname: [16, 's'],
  loopback: [17, ''],
  rlimit: [18, 'uqq'],
  capabilities: [19, 'qqqqq'],
  process: [20, 'uuuuu'],
  group: [21, 'u'],
  cwd: [22, 's'],
  argument: [23, 's'],
  environment: [24, 's'],
  bundle: [25, 's'],
  state: [26, 's'],
  processJson: [27, 's'],
  root: [28, 'suu'],
  attach: [29, 'sssuusqqqquu'],
  namespacePath: [30, 'us'],
  idMap: [31, 'uuuuu'],
  timeOffset: [32, 's'],
  sysctl: [33, 'ss'],
  cgroupFolder: [34, 'ssu'],
  cgroupWrite: [35, 'ssu'],
  cgroupDevices: [36, 'sb'],
  hook: [37, 'usu'],
  hookArgument: [38, 's'],
  hookEnvironment: [39, 's'],
  seccomp: [40, 'ubss'],
  console: [41, 'suu'],
  pidFile: [42, 's'],
  options: [43, 'uu'],
  domainname: [44, 's'],
  labels: [45, 'ss'],
  scheduler: [46, 'uuuqqqq'],
  ioPriority: [47, 'u'],
  personality: [48, 'u'],
  pidfdSocket: [49, 's'],
  cpuAffinity: [50, 'ub'],
} as const
export type Operation = keyof typeof operations
export type PlanRecord = [Operation, ...(number | bigint | string | Uint8Array)[]]

const bits = <K extends string>(names: K[], table: Record<K, number>): number =>
  names.reduce((sum, name) => sum | table[name], 0)

export const deviceTypes = { char: 0o020000, block: 0o060000, fifo: 0o010000 }

/** The ordered records of a plan: what `encodePlan` writes and what a reader sees in a test. */
export function planRecords(plan: Plan): PlanRecord[] {
  switch (plan.kind) {
    case 'sandbox':
      return [
        ['id', plan.id],
        ['files', plan.runningFile, ''],
        ['namespaces', bits(plan.namespaces, namespaceBits)],
        ...optional('monitorCgroup', plan.monitorCgroup),
        ...optional('hostname', plan.hostname),
        ...(plan.loopback ? [['loopback'] satisfies PlanRecord] : []),
        ...Object.entries(plan.sysctls ?? {}).map(([path, value]): PlanRecord => ['sysctl', path, value]),
      ]
    case 'container':
      return containerRecords(plan)
    case 'exec':
      return [
        ['id', plan.id],
        joinRecord(plan.join),
        ...optional('cgroup', plan.cgroup),
        ...(plan.terminal
          ? [['console', '', plan.terminal.rows, plan.terminal.columns] satisfies PlanRecord]
          : []),
        ...processRecords(plan.process, 0),
      ]
  }
}

function containerRecords(plan: ContainerPlan): PlanRecord[] {
  return [
    ['id', plan.id],
    ['files', plan.runningFile, plan.exitFile],
    ['namespaces', bits(plan.namespaces, namespaceBits)],
    ...(plan.join ? [joinRecord(plan.join)] : []),
    ...optional('monitorCgroup', plan.monitorCgroup),
    ...optional('cgroup', plan.cgroup),
    ['log', plan.log.journal ? 1 : 0, plan.log.file, plan.log.bytesMax],
    ...Object.entries(plan.log.fields).map(
      ([name, value]): PlanRecord => ['logField', `${name}=${value.replaceAll('\n', ' ')}`],
    ),
    rootRecord(plan.root),
    ...plan.mounts.map(attachRecord),
    ...plan.devices.map(
      (device): PlanRecord => [
        'device',
        device.path,
        deviceTypes[device.kind] | device.mode,
        device.major,
        device.minor,
        device.uid ?? 0,
        device.gid ?? 0,
      ],
    ),
    ...plan.symlinks.map((link): PlanRecord => ['symlink', link.target, link.path]),
    ...plan.masked.map((path): PlanRecord => ['mask', path]),
    ...plan.readonly.map((path): PlanRecord => ['readonly', path]),
    ...optional('hostname', plan.hostname),
    ...(plan.loopback ? [['loopback'] satisfies PlanRecord] : []),
    ...processRecords(plan.process, plan.readonlyRoot ? 2 : 0),
  ]
}

/** `ATTACH_*` of `native/plan.h`. */
export const attachBits = {
  bind: 1,
  recursive: 2,
  copyUp: 4,
  noSymlinks: 8,
  needsPlace: 16,
  mapRecursive: 32,
  remount: 64,
  plainSource: 128,
} as const

/** `MS_*` of a bind's propagation, with all that is mounted below. */
const propagationBits = { private: (1 << 18) | 16384, slave: (1 << 19) | 16384 } as const

/** `MOUNT_ATTR_*` of mount_setattr(2), by the flags of mount(2) that a bind mount may have. */
const bindAttributes = { ro: 1, nosuid: 2, nodev: 4, noexec: 8 } as const

/** A bind mount's flags are set on the mount, and with `rec` on all below it; others go to the file system. */
function attachRecord(mount: Mount): PlanRecord {
  const bind = mount.flags.includes('bind')
  const recursive = mount.flags.includes('rec')
  const attributes = Object.entries(bindAttributes)
    .filter(([flag]) => bind && mount.flags.includes(flag as MountFlag))
    .reduce((sum, [, bit]) => sum | bit, 0)
  const how =
    (bind ? attachBits.bind : 0) |
    (recursive ? attachBits.recursive : 0) |
    (mount.create === undefined ? attachBits.needsPlace : 0) |
    (mount.plainSource ? attachBits.plainSource : 0)
  return [
    'attach',
    mount.source,
    mount.target,
    bind ? '' : mount.type,
    how,
    bind ? 0 : bits(mount.flags, mountFlagBits),
    mount.data ?? '',
    BigInt(recursive ? 0 : attributes),
    0n,
    BigInt(recursive ? attributes : 0),
    0n,
    mount.propagation ? propagationBits[mount.propagation] : 0,
    0,
  ]
}

function rootRecord(root: ContainerPlan['root']): PlanRecord {
  if (root.kind === 'bind') return ['rootBind', root.mountPoint, root.source]
  for (const path of [root.lower, root.upper, root.work]) {
    assert(!/[,:\\]/.test(path), `an overlay path without separators, not ${path}`)
  }
  const options = `lowerdir=${root.lower},upperdir=${root.upper},workdir=${root.work}`
  return ['rootOverlay', root.mountPoint, options]
}

function joinRecord(join: ProcessId & { namespaces: Namespace[] }): PlanRecord {
  return ['join', join.pid, BigInt(join.startTime), bits(join.namespaces, namespaceBits)]
}

function processRecords(program: ProcessPlan, flags: number): PlanRecord[] {
  const caps = program.capabilities
  return [
    ...program.rlimits.map((limit): PlanRecord => ['rlimit', limit.resource, limit.soft, limit.hard]),
    ['capabilities', caps.bounding, caps.effective, caps.permitted, caps.inheritable, caps.ambient],
    [
      'process',
      program.uid,
      program.gid,
      program.umask,
      flags | (program.noNewPrivileges ? 1 : 0),
      program.oomScoreAdj + 1000,
    ],
    ...program.groups.map((gid): PlanRecord => ['group', gid]),
    ['cwd', program.cwd],
    ...program.args.map((argument): PlanRecord => ['argument', argument]),
    ...Object.entries(program.env).map(([name, value]): PlanRecord => ['environment', `${name}=${value}`]),
    ...(program.seccomp
      ? [['seccomp', program.seccomp.flags, program.seccomp.filter, '', ''] satisfies PlanRecord]
      : []),
  ]
}

function optional(operation: Operation, value: string | undefined): PlanRecord[] {
  return value === undefined ? [] : [[operation, value]]
}

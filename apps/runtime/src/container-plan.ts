import { join } from 'node:path'
import type { ContainerPlan, Mount, Namespace, ProcessId, ProcessPlan, SandboxPlan } from '@kiln/linux'
import type { PodContainer, PodManifest, PodVolume } from '@kiln/schemas'
import { assert } from '@kiln/service'

/** Folders of one pod. `state` survives a reboot, `run` does not; `exits` is one folder for all pods. */
export type PodPaths = { state: string; run: string; exits: string }

/** Where a pod's process groups are; absent on a machine without cgroup v2. */
export type PodGroups = { infra: string; containers: string }

export const hostsFile = (paths: PodPaths): string => join(paths.run, 'hosts')
export const resolverFile = (paths: PodPaths): string => join(paths.run, 'resolv.conf')
export const hostNameFile = (paths: PodPaths): string => join(paths.run, 'hostname')
export const sandboxFile = (paths: PodPaths): string => join(paths.run, 'sandbox.json')
export const containerRun = (paths: PodPaths, container: string): string => join(paths.run, `c-${container}`)
export const containerState = (paths: PodPaths, container: string): string =>
  join(paths.state, `c-${container}`)
export const runningFile = (paths: PodPaths, container: string): string =>
  join(containerRun(paths, container), 'running.json')
/** Names hold no dots, so the parts of the file's name can be told. */
export const exitFile = (paths: PodPaths, pod: string, container: string, attempt: number): string =>
  join(paths.exits, `${pod}.${container}.${attempt}.json`)
export const logFile = (paths: PodPaths, container: string): string =>
  join(containerState(paths, container), 'log')
/** What a container has left as its last word. */
export const terminationFile = (paths: PodPaths, container: string): string =>
  join(containerState(paths, container), 'termination-message')
/** Where a volume is on this machine. Config maps are made anew for each sandbox. */
export const volumeSource = (volume: PodVolume, paths: PodPaths): string =>
  volume.hostPath?.path ??
  join(
    volume.configMap || volume.emptyDir?.medium === 'Memory' ? paths.run : paths.state,
    'volumes',
    volume.name,
  )

export const podHostName = (pod: PodManifest): string => pod.spec.hostname ?? pod.metadata.name

/** What the containers of a pod share, and the machine does not. */
function sharedNamespaces({ spec }: PodManifest): Namespace[] {
  return [
    ...(spec.hostNetwork ? [] : (['network'] as const)),
    ...(spec.hostIPC ? [] : (['ipc'] as const)),
    'uts',
  ]
}

/** The process that keeps what the containers of a pod share. */
export function planSandbox(pod: PodManifest, paths: PodPaths, groups: PodGroups | undefined): SandboxPlan {
  const ownNetwork = !pod.spec.hostNetwork
  return {
    kind: 'sandbox',
    id: pod.metadata.name,
    runningFile: sandboxFile(paths),
    namespaces: sharedNamespaces(pod),
    ...(groups ? { monitorCgroup: groups.infra } : {}),
    hostname: podHostName(pod),
    loopback: ownNetwork,
    sysctls: Object.fromEntries(
      (pod.spec.securityContext?.sysctls ?? []).map(({ name, value }) => [
        `/${name.replaceAll('.', '/')}`,
        value,
      ]),
    ),
  }
}

export type ContainerInput = {
  pod: PodManifest
  uid: string
  machineId: string
  container: PodContainer
  attempt: number
  process: ProcessPlan
  /** The image's unpacked root. */
  tree: string
  paths: PodPaths
  groups: PodGroups | undefined
  sandbox: ProcessId
  journal: boolean
  logFileBytes: number
  /** What of their volumes is mounted, by the paths of the mounts that want a part. */
  subPaths: ReadonlyMap<string, string>
}

/** One container of a pod as kiln-init will build it. Pure: the folders named here are made by the caller. */
export function planContainer(input: ContainerInput): ContainerPlan {
  const { pod, container, paths, groups } = input
  const run = containerRun(paths, container.name)
  const layers = join(containerState(paths, container.name), 'layers')
  return {
    kind: 'container',
    id: `${pod.metadata.name}/${container.name}`,
    runningFile: runningFile(paths, container.name),
    exitFile: exitFile(paths, pod.metadata.name, container.name, input.attempt),
    namespaces: [
      ...(pod.spec.hostPID ? [] : (['pid'] as const)),
      'mount',
      ...(groups ? (['cgroup'] as const) : []),
    ],
    join: { ...input.sandbox, namespaces: sharedNamespaces(pod) },
    ...(groups ? { monitorCgroup: groups.infra, cgroup: containerGroup(groups, container.name) } : {}),
    log: {
      journal: input.journal,
      file: logFile(paths, container.name),
      bytesMax: input.logFileBytes,
      fields: {
        SYSLOG_IDENTIFIER: `${pod.metadata.name}/${container.name}`,
        KILN_POD: pod.metadata.name,
        KILN_POD_UID: input.uid,
        KILN_CONTAINER: container.name,
        KILN_ATTEMPT: String(input.attempt),
        KILN_MACHINE: input.machineId,
      },
    },
    root: {
      kind: 'overlay',
      mountPoint: join(run, 'root'),
      lower: input.tree,
      upper: join(layers, 'upper'),
      work: join(layers, 'work'),
    },
    readonlyRoot: container.securityContext?.readOnlyRootFilesystem ?? false,
    mounts: [
      ...kernelMounts({ cgroup: groups !== undefined, hostIpc: pod.spec.hostIPC }),
      ...identityMounts(paths),
      ...container.volumeMounts.map((mount) => volumeMount(input, mount)),
      ...terminationMount(container, paths),
    ],
    masked,
    readonly,
    devices,
    symlinks,
    loopback: false,
    process: input.process,
  }
}

export const containerGroup = (groups: PodGroups, container: string): string =>
  join(groups.containers, `c-${container}`)

function kernelMounts(has: { cgroup: boolean; hostIpc: boolean }): Mount[] {
  const mounts: Mount[] = [
    { source: 'proc', target: '/proc', type: 'proc', flags: ['nosuid', 'nodev', 'noexec'] },
    {
      source: 'tmpfs',
      target: '/dev',
      type: 'tmpfs',
      flags: ['nosuid', 'strictatime'],
      data: 'mode=755,size=65536k',
    },
    {
      source: 'devpts',
      target: '/dev/pts',
      type: 'devpts',
      flags: ['nosuid', 'noexec'],
      data: 'newinstance,ptmxmode=0666,mode=0620,gid=5',
    },
    // Shared memory of POSIX goes with that of System V.
    has.hostIpc
      ? { source: '/dev/shm', target: '/dev/shm', type: '', flags: ['bind', 'nosuid', 'nodev', 'noexec'] }
      : {
          source: 'shm',
          target: '/dev/shm',
          type: 'tmpfs',
          flags: ['nosuid', 'nodev', 'noexec'],
          data: 'mode=1777,size=65536k',
        },
    { source: 'mqueue', target: '/dev/mqueue', type: 'mqueue', flags: ['nosuid', 'nodev', 'noexec'] },
    { source: 'sysfs', target: '/sys', type: 'sysfs', flags: ['nosuid', 'nodev', 'noexec', 'ro'] },
  ]
  if (has.cgroup) {
    mounts.push({
      source: 'cgroup',
      target: '/sys/fs/cgroup',
      type: 'cgroup2',
      flags: ['nosuid', 'nodev', 'noexec', 'relatime', 'ro'],
    })
  }
  // In sysfs the folder is there, and nothing could be made.
  return mounts.map((mount) =>
    mount.target.startsWith('/sys/') ? mount : { ...mount, create: 'directory' as const },
  )
}

function identityMounts(paths: PodPaths): Mount[] {
  const files = {
    '/etc/hosts': hostsFile(paths),
    '/etc/resolv.conf': resolverFile(paths),
    '/etc/hostname': hostNameFile(paths),
  }
  return Object.entries(files).map(([target, source]) => ({
    source,
    target,
    type: '',
    flags: ['bind', 'nosuid', 'nodev', 'noexec'],
    create: 'file',
  }))
}

function volumeMount(
  { pod, paths, subPaths }: ContainerInput,
  mount: PodContainer['volumeMounts'][number],
): Mount {
  const volume = pod.spec.volumes.find((each) => each.name === mount.name)
  assert(volume, `a volume ${mount.name}, as the schema demands`)
  const part = subPaths.get(mount.mountPath)
  const readOnly = mount.readOnly || volume.configMap !== undefined
  return {
    source: part ?? volumeSource(volume, paths),
    target: mount.mountPath,
    type: '',
    flags: ['bind', 'rec', 'nosuid', 'nodev', ...(readOnly ? (['ro'] as const) : [])],
    create: volume.hostPath?.type === 'File' ? 'file' : 'directory',
    propagation: mount.mountPropagation === 'HostToContainer' ? 'slave' : 'private',
    ...(part === undefined ? {} : { plainSource: true }),
  }
}

function terminationMount({ name, terminationMessagePath: target }: PodContainer, paths: PodPaths): Mount[] {
  if (target === undefined) return []
  const source = terminationFile(paths, name)
  return [{ source, target, type: '', flags: ['bind', 'nosuid', 'nodev', 'noexec'], create: 'file' }]
}

/** What the kernel shows of the machine that a container has no business with. */
const masked = [
  '/proc/acpi',
  '/proc/asound',
  '/proc/interrupts',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/sys/devices/virtual/powercap',
  '/sys/firmware',
]
const readonly = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger']

const devices = (
  [
    ['null', 1, 3],
    ['zero', 1, 5],
    ['full', 1, 7],
    ['random', 1, 8],
    ['urandom', 1, 9],
    ['tty', 5, 0],
  ] as const
).map(([name, major, minor]) => ({ path: `/dev/${name}`, kind: 'char' as const, mode: 0o666, major, minor }))

const symlinks = [
  { target: '/proc/self/fd', path: '/dev/fd' },
  { target: '/proc/self/fd/0', path: '/dev/stdin' },
  { target: '/proc/self/fd/1', path: '/dev/stdout' },
  { target: '/proc/self/fd/2', path: '/dev/stderr' },
  { target: 'pts/ptmx', path: '/dev/ptmx' },
]

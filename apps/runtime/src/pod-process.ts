import { lstat, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Capability, capabilitiesFor, isCapability, type ProcessPlan } from '@kiln/linux'
import {
  type AppOption,
  type ImageConfig,
  type PodContainer,
  type PodManifest,
  readPodOptions,
} from '@kiln/schemas'
import { Fault } from '@kiln/service'
import { planSeccomp } from './pod-seccomp.ts'

/** What a pod may know about itself and its machine. */
export type PodFacts = {
  machineId: string
  hostIp: string | undefined
  podIps: readonly string[]
  uid: string
  /** How many files a process here may have open; a container gets no more. */
  filesMax: number
  /** Where profiles of system calls are. */
  seccompDir: string
}

/** The set that container engines give, without MKNOD: there are no device rules here that would tame it. */
const defaultCapabilities: Capability[] = [
  'AUDIT_WRITE',
  'CHOWN',
  'DAC_OVERRIDE',
  'FOWNER',
  'FSETID',
  'KILL',
  'NET_BIND_SERVICE',
  'NET_RAW',
  'SETFCAP',
  'SETGID',
  'SETPCAP',
  'SETUID',
  'SYS_CHROOT',
]

/** May be asked for: none of these is a way out of a container by itself. */
const grantable = new Set<Capability>([
  ...defaultCapabilities,
  'IPC_LOCK',
  'LEASE',
  'NET_ADMIN',
  'NET_BROADCAST',
  'SYS_NICE',
  'SYS_PACCT',
  'SYS_TTY_CONFIG',
  'WAKE_ALARM',
])

const rlimitNoFile = 7
const filesWanted = 65_536

/** The process of a container with its user, looked up in the image's tree, and the filter of its system calls. */
export async function planContainerProcess(
  pod: PodManifest,
  container: PodContainer,
  image: ImageConfig,
  tree: string,
  facts: PodFacts,
): Promise<ProcessPlan> {
  const user = await resolveUser(tree, image, pod, container)
  const process = planProcess(pod, container, image, user, facts)
  const seccomp = await planSeccomp(
    pod,
    container,
    planCapabilities(container),
    facts.seccompDir,
    optionsOf(pod, container).seccomp,
  )
  return seccomp ? { ...process, seccomp } : process
}

/** What the pod's annotation says of one container; the schema has seen that it can be read. */
function optionsOf(pod: PodManifest, container: PodContainer): AppOption {
  return readPodOptions(pod.metadata.annotations).options?.apps[container.name] ?? {}
}

/** The process of a container: Kubernetes' rules over the image's configuration. Pure. */
export function planProcess(
  pod: PodManifest,
  container: PodContainer,
  image: ImageConfig,
  user: UserIds,
  facts: PodFacts,
): ProcessPlan {
  const security = container.securityContext
  const shared = pod.spec.securityContext
  if ((security?.runAsNonRoot ?? pod.spec.securityContext?.runAsNonRoot) && user.uid === 0)
    throw new Fault('POD_RUNS_AS_ROOT', `container ${container.name} would run as root, and must not`)
  const env = planEnvironment(pod, container, image, facts)
  const args = [
    ...(container.command ?? image.config.Entrypoint),
    ...(container.args ?? (container.command ? [] : image.config.Cmd)),
  ].map((argument) => expand(argument, env))
  if (args.length === 0)
    throw new Fault('POD_HAS_NO_COMMAND', `neither container ${container.name} nor its image names a command`)
  const files = BigInt(Math.min(filesWanted, facts.filesMax))
  return {
    args,
    env,
    cwd: container.workingDir ?? (image.config.WorkingDir || '/'),
    uid: user.uid,
    gid: user.gid,
    groups: [
      ...new Set([
        ...user.groups,
        ...(shared?.supplementalGroups ?? []),
        ...(shared?.fsGroup === undefined ? [] : [shared.fsGroup]),
      ]),
    ],
    umask: 0o022,
    oomScoreAdj: optionsOf(pod, container).oomScoreAdjust ?? 300,
    noNewPrivileges: security?.allowPrivilegeEscalation === false,
    capabilities: capabilitiesFor(planCapabilities(container), user.uid),
    rlimits: [{ resource: rlimitNoFile, soft: files, hard: files }],
  }
}

function planCapabilities(container: PodContainer): Capability[] {
  const { add, drop } = container.securityContext?.capabilities ?? { add: [], drop: [] }
  for (const name of add) {
    if (!isCapability(name) || !grantable.has(name))
      throw new Fault('POD_CAPABILITY_REFUSED', `container ${container.name} may not have capability ${name}`)
  }
  for (const name of drop) {
    if (name !== 'ALL' && !isCapability(name))
      throw new Fault(
        'POD_CAPABILITY_REFUSED',
        `container ${container.name} drops ${name}, which does not exist`,
      )
  }
  const kept = drop.includes('ALL') ? [] : defaultCapabilities.filter((name) => !drop.includes(name))
  return [...new Set([...kept, ...(add as Capability[])])]
}

/** The image's variables, over those that its runner hands on, overridden by the pod's; `$(NAME)` refers to what stands above. */
function planEnvironment(
  pod: PodManifest,
  container: PodContainer,
  image: ImageConfig,
  facts: PodFacts,
): Record<string, string> {
  const env: Record<string, string> = {
    PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    HOSTNAME: pod.spec.hostname ?? pod.metadata.name,
    ...optionsOf(pod, container).env,
  }
  for (const variable of image.config.Env) {
    const at = variable.indexOf('=')
    if (at > 0) env[variable.slice(0, at)] = variable.slice(at + 1)
  }
  for (const variable of container.env) {
    env[variable.name] = variable.valueFrom
      ? fieldValue(variable.valueFrom.fieldRef.fieldPath, pod, facts)
      : expand(variable.value ?? '', env)
  }
  return env
}

function fieldValue(path: string, pod: PodManifest, facts: PodFacts): string {
  const [, map, key] = /^metadata\.(labels|annotations)\['(.*)'\]$/.exec(path) ?? []
  if (map === 'labels' || map === 'annotations') return pod.metadata[map][key ?? ''] ?? ''
  const fields: Record<string, string | undefined> = {
    'metadata.name': pod.metadata.name,
    'metadata.namespace': pod.metadata.namespace,
    'metadata.uid': facts.uid,
    'spec.nodeName': facts.machineId,
    'status.podIP': facts.podIps[0],
    'status.podIPs': facts.podIps.join(','),
    'status.hostIP': facts.hostIp,
  }
  return fields[path] ?? ''
}

/** `$(NAME)` of a known variable; `$$` is a dollar, an unknown name stays as it is (v1.Container). */
export function expand(text: string, env: Record<string, string>): string {
  return text.replace(/\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)/g, (whole, name: string | undefined) =>
    name === undefined ? '$' : (env[name] ?? whole),
  )
}

export type UserIds = { uid: number; gid: number; groups: number[] }

/**
 * Who a container runs as: the pod's ids, else the user and group of its annotation, else the image's `USER`, which is
 * `name|uid[:group|gid]` looked up in the image's own `/etc/passwd` and `/etc/group`. The annotation may also name a file
 * of the image, whose owner is meant.
 */
export async function resolveUser(
  tree: string,
  image: ImageConfig,
  pod: PodManifest,
  container: PodContainer,
): Promise<UserIds> {
  const own = container.securityContext
  const shared = pod.spec.securityContext
  const passwd = await readTable(join(tree, 'etc'), 'passwd')
  const group = await readTable(join(tree, 'etc'), 'group')
  const [imageUser = '', imageGroup] = (image.config.User || '0').split(':')
  const asked = optionsOf(pod, container)
  const owner = async (path: string | undefined, of: 'uid' | 'gid'): Promise<string | undefined> =>
    path?.startsWith('/') ? String((await ownerOf(tree, path, container.name))[of]) : path
  const askedUser = await owner(asked.user, 'uid')
  const name = askedUser ?? imageUser
  // The group of the image's user is not that of another one.
  const groupName = (await owner(asked.group, 'gid')) ?? (askedUser === undefined ? imageGroup : undefined)
  const askedUid = own?.runAsUser ?? shared?.runAsUser
  const entry =
    passwd.find((row) => (askedUid === undefined ? row[0] === name : row[2] === String(askedUid))) ??
    passwd.find((row) => askedUid === undefined && row[2] === name)
  const uid = askedUid ?? number(entry?.[2]) ?? number(name)
  if (uid === undefined)
    throw new Fault(
      'POD_USER_UNKNOWN',
      askedUser === undefined
        ? `the image of ${container.name} runs as ${name}, whom it does not know`
        : `the image of ${container.name} has no user ${name}`,
    )
  const groupEntry = group.find((row) => row[0] === groupName)
  const namedGid = groupName === undefined ? undefined : (number(groupEntry?.[2]) ?? number(groupName))
  const groupCounts = askedUid === undefined || asked.group !== undefined
  if (groupName !== undefined && groupCounts && namedGid === undefined)
    throw new Fault('POD_USER_UNKNOWN', `the image of ${container.name} has no group ${groupName}`)
  const gid =
    own?.runAsGroup ?? shared?.runAsGroup ?? (groupCounts ? namedGid : undefined) ?? number(entry?.[3]) ?? 0
  const memberships = group.filter((row) => entry && (row[3] ?? '').split(',').includes(entry[0] ?? ''))
  return { uid, gid, groups: memberships.flatMap((row) => number(row[2]) ?? []).filter((id) => id !== gid) }
}

/** Owner of a file of an image. A symlink on the way could lead to the machine's own files, so it is refused. */
async function ownerOf(tree: string, path: string, container: string): Promise<{ uid: number; gid: number }> {
  const refused = (why: string): Fault =>
    new Fault('POD_USER_UNKNOWN', `the image of ${container} has ${why} at ${path}`)
  let at = tree
  let found = await lstat(at)
  for (const part of path.split('/').filter((each) => each !== '' && each !== '.')) {
    at = join(at, part)
    const next = await lstat(at).catch(() => undefined)
    if (!next) throw refused('nothing')
    if (next.isSymbolicLink()) throw refused('a symlink')
    found = next
  }
  return { uid: found.uid, gid: found.gid }
}

const number = (text: string | undefined): number | undefined =>
  text !== undefined && /^\d{1,10}$/.test(text) && Number(text) < 0xffffffff ? Number(text) : undefined

/** Rows of a colon separated file of an image. A symlink could lead to the machine's own file, so it is none. */
async function readTable(folder: string, name: string): Promise<string[][]> {
  const path = join(folder, name)
  const isPlain =
    (await lstat(folder).catch(() => undefined))?.isDirectory() &&
    (await lstat(path).catch(() => undefined))?.isFile()
  if (!isPlain) return []
  const text = (await readFile(path, 'utf8')).slice(0, 1 << 20)
  return text.split('\n').map((line) => line.split(':'))
}

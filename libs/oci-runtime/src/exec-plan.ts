import { posix } from 'node:path'
import { encodeRecords, type PlanRecord } from '@kiln/linux'
import { resourceRecords } from './cgroup-resources.ts'
import { bytesOf, numberOf, type ParsedLine, parseLine } from './command-line.ts'
import { type ConfigProcess, parseProcess, parseResources, type Resources, refuse } from './config.ts'
import { consoleRecords, type ExecBase, keptFds, pathRecords, personalityRecords } from './container-plan.ts'
import { affinityRecords } from './cpu-affinity.ts'
import type { Planned } from './planner.ts'
import { processRecords, unknownCapabilities } from './process-records.ts'
import type { FrontRequest } from './request.ts'

const execOptions = {
  'console-socket': 'value',
  'pid-file': 'value',
  'pidfd-socket': 'value',
  'preserve-fds': 'value',
  'process-label': 'value',
  'additional-gids': 'list',
  'ignore-paused': 'flag',
  'no-new-privs': 'flag',
  'no-subreaper': 'flag',
  apparmor: 'value',
  cap: 'list',
  cgroup: 'list',
  cwd: 'value',
  detach: 'flag',
  env: 'list',
  process: 'value',
  tty: 'flag',
  user: 'value',
} as const
const execLetters = {
  c: 'cap',
  d: 'detach',
  e: 'env',
  g: 'additional-gids',
  p: 'process',
  t: 'tty',
  u: 'user',
  w: 'cwd',
}

const detached = 1

/** `exec`: the container's own process as it was made, with what the command line or `--process` says otherwise. */
export function planExec(request: FrontRequest): Planned {
  const line = parseLine(request.args, execOptions, execLetters)
  const [id = '', ...args] = line.rest
  const base = JSON.parse(request.base ?? '{}') as ExecBase
  const process =
    request.document === undefined ? fromLine(base.process, line, args) : parseProcess(request.document)
  if (line.flags.has('tty')) process.terminal = true
  if (request.document !== undefined && args.length > 0) process.args = args
  const records: PlanRecord[] = [
    ['id', id],
    ['options', line.flags.has('detach') ? detached : 0, keptFds(line, 0)],
    ...pathRecords(request.cwd, line),
    ...groupRecords(base, line.lists.get('cgroup') ?? [], request.cgroup),
    ...affinityRecords(process),
    ...personalityRecords(base.personality),
    ...consoleRecords(request, process, line.values.get('console-socket'), line.flags.has('detach')),
    ...processRecords(process, false),
  ]
  return { plan: encodeRecords('ociExec', id, records), warnings: unknownCapabilities(process) }
}

/** `--cgroup [CONTROLLERS:]PATH`: groups below the container's, which must be there; of v1 those not named stay its own. */
function groupRecords(base: ExecBase, given: string[], firstProcess: string): PlanRecord[] {
  const { layout, folders } = base
  if (given.length === 0) return groupBelow(base, firstProcess)
  const places = new Map<string, string>()
  for (const text of given) {
    const colon = text.indexOf(':')
    const names = colon < 0 ? [''] : text.slice(0, colon).split(',')
    for (const name of names) {
      if (places.has(name)) refuse([`--cgroup: ${name || 'a path for all'} a second time`])
      if (name !== '' && !folders.some(({ controllers }) => controllers.includes(name)))
        refuse([`--cgroup: the container has no group of controller ${JSON.stringify(name)}`])
      const path = posix.normalize(text.slice(colon + 1))
      if (path === '..' || path.startsWith('../'))
        refuse([`--cgroup: ${path} is not below the container's group`])
      places.set(name, posix.resolve('/', path))
    }
  }
  return folders.map(({ controllers, folder }): PlanRecord => {
    const named = controllers.find((name) => places.has(name)) ?? ''
    const path = posix.join(folder, places.get(layout.kind === 'v2' ? '' : named) ?? '')
    return ['cgroupFolder', controllers.join(','), path.replace(/\/$/, ''), 0]
  })
}

/**
 * Of v2, the group below the container's that its first process went to, as an init that manages groups does: one that hands controllers
 * down takes no process itself. Empty where the process is in the container's own.
 */
function groupBelow({ layout, folders }: ExecBase, firstProcess: string): PlanRecord[] {
  const place = layout.kind === 'v2' ? /^0::(\/.*)$/m.exec(firstProcess)?.[1] : undefined
  const own = folders[0]?.folder
  if (place === undefined || own === undefined) return []
  const folder = posix.join(layout.hierarchies[0]?.mountPoint ?? '/', place)
  return folder.startsWith(`${own}/`) ? [['cgroupFolder', '', folder, 0]] : []
}

function fromLine(container: ConfigProcess, line: ParsedLine, args: string[]): ConfigProcess {
  if (args.length === 0) refuse(['exec: no program to run'])
  const user = userOf(container, line)
  const added = (line.lists.get('cap') ?? []).map((name) => (name.startsWith('CAP_') ? name : `CAP_${name}`))
  const sets = container.capabilities ?? {}
  const widened = (names: string[] | null | undefined) => [...new Set([...(names ?? []), ...added])]
  return {
    ...container,
    terminal: false,
    args,
    cwd: line.values.get('cwd') ?? container.cwd,
    env: [...(container.env ?? []), ...(line.lists.get('env') ?? [])],
    user,
    noNewPrivileges: line.flags.has('no-new-privs') || container.noNewPrivileges,
    apparmorProfile: line.values.get('apparmor') ?? container.apparmorProfile,
    selinuxLabel: line.values.get('process-label') ?? container.selinuxLabel,
    capabilities:
      added.length === 0
        ? sets
        : {
            bounding: widened(sets.bounding),
            effective: widened(sets.effective),
            permitted: widened(sets.permitted),
            inheritable: sets.inheritable,
            ambient: sets.ambient,
          },
  }
}

function userOf(container: ConfigProcess, line: ParsedLine): ConfigProcess['user'] {
  const text = line.values.get('user')
  const more = (line.lists.get('additional-gids') ?? []).flatMap((list) => list.split(',')).map(idOf)
  const before = container.user
  if (text === undefined) return { ...before, additionalGids: [...(before.additionalGids ?? []), ...more] }
  const [uid = '', gid] = text.split(':')
  return { ...before, uid: idOf(uid), gid: gid === undefined ? before.gid : idOf(gid), additionalGids: more }
}

function idOf(text: string): number {
  const id = Number(text)
  return /^\d+$/.test(text) && id < 0xffffffff
    ? id
    : refuse([`${JSON.stringify(text)} is not a numeric user or group`])
}

const updateOptions = {
  resources: 'value',
  'blkio-weight': 'value',
  'cpu-period': 'value',
  'cpu-quota': 'value',
  'cpu-burst': 'value',
  'cpu-share': 'value',
  'cpu-rt-period': 'value',
  'cpu-rt-runtime': 'value',
  'cpu-idle': 'value',
  'cpuset-cpus': 'value',
  'cpuset-mems': 'value',
  memory: 'value',
  'memory-reservation': 'value',
  'memory-swap': 'value',
  'kernel-memory-tcp': 'value',
  'pids-limit': 'value',
} as const

/** `update`: new limits from flags or from a document, for the folders that `create` made. */
export function planUpdate(request: FrontRequest): Buffer {
  const line = parseLine(request.args, updateOptions, { r: 'resources' }, { anywhere: true })
  if (line.rest.length !== 1) refuse([`update: one container id, not ${JSON.stringify(line.rest)}`])
  const base = JSON.parse(request.base ?? '{}') as ExecBase
  const given = request.document === undefined ? resourcesOf(line) : parseResources(request.document)
  if (given.memory?.checkBeforeUpdate)
    refuse(['resources.memory.checkBeforeUpdate: is not supported by this runtime'])
  // On v2 the kernel counts swap alone: what `create` or an earlier document said of memory is needed to subtract.
  const memory = given.memory
    ? { ...given.memory, limit: given.memory.limit ?? base.memory?.limit }
    : undefined
  // And it takes no period without a quota: a period alone keeps what `create` was told.
  const cpu = given.cpu?.period ? { ...given.cpu, quota: given.cpu.quota ?? base.cpu?.quota } : given.cpu
  const resources: Resources = base.layout.kind === 'v2' ? { ...given, memory, cpu } : given
  const records = resourceRecords(resources, base.layout, base.folders, {
    update: true,
    rootless: base.rootless ?? false,
  })
  return encodeRecords('ociUpdate', line.rest[0] ?? '', [['id', line.rest[0] ?? ''], ...records])
}

function resourcesOf(line: ParsedLine): Resources {
  return {
    memory: {
      limit: bytesOf(line, 'memory'),
      swap: bytesOf(line, 'memory-swap'),
      reservation: bytesOf(line, 'memory-reservation'),
      kernelTCP: bytesOf(line, 'kernel-memory-tcp'),
    },
    cpu: {
      shares: numberOf(line, 'cpu-share'),
      quota: numberOf(line, 'cpu-quota'),
      period: numberOf(line, 'cpu-period'),
      burst: numberOf(line, 'cpu-burst'),
      idle: numberOf(line, 'cpu-idle'),
      realtimePeriod: numberOf(line, 'cpu-rt-period'),
      realtimeRuntime: numberOf(line, 'cpu-rt-runtime'),
      cpus: line.values.get('cpuset-cpus'),
      mems: line.values.get('cpuset-mems'),
    },
    pids: { limit: numberOf(line, 'pids-limit') },
    blockIO: { weight: numberOf(line, 'blkio-weight') },
  }
}

import { type Capability, capabilityMask, isCapability, type PlanRecord } from '@kiln/linux'
import { type ConfigProcess, refuse } from './config.ts'

/** `RLIMIT_*` of getrlimit(2) on x86-64 and arm64. */
const rlimits = [
  ...[
    'CPU',
    'FSIZE',
    'DATA',
    'STACK',
    'CORE',
    'RSS',
    'NPROC',
    'NOFILE',
    'MEMLOCK',
    'AS',
    'LOCKS',
    'SIGPENDING',
  ],
  ...['MSGQUEUE', 'NICE', 'RTPRIO', 'RTTIME'],
]
const infinity = (1n << 64n) - 1n

const policies: Readonly<Record<string, number>> = {
  SCHED_OTHER: 0,
  SCHED_FIFO: 1,
  SCHED_RR: 2,
  SCHED_BATCH: 3,
  SCHED_ISO: 4,
  SCHED_IDLE: 5,
  SCHED_DEADLINE: 6,
}
const policyFlags: Readonly<Record<string, number>> = {
  SCHED_FLAG_RESET_ON_FORK: 1,
  SCHED_FLAG_RECLAIM: 2,
  SCHED_FLAG_DL_OVERRUN: 4,
  SCHED_FLAG_KEEP_POLICY: 8,
  SCHED_FLAG_KEEP_PARAMS: 16,
  SCHED_FLAG_UTIL_CLAMP_MIN: 32,
  SCHED_FLAG_UTIL_CLAMP_MAX: 64,
}
const ioClasses: Readonly<Record<string, number>> = {
  IOPRIO_CLASS_RT: 1,
  IOPRIO_CLASS_BE: 2,
  IOPRIO_CLASS_IDLE: 3,
}

const noNewPrivileges = 1
const readonlyRootFlag = 2
const keepOomScore = 4

/** The program and what it may (config.md, Process), for `create` and `exec` alike. */
export function processRecords(program: ConfigProcess, readonlyRoot: boolean): PlanRecord[] {
  const args = program.args ?? []
  if (args.length === 0 || args[0] === '') refuse(['config.process.args: empty'])
  for (const [at, variable] of (program.env ?? []).entries()) {
    if (variable.indexOf('=') < 1)
      refuse([`config.process.env.${at}: ${JSON.stringify(variable)} has no name`])
  }
  const { user } = program
  const flags =
    (program.noNewPrivileges ? noNewPrivileges : 0) |
    (readonlyRoot ? readonlyRootFlag : 0) |
    (program.oomScoreAdj == null ? keepOomScore : 0)
  return [
    ...rlimitRecords(program),
    capabilityRecord(program),
    ['process', user.uid, user.gid, user.umask ?? 0o022, flags, (program.oomScoreAdj ?? 0) + 1000],
    ...[...new Set(user.additionalGids ?? [])].map((gid): PlanRecord => ['group', gid]),
    ['cwd', program.cwd],
    ...args.map((argument): PlanRecord => ['argument', argument]),
    ...environment(program).map((variable): PlanRecord => ['environment', variable]),
    ...scheduling(program),
    ...(program.apparmorProfile || program.selinuxLabel
      ? [['labels', program.apparmorProfile ?? '', program.selinuxLabel ?? ''] satisfies PlanRecord]
      : []),
  ]
}

/** Of a name twice the last counts; a HOME that is missing is the container's to find, from its own users. */
function environment(program: ConfigProcess): string[] {
  const byName = new Map(
    (program.env ?? []).map((variable) => [variable.slice(0, variable.indexOf('=')), variable]),
  )
  return [...byName.values()]
}

function rlimitRecords(program: ConfigProcess): PlanRecord[] {
  const seen = new Set<string>()
  return (program.rlimits ?? []).map(({ type, soft, hard }, at): PlanRecord => {
    const resource = rlimits.indexOf(type.replace(/^RLIMIT_/, ''))
    const place = `config.process.rlimits.${at}`
    if (resource < 0 || !type.startsWith('RLIMIT_'))
      refuse([`${place}.type: unknown ${JSON.stringify(type)}`])
    if (seen.has(type)) refuse([`${place}.type: ${type} a second time`])
    seen.add(type)
    if (soft > hard) refuse([`${place}: the soft limit is above the hard one`])
    return ['rlimit', resource, unlimited(soft), unlimited(hard)]
  })
}

/** JSON's numbers have 53 bits: what is beyond them is the kernel's infinity, which documents write as 2^64-1. */
function unlimited(value: number): bigint {
  return value >= 2 ** 63 ? infinity : BigInt(value)
}

/** A sentence for names that neither this program nor its kernel knows: no error (config.md, Capabilities). */
export function unknownCapabilities({ capabilities }: ConfigProcess): string[] {
  const names = Object.values(capabilities ?? {}).flatMap((set) => set ?? [])
  const unknown = [...new Set(names)].filter((name) => !isCapability(name.replace(/^CAP_/, '')))
  return unknown.length === 0
    ? []
    : [`unknown capabilities are left out: ${unknown.map((name) => JSON.stringify(name)).join(', ')}`]
}

function capabilityRecord({ capabilities }: ConfigProcess): PlanRecord {
  const mask = (names: string[] | null | undefined) =>
    capabilityMask(
      (names ?? [])
        .map((name) => name.replace(/^CAP_/, ''))
        .filter((name): name is Capability => isCapability(name)),
    )
  return [
    'capabilities',
    mask(capabilities?.bounding),
    mask(capabilities?.effective),
    mask(capabilities?.permitted),
    mask(capabilities?.inheritable),
    mask(capabilities?.ambient),
  ]
}

function scheduling(program: ConfigProcess): PlanRecord[] {
  const records: PlanRecord[] = []
  const { scheduler, ioPriority } = program
  if (scheduler) {
    const policy = policies[scheduler.policy]
    if (policy === undefined)
      refuse([`config.process.scheduler.policy: unknown ${JSON.stringify(scheduler.policy)}`])
    const flags = (scheduler.flags ?? []).reduce((sum, name) => {
      const bit = policyFlags[name]
      if (bit === undefined) refuse([`config.process.scheduler.flags: unknown ${JSON.stringify(name)}`])
      return sum | bit
    }, 0)
    const { nice = 0, priority = 0, runtime = 0, deadline = 0, period = 0 } = scheduler
    records.push([
      'scheduler',
      policy,
      nice + 20,
      priority,
      BigInt(flags),
      BigInt(runtime),
      BigInt(deadline),
      BigInt(period),
    ])
  }
  if (ioPriority) {
    const kind = ioClasses[ioPriority.class]
    if (kind === undefined)
      refuse([`config.process.ioPriority.class: unknown ${JSON.stringify(ioPriority.class)}`])
    records.push(['ioPriority', (kind << 13) | ioPriority.priority])
  }
  return records
}

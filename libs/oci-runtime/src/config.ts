import { Fault } from '@kiln/service'
import { z } from 'zod'

/** The part of runtime-spec 1.2's `config.json` that means something on Linux. Unknown members are ignored, as it demands. */
const u32 = z.number().int().min(0).max(0xffffffff)
const i64 = z.number().int()
const text = z.string().refine((value) => !value.includes('\0'), 'holds a NUL')
const absolute = text.refine((value) => value.startsWith('/'), 'is not an absolute path')
const list = <T extends z.ZodType>(item: T) => z.array(item).nullish()

const IdMapping = z.object({ containerID: u32, hostID: u32, size: u32.min(1) })
export type IdMapping = z.infer<typeof IdMapping>

const Mount = z.object({
  destination: text.min(1),
  type: text.optional(),
  source: text.optional(),
  options: list(text),
  uidMappings: list(IdMapping),
  gidMappings: list(IdMapping),
})
export type ConfigMount = z.infer<typeof Mount>

const names = list(z.string())
const Capabilities = z.object({
  bounding: names,
  effective: names,
  permitted: names,
  inheritable: names,
  ambient: names,
})

/** What would have an effect that this runtime does not bring about is refused, never ignored. */
const unsupported = z.null({ error: 'is not supported by this runtime' }).optional()

export const ProcessSchema = z.object({
  terminal: z.boolean().optional(),
  consoleSize: z.object({ height: u32.max(65535), width: u32.max(65535) }).optional(),
  user: z
    .object({
      uid: u32.default(0),
      gid: u32.default(0),
      umask: u32.max(0o777).optional(),
      additionalGids: list(u32),
    })
    .default({ uid: 0, gid: 0 }),
  args: list(text),
  env: list(text),
  cwd: absolute,
  capabilities: Capabilities.nullish(),
  rlimits: list(z.object({ type: z.string(), soft: z.number().int().min(0), hard: z.number().int().min(0) })),
  noNewPrivileges: z.boolean().optional(),
  apparmorProfile: text.optional(),
  selinuxLabel: text.optional(),
  oomScoreAdj: z.number().int().min(-1000).max(1000).nullish(),
  scheduler: z
    .object({
      policy: z.string(),
      nice: z.number().int().min(-20).max(19).optional(),
      priority: u32.max(99).optional(),
      flags: names,
      runtime: i64.min(0).optional(),
      deadline: i64.min(0).optional(),
      period: i64.min(0).optional(),
    })
    .nullish(),
  ioPriority: z.object({ class: z.string(), priority: u32.max(7).default(0) }).nullish(),
  execCPUAffinity: z.object({ initial: text.optional(), final: text.optional() }).nullish(),
})
export type ConfigProcess = z.infer<typeof ProcessSchema>

const HookEntry = z.object({
  path: absolute,
  args: list(text),
  env: list(text),
  timeout: z.number().int().min(1).nullish(),
})
const hooks = list(HookEntry)

const DeviceRule = z.object({
  allow: z.boolean(),
  type: z.string().nullish(),
  major: i64.nullish(),
  minor: i64.nullish(),
  access: z.string().optional(),
})
export type DeviceRule = z.infer<typeof DeviceRule>

const throttle = list(z.object({ major: u32, minor: u32, rate: i64.min(0) }))
export const ResourcesSchema = z.object({
  devices: list(DeviceRule),
  memory: z
    .object({
      limit: i64.nullish(),
      reservation: i64.nullish(),
      swap: i64.nullish(),
      kernel: i64.nullish(),
      kernelTCP: i64.nullish(),
      swappiness: i64.min(0).max(200).nullish(),
      disableOOMKiller: z.boolean().nullish(),
      useHierarchy: z.boolean().nullish(),
      checkBeforeUpdate: z.boolean().nullish(),
    })
    .nullish(),
  cpu: z
    .object({
      shares: i64.min(0).nullish(),
      quota: i64.nullish(),
      burst: i64.min(0).nullish(),
      period: i64.min(0).nullish(),
      realtimeRuntime: i64.nullish(),
      realtimePeriod: i64.min(0).nullish(),
      cpus: z.string().nullish(),
      mems: z.string().nullish(),
      idle: i64.min(0).max(1).nullish(),
    })
    .nullish(),
  pids: z.object({ limit: i64.nullish() }).nullish(),
  blockIO: z
    .object({
      weight: u32.nullish(),
      leafWeight: u32.nullish(),
      weightDevice: list(
        z.object({ major: u32, minor: u32, weight: u32.nullish(), leafWeight: u32.nullish() }),
      ),
      throttleReadBpsDevice: throttle,
      throttleWriteBpsDevice: throttle,
      throttleReadIOPSDevice: throttle,
      throttleWriteIOPSDevice: throttle,
    })
    .nullish(),
  hugepageLimits: list(z.object({ pageSize: z.string().regex(/^[1-9][0-9]*[KMG]B$/), limit: i64.min(0) })),
  network: z
    .object({ classID: u32.nullish(), priorities: list(z.object({ name: z.string(), priority: u32 })) })
    .nullish(),
  rdma: z.record(z.string(), z.object({ hcaHandles: u32.nullish(), hcaObjects: u32.nullish() })).nullish(),
  unified: z.record(z.string().regex(/^[^/]+$/), text).nullish(),
})
export type Resources = z.infer<typeof ResourcesSchema>

const Seccomp = z.object({
  defaultAction: z.string(),
  defaultErrnoRet: u32.max(4095).nullish(),
  architectures: names,
  flags: names,
  listenerPath: text.optional(),
  listenerMetadata: text.optional(),
  syscalls: list(
    z.object({
      names: z.array(z.string()).min(1),
      action: z.string(),
      errnoRet: u32.max(4095).nullish(),
      args: list(
        z.object({
          index: z.number().int().min(0).max(5),
          value: z.number().min(0),
          valueTwo: z.number().min(0).optional(),
          op: z.string(),
        }),
      ),
    }),
  ),
})
export type Seccomp = z.infer<typeof Seccomp>

const Linux = z.object({
  namespaces: list(z.object({ type: z.string(), path: text.optional() })),
  uidMappings: list(IdMapping),
  gidMappings: list(IdMapping),
  timeOffsets: z
    .record(
      z.enum(['monotonic', 'boottime']),
      z.object({ secs: i64.optional(), nanosecs: u32.optional() }).nullish(),
    )
    .or(z.object({}))
    .nullish(),
  devices: list(
    z.object({
      type: z.enum(['c', 'b', 'u', 'p']),
      path: absolute,
      major: i64.optional(),
      minor: i64.optional(),
      fileMode: u32.nullish(),
      uid: u32.nullish(),
      gid: u32.nullish(),
    }),
  ),
  cgroupsPath: text.optional(),
  resources: ResourcesSchema.nullish(),
  rootfsPropagation: z.string().optional(),
  seccomp: Seccomp.nullish(),
  sysctl: z.record(z.string(), text).nullish(),
  maskedPaths: list(absolute),
  readonlyPaths: list(absolute),
  mountLabel: text.optional(),
  personality: z.object({ domain: z.enum(['LINUX', 'LINUX32']), flags: names }).nullish(),
  intelRdt: unsupported,
  memoryPolicy: unsupported,
  netDevices: unsupported,
})

const ConfigSchema = z.object({
  ociVersion: z.string(),
  root: z.object({ path: text.min(1), readonly: z.boolean().optional() }),
  process: ProcessSchema.optional(),
  hostname: text.max(64).optional(),
  domainname: text.max(64).optional(),
  mounts: list(Mount),
  hooks: z
    .object({
      prestart: hooks,
      createRuntime: hooks,
      createContainer: hooks,
      startContainer: hooks,
      poststart: hooks,
      poststop: hooks,
    })
    .nullish(),
  annotations: z.record(z.string(), z.string()).nullish(),
  linux: Linux.default({}),
})
export type Config = z.infer<typeof ConfigSchema>

/** Refuses the document with every problem it has, each with its path. */
export function refuse(problems: string[]): never {
  throw new Fault('OCI_CONFIG_INVALID', problems.slice(0, 20).join('; '))
}

function parseJson(document: string, what: string): unknown {
  try {
    return JSON.parse(document)
  } catch (error) {
    return refuse([`${what}: not JSON: ${(error as Error).message}`])
  }
}

function check<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const result = schema.safeParse(value)
  if (result.success) return result.data
  return refuse(result.error.issues.map((issue) => `${[what, ...issue.path].join('.')}: ${issue.message}`))
}

/** Reads `config.json`; semantic versioning: any version 1 is ours (config.md, Specification version). */
export function parseConfig(document: string): Config {
  const config = check(ConfigSchema, parseJson(document, 'config.json'), 'config')
  if (!/^1\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$/.test(config.ociVersion))
    refuse([
      `config.ociVersion: ${JSON.stringify(config.ociVersion)} is not a version 1 of the specification`,
    ])
  return config
}

export function parseProcess(document: string): ConfigProcess {
  return check(ProcessSchema, parseJson(document, 'process'), 'process')
}

/** Reads a file with a profile as `linux.seccomp` has it. Conditions of other formats would be lost: they are refused. */
export function parseSeccomp(document: string): Seccomp {
  const value = parseJson(document, 'seccomp')
  const rules = (value as { syscalls?: Record<string, unknown>[] } | null)?.syscalls
  for (const rule of Array.isArray(rules) ? rules : [])
    for (const field of ['includes', 'excludes'])
      if (Object.keys((rule?.[field] as object | undefined) ?? {}).length > 0)
        refuse([`seccomp.syscalls: ${field} is not of the runtime specification`])
  return check(Seccomp, value, 'seccomp')
}

export function parseResources(document: string): Resources {
  return check(ResourcesSchema, parseJson(document, 'resources'), 'resources')
}

import * as z from 'zod'
import { HostName, SegmentName } from './network-names.ts'
import { Lifecycle, type PodAction, Probe } from './pod-actions.ts'
import { networksAnnotation, readPodNetworks } from './pod-networks.ts'
import { type PodOptions, podOptionsAnnotation, readPodOptions } from './pod-options.ts'
import { DnsConfig, DnsPolicy, HostAlias } from './pod-resolver.ts'
import { ContainerSecurity, PodSecurity, safeSysctls } from './pod-security.ts'
import { absolutePath, Volume, VolumeMount } from './pod-volumes.ts'
import { quantity } from './quantity.ts'

const variableName = z.string().regex(/^[A-Za-z_][A-Za-z0-9_.-]*$/, 'must be the name of a variable')
const labels = z.record(z.string().max(320), z.string()).default({})

/** Label that names the service of a pod; without it the service has the pod's name. */
export const serviceLabel = 'kiln.dev/service'

const fieldPaths =
  /^(metadata\.(name|namespace|uid)|metadata\.(labels|annotations)\['[^']{1,320}'\]|spec\.nodeName|status\.(podIPs?|hostIP))$/

const EnvVar = z
  .strictObject({
    name: variableName,
    value: z.string().max(65536).optional(),
    valueFrom: z
      .strictObject({
        fieldRef: z.strictObject({
          apiVersion: z.literal('v1').optional(),
          fieldPath: z.string().regex(fieldPaths, 'is a field that kiln-runtime does not offer'),
        }),
      })
      .optional(),
  })
  .refine((variable) => variable.value === undefined || variable.valueFrom === undefined, {
    message: 'has both value and valueFrom',
  })

const ContainerPort = z.strictObject({
  name: HostName.optional(),
  containerPort: z.number().int().min(1).max(65535),
  hostPort: z.number().int().min(1).max(65535).optional(),
  protocol: z.enum(['TCP', 'UDP']).default('TCP'),
})

const limits = z
  .strictObject({
    cpu: quantity(0.001, '1m').optional(),
    memory: quantity(65536, '64Ki').optional(),
    /** Processes and threads; Kubernetes has no name for it, so ours is an extended resource. */
    'kiln.dev/pids': quantity(1, '1').optional(),
  })
  .default({})

const Resources = z
  .strictObject({
    limits,
    requests: z
      .strictObject({ cpu: quantity(0, '0').optional(), memory: quantity(0, '0').optional() })
      .default({}),
  })
  .default({ limits: {}, requests: {} })

/** A container of a pod: the part of Kubernetes' `v1.Container` that kiln-runtime acts on. */
export const PodContainer = z.strictObject({
  name: HostName,
  image: z.string().min(1).max(2048),
  imagePullPolicy: z.enum(['Always', 'IfNotPresent', 'Never']).default('IfNotPresent'),
  command: z.array(z.string()).max(512).optional(),
  args: z.array(z.string()).max(512).optional(),
  workingDir: absolutePath.optional(),
  env: z.array(EnvVar).max(1024).default([]),
  ports: z.array(ContainerPort).max(64).default([]),
  resources: Resources,
  volumeMounts: z.array(VolumeMount).max(64).default([]),
  securityContext: ContainerSecurity.optional(),
  startupProbe: Probe.optional(),
  livenessProbe: Probe.optional(),
  readinessProbe: Probe.optional(),
  lifecycle: Lifecycle.optional(),
  /** A file that the container may leave a last word in, for the pod's status. */
  terminationMessagePath: absolutePath.optional(),
  terminationMessagePolicy: z.literal('File', 'must be File: the log is not looked through').optional(),
})
export type PodContainer = z.output<typeof PodContainer>

/** What only makes sense beside a pod's containers, not before them. */
const notBefore = ['startupProbe', 'livenessProbe', 'readinessProbe', 'lifecycle'] as const

const PodSpec = z.strictObject({
  /** Run one after the other, each to its end, before the containers. */
  initContainers: z.array(PodContainer).max(32).default([]),
  containers: z.array(PodContainer).min(1).max(32),
  restartPolicy: z.enum(['Always', 'OnFailure', 'Never']).default('Always'),
  terminationGracePeriodSeconds: z.number().int().min(0).max(3600).default(30),
  hostNetwork: z.boolean().default(false),
  hostPID: z.boolean().default(false),
  hostIPC: z.boolean().default(false),
  shareProcessNamespace: z
    .literal(false, 'must be false: containers of a pod do not see each other\u2019s processes')
    .optional(),
  hostname: HostName.optional(),
  nodeName: HostName.optional(),
  volumes: z.array(Volume).max(64).default([]),
  securityContext: PodSecurity.optional(),
  dnsPolicy: DnsPolicy.optional(),
  dnsConfig: DnsConfig.optional(),
  hostAliases: z.array(HostAlias).max(64).default([]),
  enableServiceLinks: z.literal(false).optional(),
  automountServiceAccountToken: z.literal(false).optional(),
})

/**
 * A pod file: Kubernetes' `v1 Pod`, as far as kiln-runtime runs it. What it would not act on is refused by name and
 * path rather than ignored; `status` and what an API server adds to metadata are let through.
 */
export const PodManifest = z
  .strictObject({
    apiVersion: z.literal('v1'),
    kind: z.literal('Pod'),
    metadata: z.strictObject({
      name: HostName,
      namespace: SegmentName.default('default'),
      labels,
      annotations: labels,
      uid: z
        .string()
        .regex(/^[A-Za-z0-9-]{1,64}$/, 'must be of letters, digits and dashes')
        .optional(),
      creationTimestamp: z.unknown().optional(),
      resourceVersion: z.unknown().optional(),
    }),
    spec: PodSpec,
    status: z.unknown().optional(),
  })
  .superRefine((pod, context) => {
    const problem = (path: (string | number)[], message: string): void =>
      context.addIssue({ code: 'custom', path, message })
    const service = pod.metadata.labels[serviceLabel]
    if (service !== undefined && !HostName.safeParse(service).success)
      problem(['metadata', 'labels', serviceLabel], 'must be a lower-case host name of one label')
    const { problem: wrongNetworks } = readPodNetworks(pod.metadata.annotations)
    const noNetworks =
      pod.spec.hostNetwork && networksAnnotation in pod.metadata.annotations
        ? 'is not for a pod with hostNetwork'
        : wrongNetworks
    const { options, problem: wrongOptions } = readPodOptions(pod.metadata.annotations)
    const noOptions = wrongOptions ?? optionsOfNobody(pod.spec, options!)
    if (noOptions !== undefined) problem(['metadata', 'annotations', podOptionsAnnotation], noOptions)
    if (noNetworks !== undefined) problem(['metadata', 'annotations', networksAnnotation], noNetworks)
    if (pod.spec.dnsPolicy === 'None' && !pod.spec.dnsConfig?.nameservers.length)
      problem(['spec', 'dnsConfig', 'nameservers'], 'must name a server with dnsPolicy None')
    for (const [index, { name }] of (pod.spec.securityContext?.sysctls ?? []).entries()) {
      const kind = safeSysctls.ipc.some((each) => each === name) ? 'hostIPC' : 'hostNetwork'
      if (pod.spec[kind])
        problem(
          ['spec', 'securityContext', 'sysctls', index, 'name'],
          `would change the machine with ${kind}`,
        )
    }
    const volumes = new Set(pod.spec.volumes.map((volume) => volume.name))
    const names = new Set<string>()
    for (const [container, at] of containersWithPaths(pod.spec)) {
      if (names.has(container.name)) problem([...at, 'name'], 'is used by two containers')
      names.add(container.name)
      if (at[1] === 'initContainers') {
        for (const field of notBefore)
          if (container[field]) problem([...at, field], 'is not for a container that runs before the others')
      }
      for (const [path, named] of namedPorts(container)) {
        if (!container.ports.some(({ name }) => name === named))
          problem([...at, ...path], 'names no port of the container')
      }
      for (const probe of ['startupProbe', 'livenessProbe'] as const) {
        if ((container[probe]?.successThreshold ?? 1) !== 1)
          problem([...at, probe, 'successThreshold'], 'must be 1')
      }
      for (const [mountIndex, mount] of container.volumeMounts.entries()) {
        if (!volumes.has(mount.name)) problem([...at, 'volumeMounts', mountIndex, 'name'], 'names no volume')
      }
      for (const [portIndex, port] of container.ports.entries()) {
        const differs = port.hostPort !== undefined && port.hostPort !== port.containerPort
        if (pod.spec.hostNetwork && differs)
          problem([...at, 'ports', portIndex, 'hostPort'], 'must equal containerPort with hostNetwork')
      }
    }
  })
export type PodManifest = z.output<typeof PodManifest>

function containersWithPaths(spec: z.output<typeof PodSpec>): [PodContainer, (string | number)[]][] {
  return (['initContainers', 'containers'] as const).flatMap((list) =>
    spec[list].map((container, index): [PodContainer, (string | number)[]] => [
      container,
      ['spec', list, index],
    ]),
  )
}

/** What the annotation says of apps and volumes that the pod has not. */
function optionsOfNobody(spec: z.output<typeof PodSpec>, { apps, volumes }: PodOptions): string | undefined {
  const all = [...spec.initContainers, ...spec.containers]
  const app = Object.keys(apps).find((name) => !all.some((container) => container.name === name))
  if (app !== undefined) return `names no container: ${app}`
  const volume = Object.keys(volumes).find(
    (name) => !spec.volumes.some((each) => each.name === name && each.emptyDir),
  )
  return volume === undefined ? undefined : `names no empty volume: ${volume}`
}

/** Ports that probes and hooks give by name. */
function namedPorts(container: PodContainer): [string[], string][] {
  const { startupProbe, livenessProbe, readinessProbe, lifecycle } = container
  const actions: [string[], PodAction | undefined][] = [
    [['startupProbe'], startupProbe],
    [['livenessProbe'], livenessProbe],
    [['readinessProbe'], readinessProbe],
    [['lifecycle', 'postStart'], lifecycle?.postStart],
    [['lifecycle', 'preStop'], lifecycle?.preStop],
  ]
  return actions.flatMap(([path, action]) =>
    (['httpGet', 'tcpSocket'] as const).flatMap((kind): [string[], string][] => {
      const port = action?.[kind]?.port
      return typeof port === 'string' ? [[[...path, kind, 'port'], port]] : []
    }),
  )
}

/** All containers of a pod: those that run before the others first, in their order. */
export function containersOf(pod: PodManifest): PodContainer[] {
  return [...pod.spec.initContainers, ...pod.spec.containers]
}

/** A problem of a pod document at a path such as `spec.containers[0].image`. */
export type PodProblem = { path: string; message: string }

/** Reads a pod document; all problems at once. */
export function parsePod(
  document: unknown,
): { pod: PodManifest; problems: [] } | { pod: undefined; problems: PodProblem[] } {
  const result = PodManifest.safeParse(document)
  if (result.success) return { pod: result.data, problems: [] }
  const problems = result.error.issues.flatMap((issue): PodProblem[] => {
    const path = issue.path.reduce<string>(
      (text, part) =>
        typeof part === 'number' ? `${text}[${part}]` : text ? `${text}.${String(part)}` : String(part),
      '',
    )
    if (issue.code === 'unrecognized_keys') {
      return issue.keys.map((key) => ({
        path: path ? `${path}.${key}` : key,
        message: 'is not supported by kiln-runtime',
      }))
    }
    return [{ path, message: issue.message }]
  })
  return { pod: undefined, problems }
}

export const ContainerStateName = z.enum(['waiting', 'running', 'exited'])

/** What the runtime says about one container. */
export const ContainerStatus = z.looseObject({
  name: z.string(),
  state: ContainerStateName,
  /** Why it waits: `ImageMissing`, `BackOff`, `StartFailed`, ... */
  reason: z.string().optional(),
  /** Fault code and sentence behind the reason. */
  code: z.string().optional(),
  message: z.string().max(4096).optional(),
  restarts: z.number().int().min(0),
  /** It runs, and its readiness probe, if it has one, says so. */
  ready: z.boolean().optional(),
  /** It runs before the containers of the pod. */
  init: z.literal(true).optional(),
  pid: z.number().int().optional(),
  startedAt: z.iso.datetime().optional(),
  lastExit: z
    .looseObject({
      code: z.number().int(),
      signal: z.number().int(),
      oomKilled: z.boolean(),
      finishedAt: z.iso.datetime(),
      message: z.string().max(4096).optional(),
    })
    .optional(),
  image: z.string(),
  /** Digest of the image's config. */
  imageId: z.string().optional(),
})
export type ContainerStatus = z.output<typeof ContainerStatus>

/** `/kiln/status/<machine>/<pod>` and the answer of `kiln-runtime status`. */
export const PodStatus = z.looseObject({
  formatVersion: z.literal(1),
  name: HostName,
  machine: z.string(),
  uid: z.string(),
  /** `Refused` is ours: a pod that this machine cannot or may not run, with code and message. */
  phase: z.enum(['Pending', 'Running', 'Succeeded', 'Failed', 'Stopped', 'Refused']),
  /** All containers are ready. */
  ready: z.boolean(),
  code: z.string().optional(),
  message: z.string().max(4096).optional(),
  source: z.enum(['file', 'store', 'api']),
  address: z.string().optional(),
  /** All addresses of the pod, `address` first. */
  addresses: z.array(z.string()).optional(),
  service: z.string(),
  ports: z.array(
    z.looseObject({
      name: z.string().optional(),
      port: z.number().int(),
      hostPort: z.number().int().optional(),
      protocol: z.enum(['TCP', 'UDP']),
    }),
  ),
  containers: z.array(ContainerStatus),
  since: z.iso.datetime(),
})
export type PodStatus = z.output<typeof PodStatus>

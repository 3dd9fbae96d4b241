import * as z from 'zod'
import { HostName, SegmentName } from './network-names.ts'
import { ReleaseVersion } from './release.ts'

/** Keys of Kiln's own state in the store (DESIGN section 6). Values are JSON; unknown fields survive a rewrite. */
export const storeKeys = {
  machines: '/kiln/machines/',
  machine: (id: string): string => `/kiln/machines/${id}`,
  pods: (machine: string): string => `/kiln/pods/${machine}/`,
  pod: (at: { machine: string; pod: string }): string => `/kiln/pods/${at.machine}/${at.pod}`,
  status: '/kiln/status/',
  podStatus: (at: { machine: string; pod: string }): string => `/kiln/status/${at.machine}/${at.pod}`,
  services: '/kiln/services/',
  service: (at: { service: string; machine: string; pod: string }): string =>
    `/kiln/services/${at.service}/${at.machine}:${at.pod}`,
  network: '/kiln/network/',
  networkConfig: '/kiln/network/config',
  networkSubnets: '/kiln/network/subnets/',
  release: (group: string): string => `/kiln/releases/${group}`,
  rollout: (at: { group: string; version: string }): string => `/kiln/rollouts/${at.group}/${at.version}`,
  reboot: (at: { group: string; slot: number }): string => `/kiln/reboots/${at.group}/${at.slot}`,
} as const

/** `/kiln/machines/<id>`, kept under a lease by kiln-update: gone means the machine is not there. */
export const MachineStatus = z.looseObject({
  formatVersion: z.literal(1),
  id: HostName,
  version: z.string().max(128),
  slot: z.enum(['a', 'b']),
  generation: z.number().int().min(0),
  bootId: z.string().max(64),
  /** `draining`: it is about to reboot for an update, and hands over what others rely on. */
  state: z.enum(['ready', 'degraded', 'draining', 'updating']),
  /** When `state` became what it is. */
  since: z.iso.datetime(),
  address: z.ipv4(),
  group: SegmentName.optional(),
})
export type MachineStatus = z.output<typeof MachineStatus>

/** `/kiln/services/<name>/<machine>:<pod>`, under the runtime's lease: where a pod is reached, and whether it should be. */
export const ServiceRecord = z.looseObject({
  address: z.string().max(64),
  /** Further addresses of the same ports, such as one of the other IP version. */
  addresses: z.array(z.string().max(64)).max(16).optional(),
  /** The pod says so by its probes. Earlier versions wrote ready pods only, and did not say it. */
  ready: z.boolean().default(true),
  /** `machine`: the addresses mean something on the pod's own machine only. */
  scope: z.enum(['cluster', 'machine']).default('cluster'),
  ports: z
    .array(
      z.looseObject({
        name: z.string().max(63).optional(),
        port: z.number().int().min(1).max(65535),
        protocol: z.enum(['TCP', 'UDP', 'SCTP']).default('TCP'),
      }),
    )
    .max(256),
})
export type ServiceRecord = z.output<typeof ServiceRecord>

/** `/kiln/releases/<group>`: the release a group should run, as kiln-boot publishes it. */
export const ReleaseRecord = z.looseObject({
  formatVersion: z.literal(1),
  version: ReleaseVersion,
  manifestUrl: z.string().max(2048),
})
export type ReleaseRecord = z.output<typeof ReleaseRecord>

/** `/kiln/rollouts/<group>/<version>`. */
export const RolloutRecord = z.looseObject({
  formatVersion: z.literal(1).default(1),
  state: z.enum(['rolling', 'done', 'halted']),
  reason: z.string().max(2048).optional(),
  /** Machine that halted it. */
  machine: z.string().max(64).optional(),
})
export type RolloutRecord = z.output<typeof RolloutRecord>

/** `/kiln/reboots/<group>/<slot>`: whose turn it is. No lease: only a proven boot or an operator removes it. */
export const RebootTurn = z.looseObject({
  formatVersion: z.literal(1).default(1),
  machine: HostName,
  version: ReleaseVersion,
  generation: z.number().int().min(0),
  grantedAt: z.iso.datetime(),
  deadlineAt: z.iso.datetime(),
})
export type RebootTurn = z.output<typeof RebootTurn>

/** Group whose machines take turns, as a path segment of the keys above. */
export const RolloutGroup = SegmentName

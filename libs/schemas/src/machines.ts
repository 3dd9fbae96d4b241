import * as z from 'zod'
import { KeptLabels } from './kept-labels.ts'
import { HostName, Mac, SegmentName } from './network-names.ts'

/** What a machine is to the cluster: a store member, or one that only uses the store. */
export const MachineRole = z.enum(['store', 'worker'])
export type MachineRole = z.output<typeof MachineRole>

/** `/etc/kiln/machine.json`: what every daemon on a machine knows about it (docs/reference/seams.md). */
export const MachineFacts = z.looseObject({
  formatVersion: z.literal(1),
  id: HostName,
  name: HostName,
  group: SegmentName,
  role: MachineRole,
  /** Address in the cluster network. */
  address: z.ipv4(),
  /** Plain HTTP base URL of kiln-boot. */
  bootUrl: z.url(),
  /** TLS base URL of kiln-boot: enrolment and everything that needs a certificate. */
  bootTlsUrl: z.url(),
  /** Empty when the cluster has no store. */
  storeEndpoints: z.array(z.url()).max(64),
})
export type MachineFacts = z.output<typeof MachineFacts>

/** `/etc/kiln/enrol.json` (0600): how a machine gets its certificate, once. */
export const EnrolmentTicket = z.object({
  /** `https://HOST:PORT/v1/enrol`. */
  url: z.url(),
  token: z.string().min(16).max(256),
  /** sha256 of the CA certificate in DER, hex: what the server's chain must end in. */
  caHash: z.string().regex(/^[0-9a-f]{64}$/),
})
export type EnrolmentTicket = z.output<typeof EnrolmentTicket>

/** Body of `POST /v1/enrol`. */
export const EnrolmentRequest = z.object({
  machine: HostName,
  token: z.string().min(16).max(256),
  csr: z.string().max(8192),
})
export type EnrolmentRequest = z.output<typeof EnrolmentRequest>

/** Body of `POST /v1/renew`, answered like an enrolment. It takes no token: the certificate speaks. */
export const RenewalRequest = z.strictObject({ csr: z.string().max(8192) })

export const EnrolmentReply = z.object({ certificate: z.string(), ca: z.string() })
export type EnrolmentReply = z.output<typeof EnrolmentReply>

/** Stages of a machine's way from power to ready, in order. */
export const machineStages = [
  'firmware',
  'ipxe',
  'kernel',
  'fetch',
  'disks',
  'image',
  'files',
  'switch-root',
  'units',
  'ready',
] as const
export const MachineStage = z.enum(machineStages)
export type MachineStage = z.output<typeof MachineStage>

export const StageStatus = z.enum(['running', 'done', 'failed'])
export type StageStatus = z.output<typeof StageStatus>

/** Body of `POST /v1/machines/ID/report`. */
export const StageReport = z.object({
  stage: MachineStage,
  status: StageStatus,
  uptimeSeconds: z.number().min(0).max(1e9),
  bootId: z.string().min(1).max(64),
  /** What went wrong, one sentence. */
  message: z.string().max(2048).optional(),
  /** Place of a problem in a config: JSON path, line and column from 1. */
  path: z.string().max(512).optional(),
  line: z.number().int().min(1).optional(),
  column: z.number().int().min(1).optional(),
  version: z.string().max(128).optional(),
  slot: z.enum(['a', 'b']).optional(),
  generation: z.number().int().min(0).optional(),
})
export type StageReport = z.output<typeof StageReport>

export const MachineState = z.enum(['discovered', 'assigned', 'installing', 'installed', 'failed'])
export type MachineState = z.output<typeof MachineState>

/** What kiln-boot knows of a machine: `machines/ID.json` and `GET /v1/machines`. Holds no secret. */
export const MachineRecord = z.looseObject({
  /** The name once assigned, before that the MAC in dashes. */
  id: HostName,
  mac: Mac,
  uuid: z.string().max(64),
  serial: z.string().max(256).optional(),
  name: HostName.optional(),
  group: SegmentName.optional(),
  address: z.ipv4().optional(),
  role: MachineRole.optional(),
  state: MachineState,
  stage: MachineStage.optional(),
  stageStatus: StageStatus.optional(),
  /** Why it waits or failed; what an operator should read first. */
  message: z.string().max(4096).optional(),
  path: z.string().max(512).optional(),
  line: z.number().int().optional(),
  column: z.number().int().optional(),
  uptimeSeconds: z.number().optional(),
  bootId: z.string().max(64).optional(),
  version: z.string().max(128).optional(),
  slot: z.enum(['a', 'b']).optional(),
  generation: z.number().int().optional(),
  firstSeenAt: z.iso.datetime(),
  lastSeenAt: z.iso.datetime(),
  /** One reinstall is allowed. */
  reinstall: z.boolean().optional(),
  /** Labels of partitions that the next install leaves as they are; until it is complete. */
  keep: KeptLabels.optional(),
  /** Configs handed out since the machine was assigned, set to reinstall or last installed. */
  attempts: z.number().int().min(0).optional(),
  /** Installs ever begun; tells the enrolment token of one from that of the next. */
  installs: z.number().int().min(0).optional(),
  enrolledAt: z.iso.datetime().optional(),
  /** When it was installed first: a store member that starts again with an empty disk is not a new one. */
  installedAt: z.iso.datetime().optional(),
  /** When a used or wrong enrolment token was last shown for this machine. */
  alarmAt: z.iso.datetime().optional(),
})
export type MachineRecord = z.output<typeof MachineRecord>

/** What a machine that asks the network now would be told. */
export const NextBoot = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('wait'), message: z.string() }),
  z.object({ kind: z.literal('install'), reinstall: z.boolean() }),
  z.object({ kind: z.literal('disk') }),
])
export type NextBoot = z.output<typeof NextBoot>

/** Answer of `GET /v1/machines/ID/plan`: what an install of the machine would work with. Making it changes nothing. */
export const MachinePlan = z.object({
  machine: HostName,
  next: NextBoot,
  /** The config it would be served, but for its enrolment ticket. */
  config: z.looseObject({}),
  /** Arguments of its kernel; what iPXE fills in stands as `${...}`. */
  kernelArguments: z.array(z.string()),
})
export type MachinePlan = z.output<typeof MachinePlan>

/** Body of `PUT /v1/machines/ID`. */
export const MachineAssignment = z.strictObject({
  group: SegmentName,
  name: HostName,
  address: z.ipv4(),
  role: MachineRole.default('worker'),
})
export type MachineAssignment = z.output<typeof MachineAssignment>

import * as z from 'zod'
import { MachineRole } from './machines.ts'
import { HostName, Mac, SegmentName } from './network-names.ts'

/** `metadata.kiln` of a group: machines matched by it are Kiln's and are assigned on sight. */
export const KilnGroup = z.strictObject({
  role: MachineRole.default('worker'),
  /** MAC of the booting interface -> address in the cluster network. */
  addresses: z.record(Mac, z.ipv4()).default({}),
  names: z.record(Mac, HostName).default({}),
  /** Store members that must be assigned before the initial cluster is written; default: as many as addresses. */
  expected: z.number().int().min(1).max(9).optional(),
  /** MAC of the booting interface -> MAC of the cluster interface; without it `clusterInterface` is matched by name. */
  clusterMacs: z.record(Mac, Mac).default({}),
  /** Interface that carries the address; `boot` is the one it boots from, `none` when something else configures it. */
  clusterInterface: z
    .string()
    .regex(/^[A-Za-z0-9_.-]{1,15}$/)
    .default('eth1'),
  prefixLength: z.number().int().min(8).max(30).default(24),
})
export type KilnGroup = z.output<typeof KilnGroup>

/** matchbox's group file: selectors must all equal the request's labels. */
export const Group = z.looseObject({
  id: SegmentName,
  name: z.string().max(256).optional(),
  profile: SegmentName,
  selector: z.record(z.string(), z.string()).nullish(),
  metadata: z.looseObject({ kiln: KilnGroup.optional() }).nullish(),
})
export type Group = z.output<typeof Group>

/** matchbox's profile file, and `kiln.release`, which fills `boot` from a release below the assets. */
export const Profile = z.looseObject({
  id: SegmentName,
  name: z.string().max(256).optional(),
  ignition_id: z.string().max(256).optional(),
  generic_id: z.string().max(256).optional(),
  cloud_id: z.string().max(256).optional(),
  boot: z
    .looseObject({
      kernel: z.string().max(2048).optional(),
      initrd: z.array(z.string().max(2048)).max(32).nullish(),
      args: z.array(z.string().max(4096)).max(256).nullish(),
    })
    .optional(),
  kiln: z
    .strictObject({
      /** Version of the release that machines of this profile install. */
      release: SegmentName,
      /** Kernel arguments after those of the release. */
      args: z.array(z.string().max(4096)).max(64).default([]),
    })
    .optional(),
})
export type Profile = z.output<typeof Profile>

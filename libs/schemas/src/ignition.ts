import * as z from 'zod'

/**
 * Ignition's config as of spec 3.6. Older specs are subsets of it: `ignition-versions.ts` has what each one knows.
 * Unknown keys are reported as warnings by `parseIgnition`; `null` counts as absent. Ranges of numbers are no part of
 * the specification's checks: what cannot be done is refused by the agent before it touches anything.
 */
/** A key that must not be empty; the rules say so where it stands, so that one missing key hides no other problem. */
const Key = z.string().default('')

const HttpHeader = z.strictObject({ name: Key, value: z.string().optional() })
const Verification = z.strictObject({ hash: z.string().optional() })

export const IgnitionResource = z.strictObject({
  source: z.string().optional(),
  compression: z.string().optional(),
  httpHeaders: z.array(HttpHeader).optional(),
  verification: Verification.optional(),
})

const Owner = z.strictObject({ id: z.int().optional(), name: z.string().optional() })

const Partition = z.strictObject({
  number: z.int().optional(),
  label: z.string().optional(),
  sizeMiB: z.int().optional(),
  startMiB: z.int().optional(),
  typeGuid: z.string().optional(),
  guid: z.string().optional(),
  wipePartitionEntry: z.boolean().optional(),
  shouldExist: z.boolean().optional(),
  resize: z.boolean().optional(),
})

const Disk = z.strictObject({
  device: Key,
  wipeTable: z.boolean().optional(),
  partitions: z.array(Partition).optional(),
})

const Raid = z.strictObject({
  name: Key,
  level: z.string().optional(),
  devices: z.array(z.string()).optional(),
  spares: z.int().optional(),
  options: z.array(z.string()).optional(),
})

const Filesystem = z.strictObject({
  device: Key,
  format: z.string().optional(),
  path: z.string().optional(),
  wipeFilesystem: z.boolean().optional(),
  label: z.string().optional(),
  uuid: z.string().optional(),
  options: z.array(z.string()).optional(),
  mountOptions: z.array(z.string()).optional(),
})

const nodeShape = {
  path: Key,
  overwrite: z.boolean().optional(),
  user: Owner.optional(),
  group: Owner.optional(),
}

const File = z.strictObject({
  ...nodeShape,
  mode: z.int().optional(),
  contents: IgnitionResource.optional(),
  append: z.array(IgnitionResource).optional(),
})

const Directory = z.strictObject({ ...nodeShape, mode: z.int().optional() })

const Link = z.strictObject({ ...nodeShape, target: z.string().optional(), hard: z.boolean().optional() })

const Tang = z.strictObject({
  url: Key,
  thumbprint: z.string().optional(),
  advertisement: z.string().optional(),
})

const Luks = z.strictObject({
  name: Key,
  device: z.string().optional(),
  keyFile: IgnitionResource.optional(),
  label: z.string().optional(),
  uuid: z.string().optional(),
  options: z.array(z.string()).optional(),
  wipeVolume: z.boolean().optional(),
  discard: z.boolean().optional(),
  openOptions: z.array(z.string()).optional(),
  clevis: z
    .strictObject({
      tang: z.array(Tang).optional(),
      tpm2: z.boolean().optional(),
      threshold: z.int().optional(),
      custom: z
        .strictObject({
          pin: z.string().optional(),
          config: z.string().optional(),
          needsNetwork: z.boolean().optional(),
        })
        .optional(),
    })
    .optional(),
  cex: z.strictObject({ enabled: z.boolean().optional() }).optional(),
})

const Dropin = z.strictObject({ name: Key, contents: z.string().optional() })

const Unit = z.strictObject({
  name: Key,
  enabled: z.boolean().optional(),
  mask: z.boolean().optional(),
  contents: z.string().optional(),
  dropins: z.array(Dropin).optional(),
})

const User = z.strictObject({
  name: Key,
  passwordHash: z.string().optional(),
  sshAuthorizedKeys: z.array(z.string()).optional(),
  uid: z.int().optional(),
  gecos: z.string().optional(),
  homeDir: z.string().optional(),
  noCreateHome: z.boolean().optional(),
  primaryGroup: z.string().optional(),
  groups: z.array(z.string()).optional(),
  noUserGroup: z.boolean().optional(),
  noLogInit: z.boolean().optional(),
  shell: z.string().optional(),
  shouldExist: z.boolean().optional(),
  system: z.boolean().optional(),
})

const Group = z.strictObject({
  name: Key,
  gid: z.int().optional(),
  passwordHash: z.string().optional(),
  shouldExist: z.boolean().optional(),
  system: z.boolean().optional(),
})

export const IgnitionConfig = z.strictObject({
  ignition: z.strictObject({
    version: z.string(),
    config: z
      .strictObject({ merge: z.array(IgnitionResource).optional(), replace: IgnitionResource.optional() })
      .optional(),
    timeouts: z
      .strictObject({
        httpResponseHeaders: z.int().optional(),
        httpTotal: z.int().optional(),
      })
      .optional(),
    security: z
      .strictObject({
        tls: z.strictObject({ certificateAuthorities: z.array(IgnitionResource).optional() }).optional(),
      })
      .optional(),
    proxy: z
      .strictObject({
        httpProxy: z.string().optional(),
        httpsProxy: z.string().optional(),
        noProxy: z.array(z.string()).optional(),
      })
      .optional(),
  }),
  kernelArguments: z
    .strictObject({
      shouldExist: z.array(z.string()).optional(),
      shouldNotExist: z.array(z.string()).optional(),
    })
    .optional(),
  storage: z
    .strictObject({
      disks: z.array(Disk).optional(),
      raid: z.array(Raid).optional(),
      luks: z.array(Luks).optional(),
      filesystems: z.array(Filesystem).optional(),
      files: z.array(File).optional(),
      directories: z.array(Directory).optional(),
      links: z.array(Link).optional(),
    })
    .optional(),
  systemd: z.strictObject({ units: z.array(Unit).optional() }).optional(),
  passwd: z.strictObject({ users: z.array(User).optional(), groups: z.array(Group).optional() }).optional(),
})

export type IgnitionConfig = z.infer<typeof IgnitionConfig>
export type IgnitionResource = z.infer<typeof IgnitionResource>
export type IgnitionDisk = z.infer<typeof Disk>
export type IgnitionPartition = z.infer<typeof Partition>
export type IgnitionFilesystem = z.infer<typeof Filesystem>
export type IgnitionFile = z.infer<typeof File>
export type IgnitionDirectory = z.infer<typeof Directory>
export type IgnitionLink = z.infer<typeof Link>
export type IgnitionRaid = z.infer<typeof Raid>
export type IgnitionLuks = z.infer<typeof Luks>
export type IgnitionUnit = z.infer<typeof Unit>
export type IgnitionUser = z.infer<typeof User>
export type IgnitionGroup = z.infer<typeof Group>

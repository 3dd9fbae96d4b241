import * as z from 'zod'
import { SegmentName } from './network-names.ts'

const Sha256Hex = z.string().regex(/^[0-9a-f]{64}$/, 'must be a sha256 in hex')

/** Release version: semver 2.0.0 without build metadata. */
export const ReleaseVersion = z
  .string()
  .max(128)
  .regex(
    /^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$/,
    'must be a semantic version',
  )

export const ReleasePart = z.looseObject({
  name: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, 'must be a plain file name'),
  sizeBytes: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER),
  sha256: Sha256Hex,
})
export type ReleasePart = z.output<typeof ReleasePart>

/** `manifest.json` of a release; `manifest.json.sig` signs its bytes (docs/reference/seams.md). */
export const ReleaseManifest = z.looseObject({
  formatVersion: z.literal(1),
  version: ReleaseVersion,
  arch: z.enum(['x86_64', 'aarch64']),
  createdAt: z.iso.datetime({ offset: true }),
  expiresAt: z.iso.datetime({ offset: true }),
  usrRootHash: Sha256Hex,
  usrHashOffset: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER),
  kernelArguments: z.array(z.string().max(4096)).max(64),
  parts: z
    .array(ReleasePart)
    .min(1)
    .max(64)
    .refine((parts) => new Set(parts.map((part) => part.name)).size === parts.length, 'part named twice'),
})
export type ReleaseManifest = z.output<typeof ReleaseManifest>

/** `channels/GROUP.json` of kiln-boot: which release a group of machines should run. */
export const ChannelRecord = z.looseObject({
  formatVersion: z.literal(1),
  group: SegmentName,
  version: ReleaseVersion,
  state: z.enum(['rolling', 'halted']),
  reason: z.string().max(2048).optional(),
  /** Machine that halted it. */
  machine: z.string().max(64).optional(),
  /** The operator asked for this release although machines run a newer one. */
  allowDowngrade: z.boolean().optional(),
  changedAt: z.iso.datetime(),
})
export type ChannelRecord = z.output<typeof ChannelRecord>

/** Answer of `GET /v1/channels/GROUP`. */
export const ChannelAnswer = z.looseObject({
  version: ReleaseVersion,
  manifestUrl: z.string(),
  state: z.enum(['rolling', 'halted']),
  allowDowngrade: z.boolean().optional(),
  reason: z.string().optional(),
  machine: z.string().optional(),
})
export type ChannelAnswer = z.output<typeof ChannelAnswer>

/** Body of `PUT /v1/channels/GROUP`. */
export const ChannelChange = z.strictObject({
  version: ReleaseVersion,
  allowDowngrade: z.boolean().optional(),
})
export type ChannelChange = z.output<typeof ChannelChange>

/** Body of `POST /v1/channels/GROUP/halt`. */
export const ChannelHalt = z.strictObject({
  /** The release that is to stop; an operator may leave it out and means the published one. */
  version: ReleaseVersion.optional(),
  reason: z.string().min(1).max(2048),
  machine: z.string().max(64).optional(),
})

/**
 * Order of two release versions by semver 2.0.0 section 11: negative when `a` is older, 0 when equal.
 * Both must be valid {@link ReleaseVersion}s.
 */
export function compareVersions(a: string, b: string): number {
  const [coreA, preA] = splitVersion(a)
  const [coreB, preB] = splitVersion(b)
  for (let i = 0; i < 3; i++) {
    const difference = Number(coreA[i]) - Number(coreB[i])
    if (difference !== 0) return difference
  }
  if (preA.length === 0 || preB.length === 0) return preB.length - preA.length
  for (let i = 0; i < Math.max(preA.length, preB.length); i++) {
    const difference = compareIdentifiers(preA[i], preB[i])
    if (difference !== 0) return difference
  }
  return 0
}

function splitVersion(version: string): [core: string[], preRelease: string[]] {
  const dash = version.indexOf('-')
  if (dash < 0) return [version.split('.'), []]
  return [version.slice(0, dash).split('.'), version.slice(dash + 1).split('.')]
}

function compareIdentifiers(a: string | undefined, b: string | undefined): number {
  if (a === undefined || b === undefined) return a === b ? 0 : a === undefined ? -1 : 1
  const numberA = /^\d+$/.test(a)
  const numberB = /^\d+$/.test(b)
  if (numberA && numberB) return Number(a) - Number(b)
  if (numberA !== numberB) return numberA ? -1 : 1
  return a < b ? -1 : a > b ? 1 : 0
}

import * as z from 'zod'

/** `algorithm:hex`; sha256 is the one algorithm accepted (image-spec, descriptor.md). */
export const Digest = z.string().regex(/^sha256:[0-9a-f]{64}$/, 'must be sha256: and 64 hex digits')
export type Digest = z.output<typeof Digest>

const size = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
const annotations = z.record(z.string(), z.string()).optional()

/** What a manifest or an index says about a blob (image-spec, descriptor.md). */
export const Descriptor = z.looseObject({
  mediaType: z.string().max(255),
  digest: Digest,
  size,
  annotations,
  platform: z
    .looseObject({ architecture: z.string(), os: z.string(), variant: z.string().optional() })
    .optional(),
})
export type Descriptor = z.output<typeof Descriptor>

/** image-spec, image-index.md; also Docker's manifest list. */
export const ImageIndex = z.looseObject({
  schemaVersion: z.literal(2),
  mediaType: z.string().optional(),
  manifests: z.array(Descriptor).max(1024),
  annotations,
})
export type ImageIndex = z.output<typeof ImageIndex>

/** image-spec, manifest.md; also Docker's image manifest. */
export const ImageManifest = z.looseObject({
  schemaVersion: z.literal(2),
  mediaType: z.string().optional(),
  config: Descriptor,
  layers: z.array(Descriptor).max(512),
  annotations,
})
export type ImageManifest = z.output<typeof ImageManifest>

const textList = z
  .array(z.string())
  .max(1024)
  .nullish()
  .transform((list) => list ?? [])

/** image-spec, config.md: what a container of the image runs by default, and the digests of its unpacked layers. */
export const ImageConfig = z.looseObject({
  architecture: z.string(),
  os: z.string(),
  created: z.string().optional(),
  config: z
    .looseObject({
      User: z.string().optional(),
      Env: textList,
      Entrypoint: textList,
      Cmd: textList,
      WorkingDir: z.string().optional(),
      StopSignal: z.string().optional(),
      Labels: z.record(z.string(), z.string()).nullish(),
    })
    .nullish()
    .transform((config) => config ?? { Env: [], Entrypoint: [], Cmd: [] }),
  rootfs: z.looseObject({ type: z.literal('layers'), diff_ids: z.array(Digest).max(512) }),
})
export type ImageConfig = z.output<typeof ImageConfig>

/** `oci-layout` of an image layout (image-spec, image-layout.md). */
export const ImageLayout = z.looseObject({ imageLayoutVersion: z.literal('1.0.0') })

/** `manifest.json` of what `docker save` writes. */
export const DockerArchiveManifest = z
  .array(
    z.looseObject({
      Config: z.string().max(1024),
      RepoTags: textList,
      Layers: z.array(z.string().max(1024)).max(512),
    }),
  )
  .min(1)
  .max(64)
export type DockerArchiveManifest = z.output<typeof DockerArchiveManifest>

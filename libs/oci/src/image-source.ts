import { open, stat } from 'node:fs/promises'
import { join } from 'node:path'
import {
  type Descriptor,
  type Digest,
  DockerArchiveManifest,
  ImageConfig,
  ImageIndex,
  ImageLayout,
  ImageManifest,
} from '@kiln/schemas'
import { Fault } from '@kiln/service'
import type { z } from 'zod'
import { sha256Of } from './blobs.ts'
import { indexTar, type Slice } from './tar-index.ts'

/** A layer where it lies, with what it must be. Docker archives promise no digest of the layer's own file. */
export type LayerSource = { slice: Slice; digest?: Digest; diffId: Digest }

/** An image ready to be unpacked: its configuration is verified, its layers are verified while they are read. */
export type ImageSource = {
  /** Digest of the manifest, or of the config where there is no manifest. */
  digest: Digest
  configDigest: Digest
  config: ImageConfig
  /** As they came. A Docker archive has no manifest: one is made of it when it is stored. */
  documents: { manifest?: Buffer; config: Buffer }
  layers: LayerSource[]
}

type FindFile = (path: string) => Promise<Slice | undefined>

const documentBytesMax = 4 << 20

/** Opens an OCI image layout: a folder with `oci-layout`, `index.json` and `blobs/` (image-spec, image-layout.md). */
export async function openLayout(input: {
  path: string
  tag?: string
  pin?: string
  architecture: string
}): Promise<ImageSource> {
  const find: FindFile = async (path) => {
    const file = join(input.path, path)
    const found = await stat(file).catch(() => undefined)
    return found?.isFile() ? { file, offset: 0, length: found.size } : undefined
  }
  if (!(await find('oci-layout')))
    throw new Fault('IMAGE_NOT_FOUND', `${input.path} is not an OCI image layout`)
  return readLayout(find, { ...input, where: input.path })
}

/** Opens a tar with either an OCI layout or what `docker save` writes in it. */
export async function openArchive(input: { path: string; architecture: string }): Promise<ImageSource> {
  const { path, architecture } = input
  if (!(await stat(path).catch(() => undefined))) throw new Fault('IMAGE_NOT_FOUND', `there is no ${path}`)
  const index = await indexTar(path)
  const find: FindFile = (name) => Promise.resolve(index.get(name))
  if (index.has('oci-layout')) return readLayout(find, { architecture, where: path })
  if (index.has('manifest.json')) return readDockerArchive(find, path)
  throw new Fault('IMAGE_ARCHIVE_INVALID', `${path} holds neither oci-layout nor manifest.json`)
}

type Wanted = { architecture: string; where: string; tag?: string; pin?: string }

async function readLayout(find: FindFile, wanted: Wanted): Promise<ImageSource> {
  await readDocument(ImageLayout, find, 'oci-layout', wanted.where)
  const { document: index } = await readDocument(ImageIndex, find, 'index.json', wanted.where)
  const manifestAt = await chooseManifest(find, index, wanted, 0)
  const { document: manifest, bytes } = await readBlob(ImageManifest, find, manifestAt, wanted.where)
  const configRead = await readBlob(ImageConfig, find, manifest.config, wanted.where)
  const config = configRead.document
  const layers: LayerSource[] = []
  for (const [position, layer] of manifest.layers.entries()) {
    const slice = await find(blobPath(layer.digest))
    if (!slice || slice.length !== layer.size)
      throw new Fault(
        'IMAGE_DIGEST_MISMATCH',
        `layer ${layer.digest} of ${wanted.where} is missing or cut off`,
      )
    layers.push({ slice, digest: layer.digest, diffId: diffIdAt(config, position, wanted.where) })
  }
  return finish(
    {
      digest: manifestAt.digest,
      configDigest: manifest.config.digest,
      config,
      documents: { manifest: bytes, config: configRead.bytes },
      layers,
    },
    wanted.where,
  )
}

/** Follows indexes to the manifest of this architecture; a pin or a tag chooses at the top. */
async function chooseManifest(
  find: FindFile,
  index: z.output<typeof ImageIndex>,
  wanted: Wanted,
  depth: number,
): Promise<Descriptor> {
  let candidates = index.manifests.filter((entry) => /manifest|index/.test(entry.mediaType))
  if (depth === 0 && wanted.pin) candidates = candidates.filter((entry) => entry.digest.endsWith(wanted.pin!))
  if (depth === 0 && wanted.tag)
    candidates = candidates.filter(
      (entry) => entry.annotations?.['org.opencontainers.image.ref.name'] === wanted.tag,
    )
  const chosen = candidates.find((entry) => fitsPlatform(entry, wanted.architecture))
  if (!chosen)
    throw new Fault(
      'IMAGE_NOT_FOUND',
      `${wanted.where} has no image for linux/${wanted.architecture} as asked`,
    )
  if (!/index|manifest\.list/.test(chosen.mediaType)) return chosen
  if (depth >= 3) throw new Fault('IMAGE_ARCHIVE_INVALID', `${wanted.where} nests its indexes too deeply`)
  const { document: below } = await readBlob(ImageIndex, find, chosen, wanted.where)
  return chooseManifest(find, below, wanted, depth + 1)
}

/** Whether an entry of an index is for Linux on this architecture; one that does not say is. */
export function fitsPlatform({ platform }: Descriptor, architecture: string): boolean {
  return !platform || (platform.os === 'linux' && platform.architecture === architecture)
}

async function readDockerArchive(find: FindFile, where: string): Promise<ImageSource> {
  const { document: manifests } = await readDocument(DockerArchiveManifest, find, 'manifest.json', where)
  const [manifest] = manifests
  if (!manifest || manifests.length > 1)
    throw new Fault('IMAGE_ARCHIVE_INVALID', `${where} holds ${manifests.length} images, not one`)
  const { document: config, digest, bytes } = await readDocument(ImageConfig, find, manifest.Config, where)
  const promised = /([0-9a-f]{64})(\.json)?$/.exec(manifest.Config)?.[1]
  if (promised !== undefined && digest !== `sha256:${promised}`)
    throw new Fault('IMAGE_DIGEST_MISMATCH', `the config of ${where} does not match its digest`)
  const layers: LayerSource[] = []
  for (const [position, path] of manifest.Layers.entries()) {
    const slice = await find(path)
    if (!slice) throw new Fault('IMAGE_ARCHIVE_INVALID', `${where} lacks its layer ${path}`)
    layers.push({ slice, diffId: diffIdAt(config, position, where) })
  }
  return finish({ digest, configDigest: digest, config, documents: { config: bytes }, layers }, where)
}

function finish(source: ImageSource, where: string): ImageSource {
  if (source.config.rootfs.diff_ids.length !== source.layers.length)
    throw new Fault('IMAGE_ARCHIVE_INVALID', `${where} has a config for another number of layers`)
  if (source.config.os !== 'linux')
    throw new Fault('IMAGE_ARCHIVE_INVALID', `${where} is an image for ${source.config.os}`)
  return source
}

function diffIdAt(config: ImageConfig, position: number, where: string): Digest {
  const diffId = config.rootfs.diff_ids[position]
  if (!diffId) throw new Fault('IMAGE_ARCHIVE_INVALID', `${where} has a layer that its config does not know`)
  return diffId
}

const blobPath = (digest: Digest): string => `blobs/sha256/${digest.slice('sha256:'.length)}`

async function readBlob<S extends z.ZodType>(
  schema: S,
  find: FindFile,
  descriptor: Descriptor,
  where: string,
): Promise<Read<S>> {
  const read = await readDocument(schema, find, blobPath(descriptor.digest), where)
  if (read.digest !== descriptor.digest || read.bytes.length !== descriptor.size)
    throw new Fault(
      'IMAGE_DIGEST_MISMATCH',
      `blob ${descriptor.digest} of ${where} does not match its digest`,
    )
  return read
}

type Read<S extends z.ZodType> = { document: z.output<S>; digest: Digest; bytes: Buffer }

async function readDocument<S extends z.ZodType>(
  schema: S,
  find: FindFile,
  path: string,
  where: string,
): Promise<Read<S>> {
  const slice = await find(path)
  if (!slice) throw new Fault('IMAGE_ARCHIVE_INVALID', `${where} lacks ${path}`)
  if (slice.length > documentBytesMax)
    throw new Fault('IMAGE_TOO_LARGE', `${path} of ${where} has ${slice.length} bytes`)
  const bytes = await readSlice(slice)
  try {
    return { document: schema.parse(JSON.parse(bytes.toString('utf8'))), digest: sha256Of(bytes), bytes }
  } catch (error) {
    throw new Fault('IMAGE_ARCHIVE_INVALID', `${path} of ${where} is not what it should be`, { cause: error })
  }
}

async function readSlice(slice: Slice): Promise<Buffer> {
  const file = await open(slice.file, 'r')
  try {
    const bytes = Buffer.alloc(slice.length)
    const { bytesRead } = await file.read(bytes, 0, slice.length, slice.offset)
    return bytes.subarray(0, bytesRead)
  } finally {
    await file.close()
  }
}

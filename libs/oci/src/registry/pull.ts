import { mkdir, readFile, rm } from 'node:fs/promises'
import { type Descriptor, type Digest, ImageConfig, ImageIndex, ImageManifest } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import * as z from 'zod'
import { blobPath, sha256Of } from '../blobs.ts'
import { fitsPlatform, type ImageSource } from '../image-source.ts'
import type { RegistryReference } from '../reference.ts'
import { findSignature, type Requirement } from '../trust/cosign.ts'
import { fetchBlob } from './blob-file.ts'
import { type AuthFile, credentialsFor } from './credentials.ts'
import { type Endpoint, endpointsOf, type Registries } from './registries.ts'
import { type Document, RegistryClient } from './registry-client.ts'

export type PullOptions = {
  reference: RegistryReference
  /** Of blobs by digest. What is there is not fetched, and what a failure left is gone on with. */
  folder: string
  architecture: string
  registries: Registries
  authFile: AuthFile
  /** Of all layers together, as they are stored in the registry. */
  bytesMax: number
  signal: AbortSignal
  /** The signature without which nothing but manifests is fetched. */
  requirement?: Requirement | undefined
  onProgress?: (progress: PullProgress) => void
  backoffMs?: number
}

/** How far a pull is, over all layers that have to be fetched. */
export type PullProgress = { layers: number; layersDone: number; bytes: number; bytesDone: number }

/** `signedBy` are fingerprints of the keys whose signatures were asked for and found. */
export type PulledImage = ImageSource & { signedBy: string[] }

const Both = z.looseObject({
  manifests: z.unknown().optional(),
  layers: z.unknown().optional(),
  config: z.unknown().optional(),
})

const layersAtOnce = 3
const indexDepthMax = 3
const layerType =
  /^application\/vnd\.(oci\.image\.layer(\.nondistributable)?\.v1\.tar|docker\.image\.rootfs\.(foreign\.)?diff\.tar)([.+](gzip|zstd))?$/

/**
 * Pulls an image (distribution-spec, "Pull"): from the mirrors of its registry, then from the registry itself. Everything is
 * checked against its digest while it streams; the answer can be unpacked.
 */
export async function pullImage(options: PullOptions): Promise<PulledImage> {
  const { reference, registries, signal } = options
  await mkdir(options.folder, { recursive: true })
  const endpoints = await endpointsOf(reference.registry, registries)
  for (const [at, endpoint] of endpoints.entries()) {
    try {
      return await pullFrom(endpoint, options)
    } catch (error) {
      // A mirror that is away, or lacks it, is no reason to fail.
      if (at === endpoints.length - 1 || signal.aborted) throw error
    }
  }
  throw new Fault('IMAGE_NOT_FOUND', `there is no registry for ${reference.repository}`)
}

async function pullFrom(endpoint: Endpoint, options: PullOptions): Promise<PulledImage> {
  const { reference, signal, folder, backoffMs } = options
  const client = new RegistryClient({
    endpoint,
    repository: reference.repository,
    credentials: credentialsFor(options.authFile, reference),
    signal,
    ...(backoffMs === undefined ? {} : { backoffMs }),
  })
  const where = `${reference.registry}/${reference.repository}`
  const top = await client.manifest(reference.pin ? `sha256:${reference.pin}` : reference.tag)
  const chosen = await chooseManifest(client, top, { architecture: options.architecture, where })
  const { requirement } = options
  const signedBy = requirement
    ? await findSignature({ client, reference, digests: [top.digest, chosen.digest], requirement })
    : []
  const manifest = read(ImageManifest, chosen.bytes, `manifest ${chosen.digest} of ${where}`)
  const bring = (descriptor: Descriptor, onProgress?: (bytes: number) => void): Promise<void> =>
    fetchBlob({
      file: blobPath(folder, descriptor.digest),
      descriptor,
      request: (from) => client.blob(descriptor.digest, from),
      ...(onProgress ? { onProgress } : {}),
    })
  if (manifest.config.size > 4 << 20)
    throw new Fault('IMAGE_TOO_LARGE', `the config of ${where} has ${manifest.config.size} bytes`)
  await bring(manifest.config)
  const configBytes = await readFile(blobPath(folder, manifest.config.digest))
  if (sha256Of(configBytes) !== manifest.config.digest) {
    await rm(blobPath(folder, manifest.config.digest), { force: true })
    throw new Fault('IMAGE_DIGEST_MISMATCH', `the stored config ${manifest.config.digest} is damaged`, {
      remedy: 'it was removed: fetch the image again',
    })
  }
  const config = read(ImageConfig, configBytes, `config ${manifest.config.digest} of ${where}`)
  const layers = checkLayers(manifest, config, where)
  await bringLayers(layers, options, bring)
  return {
    signedBy,
    digest: chosen.digest,
    configDigest: manifest.config.digest,
    config,
    documents: { manifest: chosen.bytes, config: configBytes },
    layers: layers.map(({ digest, size }, at) => ({
      slice: { file: blobPath(folder, digest), offset: 0, length: size },
      digest,
      diffId: config.rootfs.diff_ids[at]!,
    })),
  }
}

/** Follows indexes to the manifest of the architecture. */
async function chooseManifest(
  client: RegistryClient,
  document: Document,
  wanted: { architecture: string; where: string },
  depth = 0,
): Promise<Document> {
  if (!isIndex(document, wanted.where)) return document
  if (depth >= indexDepthMax)
    throw new Fault('IMAGE_ARCHIVE_INVALID', `${wanted.where} nests its indexes too deeply`)
  const index = read(ImageIndex, document.bytes, `index ${document.digest} of ${wanted.where}`)
  const found = index.manifests.find((entry) => fitsPlatform(entry, wanted.architecture))
  if (!found)
    throw new Fault('IMAGE_NOT_FOUND', `${wanted.where} has no image for linux/${wanted.architecture}`)
  return await chooseManifest(client, await client.manifest(found.digest), wanted, depth + 1)
}

/** By what it holds, as media types are not always told; what would be both is neither. */
function isIndex({ bytes, digest }: Document, where: string): boolean {
  const { manifests, layers, config } = read(Both, bytes, `manifest ${digest} of ${where}`)
  if (manifests !== undefined && (layers !== undefined || config !== undefined))
    throw new Fault('IMAGE_ARCHIVE_INVALID', `${digest} of ${where} would be both manifest and index`)
  return manifests !== undefined
}

function checkLayers({ layers }: ImageManifest, { rootfs, os }: ImageConfig, where: string): Descriptor[] {
  if (os !== 'linux') throw new Fault('IMAGE_ARCHIVE_INVALID', `${where} is an image for ${os}`)
  if (layers.length !== rootfs.diff_ids.length)
    throw new Fault('IMAGE_ARCHIVE_INVALID', `${where} has a config for another number of layers`)
  const strange = layers.find(({ mediaType }) => !layerType.test(mediaType))
  if (strange) throw new Fault('IMAGE_ARCHIVE_INVALID', `${where} has a layer of type ${strange.mediaType}`)
  return layers
}

/** A few layers at once; the first failure ends the others. */
async function bringLayers(
  layers: Descriptor[],
  { bytesMax, onProgress }: PullOptions,
  bring: (descriptor: Descriptor, onProgress: (bytes: number) => void) => Promise<void>,
): Promise<void> {
  const wanted = [...new Map(layers.map((layer) => [layer.digest, layer])).values()]
  const bytes = wanted.reduce((sum, { size }) => sum + size, 0)
  if (bytes > bytesMax)
    throw new Fault('IMAGE_TOO_LARGE', `the layers have ${bytes} bytes, more than ${bytesMax}`)
  const done = new Map<Digest, number>()
  let layersDone = 0
  const tell = (): void =>
    onProgress?.({
      layers: wanted.length,
      layersDone,
      bytes,
      bytesDone: [...done.values()].reduce((sum, each) => sum + each, 0),
    })
  const waiting = [...wanted]
  let failed = false
  const worker = async (): Promise<void> => {
    for (let layer = waiting.shift(); layer && !failed; layer = waiting.shift()) {
      const { digest, size } = layer
      await bring(layer, (at) => {
        done.set(digest, at)
        tell()
      })
      done.set(digest, size)
      layersDone++
      tell()
    }
  }
  const outcomes = await Promise.allSettled(
    Array.from({ length: layersAtOnce }, () =>
      worker().catch((error: unknown) => {
        failed = true
        throw error
      }),
    ),
  )
  const failure = outcomes.find((outcome) => outcome.status === 'rejected')
  if (failure) throw failure.reason
}

function read<S extends z.ZodType>(schema: S, bytes: Buffer, what: string): z.output<S> {
  try {
    return schema.parse(JSON.parse(bytes.toString('utf8')))
  } catch (cause) {
    throw new Fault('IMAGE_ARCHIVE_INVALID', `the ${what} is not what it should be`, { cause })
  }
}

import { execFile } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { lstat, mkdir, open, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { PassThrough, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { promisify } from 'node:util'
import { type Digest, ImageConfig, ImageManifest } from '@kiln/schemas'
import { Fault, syncDirectory } from '@kiln/service'
import tar from 'tar-stream'
import { blobPath, hashing } from './blobs.ts'
import { decompressor } from './layer.ts'
import type { StoredImage } from './store.ts'

export type ImageExport = {
  blobsFolder: string
  image: StoredImage
  /** A folder for a layout, a file for an archive; nothing may be there yet. */
  target: string
  /** What the image is called in what is written: a tag for a layout, `NAME:TAG` for an archive. */
  name: string | undefined
  signal: AbortSignal
}

/** Writes an OCI image layout (image-spec, image-layout.md), whole or not at all; every blob is checked on its way. */
export async function exportLayout(wanted: ImageExport): Promise<void> {
  await writeWhole(wanted.target, async (staging) => {
    const { blobsFolder, signal } = wanted
    const { blobs, manifest } = await readImage(wanted)
    const folder = join(staging, 'blobs', 'sha256')
    await mkdir(folder, { recursive: true })
    for (const { digest } of blobs) {
      const hash = createHash('sha256')
      const to = blobPath(folder, digest)
      const from = createReadStream(blobPath(blobsFolder, digest))
      await pipeline(from, hashing(hash), createWriteStream(to), { signal })
      expect(hash.digest('hex'), digest)
      await syncFile(to)
    }
    const { config } = wanted.image
    const index = {
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.index.v1+json',
      manifests: [
        {
          mediaType: manifest.mediaType ?? 'application/vnd.oci.image.manifest.v1+json',
          ...blobs[0],
          platform: { architecture: config.architecture, os: config.os },
          ...(wanted.name ? { annotations: { 'org.opencontainers.image.ref.name': wanted.name } } : {}),
        },
      ],
    }
    await writeSynced(join(staging, 'index.json'), JSON.stringify(index))
    await writeSynced(join(staging, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }))
    for (const each of [folder, dirname(folder), staging]) await syncDirectory(each)
  })
}

/**
 * Writes the files of an image as a container sees them, with owners, times, hard links and extended attributes, whole or not at all: in `rootfs`
 * beside `manifest` and `config`, or with `rootfsOnly` alone. With `overwrite` what was at the target goes once the new files are complete.
 */
export async function exportTree(
  wanted: Omit<ImageExport, 'name'> & { tree: string; rootfsOnly: boolean; overwrite: boolean },
): Promise<void> {
  const { target, tree, rootfsOnly, overwrite, signal } = wanted
  const write = async (staging: string): Promise<void> => {
    if (!rootfsOnly) {
      const { blobs, configBytes } = await readImage(wanted)
      await mkdir(staging)
      await writeSynced(
        join(staging, 'manifest'),
        await readFile(blobPath(wanted.blobsFolder, blobs[0]!.digest), 'utf8'),
      )
      await writeSynced(join(staging, 'config'), configBytes.toString('utf8'))
    }
    // coreutils' cp keeps all of that, and holes.
    const to = rootfsOnly ? staging : join(staging, 'rootfs')
    await run('cp', ['--archive', '--no-target-directory', '--', tree, to], { signal })
    await run('sync', ['--file-system', '--', staging], { signal })
  }
  await writeWhole(target, write, overwrite)
}

const run = promisify(execFile)

/** Writes what `docker save` writes: layers as plain tars named by the digest of their content. */
export async function exportDockerArchive(wanted: ImageExport): Promise<void> {
  await writeWhole(wanted.target, async (staging) => {
    const { blobsFolder, signal } = wanted
    const { manifest, configBytes } = await readImage(wanted)
    const diffIds = ImageConfig.parse(JSON.parse(configBytes.toString('utf8'))).rootfs.diff_ids
    const pack = tar.pack()
    const writing = pipeline(pack, createWriteStream(staging), { signal })
    writing.catch((error: Error) => pack.destroy(error))
    const add = (name: string, bytes: Buffer): void => {
      pack.entry({ name, mode: 0o644, mtime: epoch }, bytes)
    }
    const layers = manifest.layers.map((_, at) => `${diffIds[at]?.slice(7)}.tar`)
    const configName = `${manifest.config.digest.slice(7)}.json`
    try {
      add(configName, configBytes)
      for (const [at, { digest }] of manifest.layers.entries()) {
        // The same content twice in an image is one file.
        if (layers.indexOf(layers[at]!) !== at) continue
        const file = blobPath(blobsFolder, digest)
        const size = await contentSize({ file, diffId: diffIds[at]!, signal })
        const entry = pack.entry({ name: layers[at]!, mode: 0o644, mtime: epoch, size })
        await pipeline(createReadStream(file), await decompressorOf(file), entry, { signal })
      }
      const RepoTags = wanted.name === undefined ? [] : [wanted.name]
      add('manifest.json', Buffer.from(JSON.stringify([{ Config: configName, RepoTags, Layers: layers }])))
      pack.finalize()
    } catch (error) {
      pack.destroy(error as Error)
      await writing.catch(() => undefined)
      throw error
    }
    await writing
    await syncFile(staging)
  })
}

const epoch = new Date(0)

async function readImage({ image, blobsFolder }: Omit<ImageExport, 'name'>): Promise<{
  blobs: NonNullable<StoredImage['blobs']>
  manifest: ImageManifest
  configBytes: Buffer
}> {
  const { blobs } = image
  if (!blobs)
    throw new Fault('IMAGE_WITHOUT_BLOBS', `image ${image.reference} was stored without its blobs`, {
      remedy: 'an earlier version fetched it: fetch it again with --pull-policy update',
    })
  const read = async (digest: Digest): Promise<Buffer> => {
    const bytes = await readFile(blobPath(blobsFolder, digest)).catch((cause: unknown) => {
      throw new Fault('IMAGE_DIGEST_MISMATCH', `blob ${digest} is missing from the store`, { cause })
    })
    expect(createHash('sha256').update(bytes).digest('hex'), digest)
    return bytes
  }
  const manifest = ImageManifest.parse(JSON.parse((await read(blobs[0]!.digest)).toString('utf8')))
  return { blobs, manifest, configBytes: await read(manifest.config.digest) }
}

/** How long a layer is unpacked, for the head of its entry; its content is checked. */
async function contentSize(layer: { file: string; diffId: Digest; signal: AbortSignal }): Promise<number> {
  const { file, diffId, signal } = layer
  const hash = createHash('sha256')
  let size = 0
  const counting = new Writable({
    write: (chunk: Buffer, _, done) => {
      size += chunk.length
      done()
    },
  })
  await pipeline(createReadStream(file), await decompressorOf(file), hashing(hash), counting, { signal })
  expect(hash.digest('hex'), diffId)
  return size
}

async function decompressorOf(file: string): Promise<NodeJS.ReadWriteStream> {
  const { size } = await lstat(file)
  return size === 0 ? new PassThrough() : await decompressor(file, 0, size)
}

function expect(actual: string, digest: Digest): void {
  if (`sha256:${actual}` !== digest)
    throw new Fault('IMAGE_DIGEST_MISMATCH', `the stored ${digest} has digest sha256:${actual}`, {
      remedy: 'kiln-runtime image fsck --repair removes it; then fetch the image again',
    })
}

/** Lets `write` fill a place beside the target, which gets its name only once it is whole and durable. */
async function writeWhole(
  target: string,
  write: (staging: string) => Promise<void>,
  overwrite = false,
): Promise<void> {
  const before = await lstat(target).catch(() => undefined)
  if (before && !(overwrite && before.isDirectory()))
    throw new Fault('EXPORT_TARGET_EXISTS', `${target} is there already`, { remedy: 'name another place' })
  const unique = randomBytes(6).toString('hex')
  const staging = `${target}.new-${unique}`
  const old = `${target}.old-${unique}`
  try {
    await write(staging)
    if (before) await rename(target, old)
    await rename(staging, target)
  } catch (error) {
    await rm(staging, { recursive: true, force: true })
    // What was there before stays, unless the new one is in its place.
    if (before) await rename(old, target).catch(() => undefined)
    if (error instanceof Fault) throw error
    throw new Fault('EXPORT_FAILED', `cannot write ${target}`, { cause: error })
  }
  await syncDirectory(dirname(target))
  if (before) await rm(old, { recursive: true })
}

async function writeSynced(path: string, text: string): Promise<void> {
  await writeFile(path, text)
  await syncFile(path)
}

async function syncFile(path: string): Promise<void> {
  const file = await open(path, 'r+')
  try {
    await file.sync()
  } finally {
    await file.close()
  }
}

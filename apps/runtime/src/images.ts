import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import {
  download,
  type ImageSource,
  type ImageStore,
  openArchive,
  openImageStore,
  openLayout,
  parseImageReference,
  pullImage,
  type RegistryReference,
  readAuthFile,
  readRegistries,
  type StoredImage,
} from '@kiln/oci'
import { describeError, Fault, type Log } from '@kiln/service'

export type PullPolicy = 'Always' | 'IfNotPresent' | 'Never'

/** Images by the reference that pods write. Concurrent wishes for one image are one download. */
export type Images = {
  acquire(reference: string, policy: PullPolicy): Promise<StoredImage>
  treeOf(image: StoredImage): string
  list(): Promise<StoredImage[]>
  /**
   * Forgets images that no pod names and that are older than `olderThanMs`, and removes trees nobody uses. Asks again before each what
   * pods use; pulls wait until it is done.
   */
  collect(inUse: () => ImagesInUse, olderThanMs: number): Promise<string[]>
}

/** References that pods name, and chain ids of the trees that containers run on. */
export type ImagesInUse = { references: Set<string>; chains: Set<string> }

export async function openImages(input: {
  folder: string
  bootUrl: string | undefined
  bytesMax: number
  /** How registries are reached (JSON), and their credentials as docker login writes them; neither has to be there. */
  registriesFile: string
  registryAuthFile: string
  signal: AbortSignal
  log: Log
}): Promise<Images> {
  const store: ImageStore = await openImageStore({ folder: input.folder })
  const downloads = join(input.folder, 'downloads')
  await mkdir(downloads, { recursive: true })
  const pending = new Map<string, Promise<StoredImage>>()
  let collecting: Promise<unknown> = Promise.resolve()
  const architecture = process.arch === 'arm64' ? 'arm64' : 'amd64'

  const pull = async (reference: string): Promise<StoredImage> => {
    const parsed = parseImageReference(reference, input.bootUrl)
    const importFrom = async (source: Promise<ImageSource>): Promise<StoredImage> => {
      const image = await store.import(reference, await source)
      if (image.skipped.attributes > 0)
        input.log.warn(
          { reference, files: image.skipped.attributes },
          'extended attributes left out of image',
        )
      input.log.info({ reference, digest: image.digest, bytes: image.sizeBytes }, 'image unpacked')
      return image
    }
    if (parsed.kind === 'layout') return importFrom(openLayout({ ...parsed, architecture }))
    if (parsed.kind === 'archive') {
      if (parsed.pin !== undefined) await expectPin(parsed.path, parsed.pin)
      return importFrom(openArchive({ path: parsed.path, architecture }))
    }
    if (parsed.kind === 'registry') return importFrom(pullBlobs(parsed))
    const file = join(downloads, createHash('sha256').update(reference).digest('hex'))
    await download({
      url: parsed.url,
      file,
      ...(parsed.pin === undefined ? {} : { sha256: parsed.pin }),
      bytesMax: input.bytesMax,
      signal: input.signal,
    })
    try {
      return await importFrom(openArchive({ path: file, architecture }))
    } finally {
      await rm(file, { force: true })
    }
  }

  const pullBlobs = async (reference: RegistryReference): Promise<ImageSource> => {
    let told = 0
    return await pullImage({
      reference,
      folder: store.blobs.folder,
      architecture,
      registries: await readRegistries(input.registriesFile),
      authFile: await readAuthFile(input.registryAuthFile),
      bytesMax: input.bytesMax,
      signal: input.signal,
      onProgress: ({ bytes, bytesDone, layers, layersDone }) => {
        const tenth = Math.floor((10 * bytesDone) / Math.max(1, bytes))
        if (tenth === told) return
        told = tenth
        const { registry, repository } = reference
        input.log.info({ registry, repository, percent: tenth * 10, layers, layersDone }, 'pulling')
      },
    })
  }

  const removeUnused = async (inUse: () => ImagesInUse, olderThanMs: number): Promise<string[]> => {
    const removed: string[] = []
    for (const image of await store.list()) {
      const age = Date.now() - Date.parse(image.importedAt)
      if (inUse().references.has(image.reference) || age < olderThanMs) continue
      await store.remove(image.reference)
      removed.push(image.reference)
    }
    await store.collect(inUse().chains, olderThanMs)
    await removeOld(downloads, olderThanMs)
    return removed
  }

  return {
    treeOf: (image) => store.treeOf(image),
    list: () => store.list(),
    collect: async (inUse, olderThanMs) => {
      // A tree that is being made has no record yet.
      if (pending.size > 0) return []
      const work = removeUnused(inUse, olderThanMs)
      collecting = work.catch(() => undefined)
      return await work
    },
    acquire: async (reference, policy) => {
      const present = await store.get(reference)
      if (present && policy !== 'Always') return present
      if (policy === 'Never')
        throw new Fault(
          'IMAGE_NOT_PRESENT',
          `image ${reference} is not on this machine and may not be fetched`,
        )
      const known = pending.get(reference)
      if (known) return known
      const pulling = collecting.then(() => pull(reference)).finally(() => pending.delete(reference))
      pending.set(reference, pulling)
      try {
        return await pulling
      } catch (error) {
        // An image that is here is better than none while its source is away.
        if (!present || !isAway(error)) throw error
        input.log.warn({ reference, error: describeError(error) }, 'image could not be refreshed')
        return present
      }
    },
  }
}

const isAway = (error: unknown): boolean => error instanceof Fault && error.code === 'IMAGE_DOWNLOAD_FAILED'

/** What pulls that were given up left. */
async function removeOld(folder: string, olderThanMs: number): Promise<void> {
  for (const name of await readdir(folder)) {
    const path = join(folder, name)
    const { mtimeMs } = await stat(path)
    if (Date.now() - mtimeMs >= olderThanMs) await rm(path, { recursive: true, force: true })
  }
}

async function expectPin(path: string, pin: string): Promise<void> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path), hash).catch((error: unknown) => {
    throw new Fault('IMAGE_NOT_FOUND', `cannot read ${path}`, { cause: error })
  })
  const actual = hash.digest('hex')
  if (actual !== pin) throw new Fault('IMAGE_DIGEST_MISMATCH', `${path} has sha256 ${actual}, not ${pin}`)
}

import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import {
  type Admission,
  download,
  type ImageReference,
  type ImageSource,
  type ImageStore,
  type ListedImage,
  openArchive,
  openImageStore,
  openLayout,
  type PullProgress,
  parseImageReference,
  pullImage,
  type RegistryReference,
  readAuthFile,
  readPolicy,
  readRegistries,
  type StoredImage,
} from '@kiln/oci'
import { describeError, Fault, type Log } from '@kiln/service'
import { isAdmitted, type Requirement, requirementFor } from './image-admission.ts'

export type PullPolicy = 'Always' | 'IfNotPresent' | 'Never'

export type AcquireOptions = {
  /** Takes the image whatever the image policy says, and notes that. */
  insecure?: boolean
  /** Fails if the source of an image that is here cannot be reached, rather than to use that image. */
  strict?: boolean
  onProgress?: (progress: PullProgress) => void
}

/** Images by the reference that pods write. Concurrent wishes for one image are one download. */
export type Images = {
  /** The image, fetched if `policy` says so, and only if the image policy of this moment admits it. */
  acquire(reference: string, policy: PullPolicy, options?: AcquireOptions): Promise<StoredImage>
  treeOf(image: StoredImage): string
  list(): Promise<ListedImage[]>
  store: ImageStore
  /** Forgets images that no pod names and that nobody used for `olderThanMs`; does nothing while an image is fetched. */
  collect(inUse: () => ImagesInUse, olderThanMs: number): Promise<string[]>
  /** What `collect` would remove, or with `remove` removes. Asks again before each what pods use. */
  unused(inUse: () => ImagesInUse, olderThanMs: number, remove: boolean): Promise<ListedImage[]>
  /** Work during which nothing is fetched; a Fault while something is. */
  alone<T>(work: () => Promise<T>): Promise<T>
}

/** References that pods name, and chain ids of the trees that containers run on. */
export type ImagesInUse = { references: Set<string>; chains: Set<string> }

export const imagesOf = (users: { references: string[]; chains: string[] }[]): ImagesInUse => ({
  references: new Set(users.flatMap(({ references }) => references)),
  chains: new Set(users.flatMap(({ chains }) => chains)),
})

type Pull = { image: Promise<StoredImage>; listeners: Set<(progress: PullProgress) => void> }

export async function openImages(input: {
  folder: string
  bootUrl: string | undefined
  bytesMax: number
  /** How registries are reached (JSON), their credentials as docker login writes them, and what images must be signed; none has to be there. */
  registriesFile: string
  registryAuthFile: string
  imagePolicyFile: string
  signal: AbortSignal
  log: Log
}): Promise<Images> {
  const store: ImageStore = await openImageStore({ folder: input.folder })
  const downloads = join(input.folder, 'downloads')
  await mkdir(downloads, { recursive: true })
  const pending = new Map<string, Pull>()
  let collecting: Promise<unknown> = Promise.resolve()
  const architecture = process.arch === 'arm64' ? 'arm64' : 'amd64'

  type Wanted = { reference: string; insecure: boolean; onProgress: (progress: PullProgress) => void }

  const pull = async (wanted: Wanted): Promise<StoredImage> => {
    const { reference, insecure } = wanted
    const parsed = parseImageReference(reference, input.bootUrl)
    // Before anything is fetched: a policy that cannot be read admits nothing.
    const requirement = insecure
      ? undefined
      : requirementFor(await readPolicy(input.imagePolicyFile), reference)
    const insecurely: Admission = { kind: 'insecure-options' }
    const importFrom = async (source: ImageSource, keys: string[] = []): Promise<StoredImage> => {
      const image = await store.import(reference, source, insecure ? insecurely : { kind: 'policy', keys })
      if (image.skipped.attributes > 0)
        input.log.warn(
          { reference, files: image.skipped.attributes },
          'extended attributes left out of image',
        )
      input.log.info(
        { reference, digest: image.digest, bytes: image.sizeBytes, insecure, keys },
        'image unpacked',
      )
      return image
    }
    if (parsed.kind === 'registry') {
      const source = await pullBlobs(parsed, requirement, wanted.onProgress)
      return importFrom(source, source.signedBy)
    }
    return readLocal(parsed, reference, importFrom)
  }

  const readLocal = async (
    parsed: Exclude<ImageReference, { kind: 'registry' }>,
    reference: string,
    importFrom: (source: ImageSource) => Promise<StoredImage>,
  ): Promise<StoredImage> => {
    if (parsed.kind === 'layout') return importFrom(await openLayout({ ...parsed, architecture }))
    if (parsed.kind === 'archive') {
      if (parsed.pin !== undefined) await expectPin(parsed.path, parsed.pin)
      return importFrom(await openArchive({ path: parsed.path, architecture }))
    }
    const file = join(downloads, createHash('sha256').update(reference).digest('hex'))
    await download({
      url: parsed.url,
      file,
      ...(parsed.pin === undefined ? {} : { sha256: parsed.pin }),
      bytesMax: input.bytesMax,
      signal: input.signal,
    })
    try {
      return await importFrom(await openArchive({ path: file, architecture }))
    } finally {
      await rm(file, { force: true })
    }
  }

  const pullBlobs = async (
    reference: RegistryReference,
    requirement: Requirement | undefined,
    onProgress: (progress: PullProgress) => void,
  ): ReturnType<typeof pullImage> => {
    let told = 0
    return await pullImage({
      reference,
      folder: store.blobs.folder,
      architecture,
      registries: await readRegistries(input.registriesFile),
      authFile: await readAuthFile(input.registryAuthFile),
      bytesMax: input.bytesMax,
      requirement,
      signal: input.signal,
      onProgress: (progress) => {
        const { bytes, bytesDone, layers, layersDone } = progress
        onProgress(progress)
        const tenth = Math.floor((10 * bytesDone) / Math.max(1, bytes))
        if (tenth === told) return
        told = tenth
        const { registry, repository } = reference
        input.log.info({ registry, repository, percent: tenth * 10, layers, layersDone }, 'pulling')
      },
    })
  }

  /** An unchecked pull is never what a checked one waits for. */
  const shared = async (reference: string, options: AcquireOptions): Promise<StoredImage> => {
    const insecure = options.insecure ?? false
    const key = `${insecure} ${reference}`
    let found = pending.get(key)
    if (!found) {
      const listeners: Pull['listeners'] = new Set()
      const onProgress = (progress: PullProgress): void => {
        for (const listener of listeners) listener(progress)
      }
      const image = collecting
        .then(() => pull({ reference, insecure, onProgress }))
        .finally(() => pending.delete(key))
      found = { image, listeners }
      pending.set(key, found)
    }
    if (options.onProgress) found.listeners.add(options.onProgress)
    try {
      return await found.image
    } finally {
      if (options.onProgress) found.listeners.delete(options.onProgress)
    }
  }

  const alone = async <T>(work: () => Promise<T>): Promise<T> => {
    // A tree that is being made has no record yet.
    if (pending.size > 0) throw new Fault('IMAGE_STORE_BUSY', 'an image is being fetched')
    const running = collecting.then(work)
    collecting = running.catch(() => undefined)
    return await running
  }

  const removeUnused = async (
    inUse: () => ImagesInUse,
    olderThanMs: number,
    remove: boolean,
  ): Promise<ListedImage[]> => {
    const unused: ListedImage[] = []
    for (const image of await store.list()) {
      const age = Date.now() - Date.parse(image.lastUsedAt)
      if (inUse().references.has(image.reference)) {
        if (remove) await store.touch(image.reference)
      } else if (age >= olderThanMs) {
        if (remove) await store.remove(image.reference)
        unused.push(image)
      }
    }
    if (remove) {
      await store.collect(inUse().chains, olderThanMs)
      await removeOld(downloads, olderThanMs)
    }
    return unused
  }

  return {
    store,
    alone,
    treeOf: (image) => store.treeOf(image),
    list: () => store.list(),
    unused: (inUse, olderThanMs, remove) => alone(() => removeUnused(inUse, olderThanMs, remove)),
    collect: async (inUse, olderThanMs) => {
      if (pending.size > 0) return []
      const removed = await alone(() => removeUnused(inUse, olderThanMs, true))
      return removed.map(({ reference }) => reference)
    },
    acquire: async (reference, policy, options = {}) => {
      const present = await store.get(reference)
      const mayUse = async (image: StoredImage): Promise<boolean> =>
        isAdmitted(await readPolicy(input.imagePolicyFile), image)
      if (present && policy !== 'Always') {
        const admitted = options.insecure
          ? await store.admit(present, { kind: 'insecure-options' })
          : (await mayUse(present)) && present
        if (admitted) {
          await store.touch(reference)
          return admitted
        }
      }
      if (policy === 'Never') {
        if (present) {
          requirementFor(await readPolicy(input.imagePolicyFile), reference)
          throw new Fault('IMAGE_NOT_SIGNED', `image ${reference} is here, but no trusted key signed it`)
        }
        throw new Fault(
          'IMAGE_NOT_PRESENT',
          `image ${reference} is not on this machine and may not be fetched`,
        )
      }
      try {
        return await shared(reference, options)
      } catch (error) {
        // An image that is here is better than none while its source is away.
        if (!present || options.strict || !isAway(error) || !(await mayUse(present))) throw error
        input.log.warn({ reference, error: describeError(error) }, 'image could not be refreshed')
        return present
      }
    },
  }
}

const isAway = (error: unknown): boolean => error instanceof Fault && error.code === 'IMAGE_DOWNLOAD_FAILED'

/** What downloads that were given up left. */
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

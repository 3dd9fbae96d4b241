import { execFile } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { chmod, lchown, link, lstat, mkdir, readdir, readFile, rename, rm, utimes } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { type Digest, ImageConfig } from '@kiln/schemas'
import { atomicWrite, Fault, syncDirectory } from '@kiln/service'
import { type BlobName, type BlobStore, digestOfFile, isBlobName, openBlobs } from './blobs.ts'
import type { ImageSource } from './image-source.ts'
import { applyLayer, type UnpackBudget } from './layer.ts'

/** An image on this machine, as its record on disk says. */
export type StoredImage = {
  formatVersion: 1
  /** As the pod wrote it. */
  reference: string
  digest: Digest
  configDigest: Digest
  /** Names the unpacked tree. */
  chainId: Digest
  config: ImageConfig
  sizeBytes: number
  entries: number
  skipped: { devices: number; attributes: number }
  importedAt: string
  /** What it is made of: manifest, config, then layers. Absent in records of earlier versions, which kept none. */
  blobs?: BlobName[]
  /** Why it may be used: keys whose signatures were found, or that an administrator wanted it without a check. */
  admittedBy?: Admission
}

/** The fingerprints of the keys that a policy asked for and found, none if it asked for none. */
export type Admission = { kind: 'policy'; keys: string[] } | { kind: 'insecure-options' }

/** An image as it is listed: `lastUsedAt` is the time of its record's file. */
export type ListedImage = StoredImage & { lastUsedAt: string }

/**
 * Images unpacked once per chain of layers: `trees/<chain id>` is complete or absent, `blobs/<hex>` is what it was made of,
 * `records/<hash>.json` says which reference is which tree. One process owns a store.
 */
export type ImageStore = {
  get(reference: string): Promise<StoredImage | undefined>
  list(): Promise<ListedImage[]>
  /** Keeps the image's blobs, unpacks them unless that was done before, and last writes the record. */
  import(reference: string, source: ImageSource, admittedBy?: Admission): Promise<StoredImage>
  /** Where blobs are: pulls bring them there. */
  blobs: BlobStore
  /** Notes in an image's record why it may be used. */
  admit(image: StoredImage, admittedBy: Admission): Promise<StoredImage>
  /** Notes that an image is in use now. */
  touch(reference: string): Promise<void>
  /** The unpacked, read-only root of an image. */
  treeOf(image: StoredImage): string
  remove(reference: string): Promise<boolean>
  /**
   * Removes trees that no record names and that are not in `inUse`, and blobs that no record names; parts of downloads only once they are
   * older than `partsOlderThanMs`.
   */
  collect(inUse: Set<Digest>, partsOlderThanMs?: number): Promise<Digest[]>
}

export type ImageStoreOptions = {
  folder: string
  entriesMax?: number
  bytesMax?: number
  /** Makes a tree durable before it gets its name. */
  syncTree?: (path: string) => Promise<void>
}

const run = promisify(execFile)

/** One syncfs(2), by coreutils: Node has no call for it, and an fsync per file takes minutes. */
const syncFileSystem = async (path: string): Promise<void> => {
  await run('sync', ['-f', path])
}

export async function openImageStore(options: ImageStoreOptions): Promise<ImageStore> {
  const trees = join(options.folder, 'trees')
  const records = join(options.folder, 'records')
  const blobs = await openBlobs(join(options.folder, 'blobs'))
  const syncTree = options.syncTree ?? syncFileSystem
  await mkdir(trees, { recursive: true })
  await mkdir(records, { recursive: true })
  // What a crash left half done has no name yet.
  for (const name of await readdir(trees)) {
    if (name.startsWith('new-')) await rm(join(trees, name), { recursive: true, force: true })
  }
  const unpacking = new Map<Digest, Promise<void>>()
  const treePath = (chainId: Digest): string => join(trees, chainId.slice('sha256:'.length))
  const recordPath = (reference: string): string =>
    join(records, `${createHash('sha256').update(reference).digest('hex')}.json`)

  const layersHere = async (chain: Digest[]): Promise<number> => {
    for (let count = chain.length; count > 0; count--) {
      if (await exists(treePath(chain[count - 1]!))) return count
    }
    return 0
  }

  const unpack = async (source: ImageSource, chain: Digest[], totals: Totals): Promise<void> => {
    const staging = join(trees, `new-${randomBytes(6).toString('hex')}`)
    const budget: UnpackBudget = {
      entriesLeft: options.entriesMax ?? 500_000,
      bytesLeft: options.bytesMax ?? 16 * 2 ** 30,
    }
    try {
      const from = await layersHere(chain.slice(0, -1))
      if (from > 0) await linkTree(treePath(chain[from - 1]!), staging)
      else {
        await mkdir(staging)
        // Whatever the umask says: a container's root is readable by its users.
        await chmod(staging, 0o755)
      }
      for (const layer of source.layers.slice(from)) {
        const unpacked = await applyLayer(layer, staging, budget)
        totals.sizeBytes += unpacked.bytes
        totals.entries += unpacked.entries
        totals.skipped.devices += unpacked.skipped.devices
        totals.skipped.attributes += unpacked.skipped.attributes
      }
      await syncTree(staging)
      await rename(staging, treePath(chain.at(-1)!))
      await syncDirectory(trees)
    } catch (error) {
      await rm(staging, { recursive: true, force: true })
      throw error
    }
  }

  const store: ImageStore = {
    treeOf: (image) => treePath(image.chainId),
    blobs,
    get: async (reference) => {
      const text = await readFile(recordPath(reference), 'utf8').catch(() => undefined)
      if (text === undefined) return undefined
      const image = readRecord(text)
      return image && (await exists(treePath(image.chainId))) ? image : undefined
    },
    admit: async (image, admittedBy) => {
      const admitted = { ...image, admittedBy }
      await atomicWrite(recordPath(image.reference), `${JSON.stringify(admitted)}\n`)
      return admitted
    },
    touch: async (reference) => {
      const now = new Date()
      await utimes(recordPath(reference), now, now).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'ENOENT') throw error
      })
    },
    list: async () => {
      const found: ListedImage[] = []
      for (const name of (await readdir(records)).sort()) {
        const path = join(records, name)
        const image = name.endsWith('.json') ? readRecord(await readFile(path, 'utf8')) : undefined
        if (image) found.push({ ...image, lastUsedAt: (await lstat(path)).mtime.toISOString() })
      }
      return found
    },
    import: async (reference, source, admittedBy) => {
      const chain = chainIds(source.layers.map((layer) => layer.diffId))
      const chainId = chain.at(-1)
      if (!chainId) throw new Fault('IMAGE_ARCHIVE_INVALID', `image ${reference} has no layers`)
      const kept = await keepBlobs(blobs, source)
      const totals: Totals = { sizeBytes: 0, entries: 0, skipped: { devices: 0, attributes: 0 } }
      while (unpacking.has(chainId)) await unpacking.get(chainId)?.catch(() => undefined)
      if (!(await exists(treePath(chainId)))) {
        const work = unpack(source, chain, totals)
        unpacking.set(chainId, work)
        await work
          .catch(async (error: unknown) => {
            // A stored blob that is damaged would be taken again and again.
            await removeDamaged(blobs, kept)
            throw error
          })
          .finally(() => unpacking.delete(chainId))
      }
      const image: StoredImage = {
        formatVersion: 1,
        reference,
        digest: source.digest,
        configDigest: source.configDigest,
        chainId,
        config: source.config,
        ...totals,
        importedAt: new Date().toISOString(),
        blobs: kept,
        ...(admittedBy ? { admittedBy } : {}),
      }
      await atomicWrite(recordPath(reference), `${JSON.stringify(image)}\n`)
      return image
    },
    remove: async (reference) => {
      if (!(await exists(recordPath(reference)))) return false
      await rm(recordPath(reference))
      await syncDirectory(records)
      return true
    },
    collect: async (inUse, partsOlderThanMs = 0) => {
      const images = await store.list()
      const kept = new Set([...inUse, ...images.map((image) => image.chainId)])
      await removeBlobs(blobs.folder, new Set(images.flatMap(blobNames)), partsOlderThanMs)
      const removed: Digest[] = []
      for (const name of await readdir(trees)) {
        const chainId = `sha256:${name}`
        if (name.startsWith('new-') || kept.has(chainId)) continue
        // Renamed first: a tree with a name is whole.
        const doomed = join(trees, `new-doomed-${name}`)
        await rename(join(trees, name), doomed)
        await rm(doomed, { recursive: true, force: true })
        removed.push(chainId)
      }
      return removed
    },
  }
  return store
}

/** The file names of an image's blobs. */
export const blobNames = ({ blobs = [] }: StoredImage): string[] =>
  blobs.map(({ digest }) => digest.slice('sha256:'.length))

async function removeBlobs(folder: string, kept: Set<string>, partsOlderThanMs: number): Promise<void> {
  for (const name of await readdir(folder)) {
    const path = join(folder, name)
    const isYoung = async (): Promise<boolean> => Date.now() - (await lstat(path)).mtimeMs < partsOlderThanMs
    if (!kept.has(name) && (isBlobName(name) || !(await isYoung()))) await rm(path, { force: true })
  }
}

async function removeDamaged(blobs: BlobStore, names: BlobName[]): Promise<void> {
  for (const { digest } of names) {
    const path = blobs.path(digest)
    if ((await digestOfFile(path).catch(() => undefined)) !== digest) await rm(path, { force: true })
  }
}

/** Manifest, config and layers of an image, in this order; a Docker archive gets a manifest. */
async function keepBlobs(blobs: BlobStore, source: ImageSource): Promise<BlobName[]> {
  const layers: BlobName[] = []
  for (const { slice, digest } of source.layers) layers.push(await blobs.copy(slice, digest))
  const config = await blobs.put(source.documents.config)
  const manifest = source.documents.manifest ?? manifestOf(config, layers)
  return [await blobs.put(manifest), config, ...layers]
}

const media = 'application/vnd.oci.image'

/** The layers of a Docker archive are plain tars. */
function manifestOf(config: BlobName, layers: BlobName[]): Buffer {
  return Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: `${media}.manifest.v1+json`,
      config: { mediaType: `${media}.config.v1+json`, ...config },
      layers: layers.map((layer) => ({ mediaType: `${media}.layer.v1.tar`, ...layer })),
    }),
  )
}

type Totals = Pick<StoredImage, 'sizeBytes' | 'entries' | 'skipped'>

/** image-spec, config.md: the name of each prefix of a stack of layers. */
export function chainIds(diffIds: Digest[]): Digest[] {
  const chain: Digest[] = []
  for (const diffId of diffIds) {
    const below = chain.at(-1)
    chain.push(
      below === undefined
        ? diffId
        : `sha256:${createHash('sha256').update(`${below} ${diffId}`).digest('hex')}`,
    )
  }
  return chain
}

/**
 * A copy whose files are the same inodes: an image on top of one that is here costs only its own layers. Safe, as
 * layers replace files and never write into them, and as containers see trees through an overlay.
 */
async function linkTree(from: string, to: string): Promise<void> {
  const folder = await lstat(from)
  await mkdir(to)
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const source = join(from, entry.name)
    const target = join(to, entry.name)
    if (entry.isDirectory()) await linkTree(source, target)
    else await link(source, target)
  }
  if (process.getuid?.() === 0) await lchown(to, folder.uid, folder.gid)
  await chmod(to, folder.mode & 0o7777)
  await utimes(to, folder.atime, folder.mtime)
}

export function readRecord(text: string): StoredImage | undefined {
  try {
    const record = JSON.parse(text) as StoredImage
    return record.formatVersion === 1 ? { ...record, config: ImageConfig.parse(record.config) } : undefined
  } catch {
    return undefined
  }
}

const exists = async (path: string): Promise<boolean> =>
  (await lstat(path).catch(() => undefined)) !== undefined

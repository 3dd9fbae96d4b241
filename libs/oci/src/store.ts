import { execFile } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { chmod, lchown, link, lstat, mkdir, readdir, readFile, rename, rm, utimes } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { type Digest, ImageConfig } from '@kiln/schemas'
import { atomicWrite, Fault, syncDirectory } from '@kiln/service'
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
}

/**
 * Images unpacked once per chain of layers: `trees/<chain id>` is complete or absent, `records/<hash>.json` says
 * which reference is which tree. One process owns a store.
 */
export type ImageStore = {
  get(reference: string): Promise<StoredImage | undefined>
  list(): Promise<StoredImage[]>
  import(reference: string, source: ImageSource): Promise<StoredImage>
  /** How many of the lowest layers need not be unpacked, as trees of theirs are here. */
  layersHere(diffIds: Digest[]): Promise<number>
  /** The unpacked, read-only root of an image. */
  treeOf(image: StoredImage): string
  remove(reference: string): Promise<boolean>
  /** Removes trees that no record names and that are not in `inUse`. */
  collect(inUse: Set<Digest>): Promise<Digest[]>
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
    get: async (reference) => {
      const text = await readFile(recordPath(reference), 'utf8').catch(() => undefined)
      if (text === undefined) return undefined
      const image = readRecord(text)
      return image && (await exists(treePath(image.chainId))) ? image : undefined
    },
    layersHere: (diffIds) => layersHere(chainIds(diffIds)),
    list: async () => {
      const found: StoredImage[] = []
      for (const name of (await readdir(records)).sort()) {
        const image = name.endsWith('.json')
          ? readRecord(await readFile(join(records, name), 'utf8'))
          : undefined
        if (image) found.push(image)
      }
      return found
    },
    import: async (reference, source) => {
      const chain = chainIds(source.layers.map((layer) => layer.diffId))
      const chainId = chain.at(-1)
      if (!chainId) throw new Fault('IMAGE_ARCHIVE_INVALID', `image ${reference} has no layers`)
      const totals: Totals = { sizeBytes: 0, entries: 0, skipped: { devices: 0, attributes: 0 } }
      while (unpacking.has(chainId)) await unpacking.get(chainId)?.catch(() => undefined)
      if (!(await exists(treePath(chainId)))) {
        const work = unpack(source, chain, totals)
        unpacking.set(chainId, work)
        await work.finally(() => unpacking.delete(chainId))
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
      }
      await atomicWrite(recordPath(reference), `${JSON.stringify(image)}\n`)
      return image
    },
    remove: async (reference) => {
      if (!(await exists(recordPath(reference)))) return false
      await rm(recordPath(reference))
      return true
    },
    collect: async (inUse) => {
      const kept = new Set([...inUse, ...(await store.list()).map((image) => image.chainId)])
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

function readRecord(text: string): StoredImage | undefined {
  try {
    const record = JSON.parse(text) as StoredImage
    return record.formatVersion === 1 ? { ...record, config: ImageConfig.parse(record.config) } : undefined
  } catch {
    return undefined
  }
}

const exists = async (path: string): Promise<boolean> =>
  (await lstat(path).catch(() => undefined)) !== undefined

import { Fault } from '@kiln/service'
import {
  bucketFlag,
  bucketHeadBytes,
  decodeMeta,
  elementBytes,
  flags,
  type Meta,
  metaBytes,
  pageHeadBytes,
} from './format.ts'

/** Where a database is read from. `read` gives fewer bytes than asked only at the end. */
export type RandomAccess = {
  sizeBytes: number
  read(offset: number, length: number): Promise<Uint8Array>
}

export type DatabaseBucket = {
  name: Buffer
  sequence: bigint
  entries(): AsyncGenerator<DatabaseEntry, void>
}
/** Views of a page: to be copied by whoever keeps them. `bucket` for a bucket within the bucket. */
export type DatabaseEntry = { key: Buffer; value: Buffer; bucket?: DatabaseBucket }

export type Database = {
  /** Bytes of the pages that the database counts. */
  sizeBytes: number
  transaction: bigint
  /** Top-level buckets in the order of their names. */
  buckets(): Promise<DatabaseBucket[]>
}

const depthMax = 32
/** Pages and their overflow that are read at once: a value of etcd is a few MiB at most. */
const readBytesMax = 256 * 1024 * 1024
const bucketsMax = 10_000

function damaged(what: string): Fault {
  return new Fault('BBOLT_DAMAGED', `the database is damaged: ${what}`)
}

/**
 * Opens a bbolt file for reading. Everything followed is checked: metas by checksum, pages by id, kind and bounds, keys by
 * order, and that no page is reached twice in a walk. Memory is one page a level and one bit a page.
 */
export async function openDatabase(file: RandomAccess): Promise<Database> {
  const meta = await readMeta(file)
  const pages = { file, meta }
  const root = { pages, root: meta.root, inline: undefined }
  return {
    sizeBytes: meta.pages * meta.pageBytes,
    transaction: meta.transaction,
    buckets: async () => {
      const found: DatabaseBucket[] = []
      for await (const entry of walk(root)) {
        if (!entry.bucket) throw damaged('there is a key outside of all buckets')
        if (found.length >= bucketsMax) throw damaged(`there are more than ${bucketsMax} buckets`)
        found.push(entry.bucket)
      }
      return found
    },
  }
}

type Pages = { file: RandomAccess; meta: Meta }
type Root = { pages: Pages; root: number; inline: Buffer | undefined }

/** The valid meta with the highest transaction. The second one's place depends on the page size. */
async function readMeta(file: RandomAccess): Promise<Meta> {
  const metaAt = async (offset: number): Promise<Meta | string> =>
    decodeMeta(asBuffer(await file.read(offset, pageHeadBytes + metaBytes)))
  const first = await metaAt(0)
  const sizes =
    typeof first === 'string' ? [1024, 2048, 4096, 8192, 16_384, 32_768, 65_536] : [first.pageBytes]
  let best = typeof first === 'string' ? undefined : first
  for (const size of sizes) {
    const second = await metaAt(size)
    if (typeof second === 'string' || second.pageBytes !== size) continue
    if (best === undefined || second.transaction > best.transaction) best = second
  }
  if (best === undefined) throw new Fault('BBOLT_INVALID', `this is no bbolt database: ${first}`)
  const needed = best.pages * best.pageBytes
  if (file.sizeBytes < needed) {
    throw damaged(`it should have ${needed} bytes and has ${file.sizeBytes}`)
  }
  return best
}

type Level = { page: Buffer; count: number; at: number; isLeaf: boolean }

/** All entries of a tree in order, one page a level in memory. */
async function* walk({ pages, root, inline }: Root): AsyncGenerator<DatabaseEntry, void> {
  const seen = inline ? undefined : new Uint8Array(Math.ceil(pages.meta.pages / 8))
  const stack: Level[] = [inline ? inlinePage(inline) : await readPage(pages, root, seen!)]
  let last: Buffer | undefined
  while (stack.length > 0) {
    const level = stack.at(-1)!
    if (level.at === level.count) {
      stack.pop()
      continue
    }
    const slot = level.at++
    if (!level.isLeaf) {
      if (stack.length === depthMax) throw damaged(`a tree is deeper than ${depthMax} pages`)
      stack.push(await readPage(pages, childOf(level.page, slot), seen!))
      continue
    }
    const entry = entryOf(pages, level.page, slot, level.count)
    if (last && Buffer.compare(last, entry.key) >= 0) throw damaged('keys are not in order')
    last = entry.key
    yield entry
  }
}

function childOf(page: Buffer, slot: number): number {
  const child = page.readBigUInt64LE(pageHeadBytes + slot * elementBytes + 8)
  if (child > BigInt(Number.MAX_SAFE_INTEGER)) throw damaged(`a branch leads to page ${child}`)
  return Number(child)
}

function entryOf(pages: Pages, page: Buffer, slot: number, count: number): DatabaseEntry {
  const at = pageHeadBytes + slot * elementBytes
  const kind = page.readUInt32LE(at)
  const keyAt = at + page.readUInt32LE(at + 4)
  const valueAt = keyAt + page.readUInt32LE(at + 8)
  const end = valueAt + page.readUInt32LE(at + 12)
  if (keyAt < pageHeadBytes + count * elementBytes || end > page.length || valueAt === keyAt) {
    throw damaged('an entry lies outside of its page')
  }
  const key = page.subarray(keyAt, valueAt)
  const value = page.subarray(valueAt, end)
  if ((kind & bucketFlag) === 0) return { key, value }
  if (value.length < bucketHeadBytes) throw damaged('a bucket has no root')
  const bucketRoot = value.readBigUInt64LE(0)
  if (bucketRoot >= BigInt(pages.meta.pages)) throw damaged(`a bucket begins at page ${bucketRoot}`)
  const root: Root = {
    pages,
    root: Number(bucketRoot),
    inline: bucketRoot === 0n ? Buffer.from(value.subarray(bucketHeadBytes)) : undefined,
  }
  const name = Buffer.from(key)
  return { key, value, bucket: { name, sequence: value.readBigUInt64LE(8), entries: () => walk(root) } }
}

async function readPage({ file, meta }: Pages, id: number, seen: Uint8Array): Promise<Level> {
  if (id < 2 || id >= meta.pages) throw damaged(`it refers to page ${id} of ${meta.pages}`)
  if (seen[id >> 3]! & (1 << (id & 7))) throw damaged(`page ${id} is reached twice`)
  seen[id >> 3]! |= 1 << (id & 7)
  let page = asBuffer(await file.read(id * meta.pageBytes, meta.pageBytes))
  if (page.length < meta.pageBytes) throw damaged(`page ${id} is cut off`)
  if (page.readBigUInt64LE(0) !== BigInt(id)) throw damaged(`page ${id} says that it is another one`)
  const overflow = page.readUInt32LE(12)
  if (overflow > 0) {
    const bytes = (overflow + 1) * meta.pageBytes
    if (id + overflow >= meta.pages) throw damaged(`page ${id} goes on beyond the end`)
    if (bytes > readBytesMax) throw damaged(`page ${id} has ${bytes} bytes, more than ${readBytesMax}`)
    page = asBuffer(await file.read(id * meta.pageBytes, bytes))
    if (page.length < bytes) throw damaged(`page ${id} is cut off`)
  }
  return checkedPage(page, `page ${id}`)
}

function inlinePage(page: Buffer): Level {
  if (page.length < pageHeadBytes) throw damaged('an inline bucket is cut off')
  const level = checkedPage(page, 'an inline bucket')
  if (!level.isLeaf) throw damaged('an inline bucket is no leaf')
  return level
}

function checkedPage(page: Buffer, what: string): Level {
  const kind = page.readUInt16LE(8)
  if (kind !== flags.leaf && kind !== flags.branch) throw damaged(`${what} is neither branch nor leaf`)
  const count = page.readUInt16LE(10)
  if (pageHeadBytes + count * elementBytes > page.length) throw damaged(`${what} has ${count} entries`)
  if (kind === flags.branch && count === 0) throw damaged(`${what} is a branch without children`)
  return { page, count, at: 0, isLeaf: kind === flags.leaf }
}

const asBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)

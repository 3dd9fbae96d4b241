import { createHash, type Hash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { chmod, lchown, link, lstat, lutimes, mkdir, open, readdir, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { PassThrough, Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGunzip, createZstdDecompress } from 'node:zlib'
import { Fault } from '@kiln/service'
import tar from 'tar-stream'
import { hashing } from './blobs.ts'
import type { LayerSource } from './image-source.ts'
import { removePlace, type ScopedTree, scopedTree, splitEntryPath } from './scoped-tree.ts'

/** What an image may cost; shared by its layers. */
export type UnpackBudget = { entriesLeft: number; bytesLeft: number }

export type UnpackedLayer = {
  entries: number
  bytes: number
  /** Device nodes and pipes, which the runtime makes itself, and extended attributes, which Node cannot set. */
  skipped: { devices: number; attributes: number }
}

const whiteout = '.wh.'
const opaque = '.wh..wh..opq'
/** Headers with long names or attributes may take this much between two entries. */
const headerBytesMax = 1 << 20

/**
 * Unpacks one layer over a tree (image-spec, layer.md): whiteouts remove, files replace, folders merge. Size and
 * digest of the layer's file and of its content are checked while it streams; a mismatch is a Fault and the caller
 * throws the tree away.
 */
export async function applyLayer(
  layer: LayerSource,
  root: string,
  budget: UnpackBudget,
): Promise<UnpackedLayer> {
  const { file, offset, length } = layer.slice
  const packed = createHash('sha256')
  const content = createHash('sha256')
  const extract = tar.extract()
  const guard = headerGuard(budget)
  const end = offset + length - 1
  const source = length === 0 ? new PassThrough().end() : createReadStream(file, { start: offset, end })
  const feeding = pipeline(
    source,
    hashing(packed),
    await decompressor(file, offset, length),
    guard.stream,
    hashing(content),
    extract,
  )
  feeding.catch(() => undefined)
  const result: UnpackedLayer = { entries: 0, bytes: 0, skipped: { devices: 0, attributes: 0 } }
  try {
    const unpacking = startUnpacking(root, result)
    for await (const entry of extract) {
      guard.entryStarts()
      if (--budget.entriesLeft < 0) throw new Fault('IMAGE_TOO_LARGE', 'the image has too many entries')
      await unpacking.add(entry.header, entry as AsyncIterable<Buffer>)
      entry.resume()
      guard.entryEnds()
    }
    await feeding
    await unpacking.finish()
  } catch (error) {
    extract.destroy()
    await feeding.catch(() => undefined)
    if (error instanceof Fault) throw error
    throw new Fault('LAYER_UNREADABLE', `layer ${layer.digest ?? layer.diffId} cannot be unpacked`, {
      cause: error,
    })
  }
  expectDigest(layer.digest, packed, 'file')
  expectDigest(layer.diffId, content, 'content')
  return result
}

function expectDigest(expected: string | undefined, hash: Hash, what: string): void {
  const actual = `sha256:${hash.digest('hex')}`
  if (expected !== undefined && actual !== expected)
    throw new Fault('IMAGE_DIGEST_MISMATCH', `the ${what} of layer ${expected} has digest ${actual}`)
}

/** By the first bytes, as media types lie and Docker archives have none. */
export async function decompressor(
  file: string,
  offset: number,
  length: number,
): Promise<NodeJS.ReadWriteStream> {
  const handle = await open(file, 'r')
  try {
    const magic = Buffer.alloc(4)
    await handle.read(magic, 0, Math.min(4, length), offset)
    if (magic.readUInt16BE(0) === 0x1f8b) return createGunzip()
    if (magic.readUInt32LE(0) === 0xfd2fb528) return createZstdDecompress()
    return new PassThrough()
  } finally {
    await handle.close()
  }
}

/** Bounds what is unpacked in all, and what the tar reader may gather in memory between two entries. */
function headerGuard(budget: UnpackBudget): {
  stream: Transform
  entryStarts(): void
  entryEnds(): void
} {
  let inEntry = false
  let headerBytes = 0
  const stream = new Transform({
    transform: (chunk: Buffer, _, done) => {
      budget.bytesLeft -= chunk.length
      if (!inEntry) headerBytes += chunk.length
      if (budget.bytesLeft < 0)
        return done(new Fault('IMAGE_TOO_LARGE', 'the image unpacks to too many bytes'))
      if (headerBytes > headerBytesMax)
        return done(new Fault('IMAGE_TOO_LARGE', 'a layer has headers without end'))
      done(null, chunk)
    },
  })
  return {
    stream,
    entryStarts: () => {
      inEntry = true
      headerBytes = 0
    },
    entryEnds: () => {
      inEntry = false
    },
  }
}

type Header = {
  name: string
  type?: string | null
  mode?: number
  uid?: number
  gid?: number
  mtime?: Date
  linkname?: string | null
  /** Untyped in tar-stream; an object of text values where there is one. */
  pax?: unknown
}

function startUnpacking(
  root: string,
  result: UnpackedLayer,
): { add(header: Header, body: AsyncIterable<Buffer>): Promise<void>; finish(): Promise<void> } {
  const tree = scopedTree(root)
  const own = process.getuid?.() === 0
  /** What this layer brought, so that an opaque mark removes only what was below. */
  const brought = new Set<string>()
  /** Set last: what is put into a folder changes its time. */
  const folderTimes = new Map<string, Date>()

  const finishEntry = async (path: string, header: Header): Promise<void> => {
    if (own) await lchown(path, header.uid ?? 0, header.gid ?? 0)
    if (header.type !== 'symlink') await chmod(path, (header.mode ?? 0o644) & 0o7777)
    if (header.mtime && header.type !== 'directory') await lutimes(path, header.mtime, header.mtime)
  }

  const add = async (header: Header, body: AsyncIterable<Buffer>): Promise<void> => {
    const place = await tree.placeOf(header.name)
    if (place.name.startsWith(whiteout)) return applyWhiteout(tree, place, brought)
    result.entries++
    if (
      Object.keys((header.pax as object | null | undefined) ?? {}).some((key) =>
        key.startsWith('SCHILY.xattr.'),
      )
    )
      result.skipped.attributes++
    const { path } = place
    switch (header.type) {
      case 'directory':
        if (!(await lstat(path).catch(() => undefined))?.isDirectory()) {
          if (await removePlace(path)) tree.forget()
          await mkdir(path)
        }
        if (header.mtime) folderTimes.set(path, header.mtime)
        break
      case 'file':
      case 'contiguous-file':
        if (await replacePlace(tree, path)) tree.forget()
        result.bytes += await writeBody(path, body)
        break
      case 'symlink':
        await replacePlace(tree, path)
        tree.forget()
        await symlink(linkTarget(header), path)
        break
      case 'link': {
        const target = await tree.placeOf(linkTarget(header))
        const found = await lstat(target.path).catch(() => undefined)
        if (!found || found.isDirectory())
          throw new Fault('LAYER_PATH_REFUSED', `hard link ${header.name} leads to no file`)
        if (target.path !== path) {
          await replacePlace(tree, path)
          tree.forget()
          await link(target.path, path)
        }
        brought.add(path)
        return
      }
      case 'character-device':
      case 'block-device':
      case 'fifo':
        result.skipped.devices++
        return
      default:
        throw new Fault('LAYER_UNREADABLE', `entry ${header.name} is of an unknown type`)
    }
    brought.add(path)
    await finishEntry(path, header)
  }

  return {
    add,
    finish: async () => {
      for (const [path, time] of folderTimes) {
        if ((await lstat(path).catch(() => undefined))?.isDirectory()) await lutimes(path, time, time)
      }
    },
  }
}

function linkTarget(header: Header): string {
  if (!header.linkname || Buffer.byteLength(header.linkname) > 4095)
    throw new Fault('LAYER_PATH_REFUSED', `link ${header.name} has no usable target`)
  return header.linkname
}

async function replacePlace(tree: ScopedTree, path: string): Promise<boolean> {
  if (path === tree.root) throw new Fault('LAYER_PATH_REFUSED', 'a layer replaces the root by a file')
  return removePlace(path)
}

async function writeBody(path: string, body: AsyncIterable<Buffer>): Promise<number> {
  const file = await open(path, 'wx', 0o600)
  let bytes = 0
  try {
    for await (const chunk of body) {
      await file.writeFile(chunk)
      bytes += chunk.length
    }
  } finally {
    await file.close()
  }
  return bytes
}

async function applyWhiteout(
  tree: ScopedTree,
  place: { folder: string; name: string },
  brought: Set<string>,
): Promise<void> {
  tree.forget()
  if (place.name === opaque) {
    for (const name of await readdir(place.folder)) {
      const path = join(place.folder, name)
      if (!hasBrought(brought, path)) await removePlace(path)
    }
    return
  }
  const name = place.name.slice(whiteout.length)
  // `.wh..wh.` names are bookkeeping of the file system that whiteouts come from.
  if (name.startsWith(whiteout)) return
  if (splitEntryPath(name).length !== 1)
    throw new Fault('LAYER_PATH_REFUSED', `whiteout ${JSON.stringify(place.name)} names nothing`)
  await removePlace(join(place.folder, name))
}

/** Whether this layer brought the path or something below it. */
function hasBrought(brought: Set<string>, path: string): boolean {
  if (brought.has(path)) return true
  for (const other of brought) if (other.startsWith(`${path}/`)) return true
  return false
}

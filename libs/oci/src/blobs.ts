import { createHash, type Hash, randomBytes } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { lstat, mkdir, open, readdir, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { Digest } from '@kiln/schemas'
import { atomicWrite, Fault, syncDirectory } from '@kiln/service'
import type { Slice } from './tar-index.ts'

/** What an image is made of, as it came: manifest, config and layers, each a file named by its digest. */
export type BlobStore = {
  /** Where a blob is, or would be. */
  path(digest: Digest): string
  folder: string
  put(bytes: Uint8Array): Promise<BlobName>
  /** Copies a run of bytes in, durably; what is not as `expected` says is a Fault and leaves nothing. */
  copy(slice: Slice, expected?: Digest): Promise<BlobName>
}

export type BlobName = { digest: Digest; size: number }

/** What a file of the blobs' folder is: whole blobs are named by 64 hex digits, all else is half made. */
export const isBlobName = (name: string): boolean => /^[0-9a-f]{64}$/.test(name)

export async function openBlobs(folder: string): Promise<BlobStore> {
  await mkdir(folder, { recursive: true })
  // Copies that a crash left. Parts of downloads stay: they are continued.
  for (const name of await readdir(folder)) {
    if (!isBlobName(name) && !name.endsWith('.part')) await rm(join(folder, name), { force: true })
  }
  const path = (digest: Digest): string => blobPath(folder, digest)
  return {
    path,
    folder,
    put: async (bytes) => {
      const digest = sha256Of(bytes)
      if ((await sizeOf(path(digest))) !== bytes.length) await atomicWrite(path(digest), bytes)
      return { digest, size: bytes.length }
    },
    copy: async (slice, expected) => {
      if (expected !== undefined) {
        const here = path(expected)
        if (slice.file === here || (await sizeOf(here)) === slice.length)
          return { digest: expected, size: slice.length }
      }
      const temporary = join(folder, `new-${randomBytes(6).toString('hex')}`)
      try {
        const hash = createHash('sha256')
        await pipeline(readSliceStream(slice), hashing(hash), createWriteStream(temporary))
        const digest = `sha256:${hash.digest('hex')}`
        if (expected !== undefined && digest !== expected)
          throw new Fault('IMAGE_DIGEST_MISMATCH', `blob ${expected} that came has digest ${digest}`)
        const file = await open(temporary, 'r+')
        try {
          await file.sync()
        } finally {
          await file.close()
        }
        await rename(temporary, path(digest))
        await syncDirectory(dirname(path(digest)))
        return { digest, size: slice.length }
      } catch (error) {
        await rm(temporary, { force: true })
        throw error
      }
    },
  }
}

export const sha256Of = (bytes: Uint8Array): Digest =>
  `sha256:${createHash('sha256').update(bytes).digest('hex')}`

export const blobPath = (folder: string, digest: Digest): string =>
  join(folder, digest.slice('sha256:'.length))

/** Digest of a whole file. */
export async function digestOfFile(file: string): Promise<Digest> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(file, { highWaterMark: 1 << 20 }), hash)
  return `sha256:${hash.digest('hex')}`
}

export function hashing(hash: Hash): Transform {
  return new Transform({
    transform: (chunk: Buffer, _, done) => {
      hash.update(chunk)
      done(null, chunk)
    },
  })
}

function readSliceStream({ file, offset, length }: Slice): AsyncIterable<Buffer> | Buffer[] {
  return length === 0 ? [] : createReadStream(file, { start: offset, end: offset + length - 1 })
}

const sizeOf = async (path: string): Promise<number | undefined> =>
  (await lstat(path).catch(() => undefined))?.size

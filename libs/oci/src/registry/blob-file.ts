import { createHash, type Hash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { type FileHandle, open, rename, rm, stat } from 'node:fs/promises'
import type { IncomingMessage } from 'node:http'
import { dirname } from 'node:path'
import type { Descriptor } from '@kiln/schemas'
import { Fault, syncDirectory } from '@kiln/service'

export type BlobFile = {
  /** Where the blob is put once it is whole and right; `.part` beside it until then. */
  file: string
  descriptor: Pick<Descriptor, 'digest' | 'size'>
  /** Opens the blob from an offset on. */
  request(from: number): Promise<IncomingMessage>
  /** Bytes that are there, each time there are more. */
  onProgress?(bytes: number): void
}

/** By file: two pulls that want one blob are one transfer. */
const inFlight = new Map<string, Promise<void>>()

/**
 * Brings a blob to the disk, checked while it streams. What an earlier try left is continued, and so is a transfer that
 * breaks off, as long as it gets further; what is not as its descriptor says leaves nothing.
 */
export async function fetchBlob(blob: BlobFile): Promise<void> {
  const { file } = blob
  while (inFlight.has(file)) await inFlight.get(file)?.catch(() => undefined)
  const work = fetchAlone(blob)
  inFlight.set(file, work)
  await work.finally(() => inFlight.delete(file))
}

async function fetchAlone(blob: BlobFile): Promise<void> {
  const { file, descriptor } = blob
  if ((await sizeOf(file)) === descriptor.size) return
  const part = `${file}.part`
  for (;;) {
    const have = await sizeOf(part)
    try {
      await fetchRest(blob, part, have)
      break
    } catch (error) {
      if (error instanceof Fault) throw error
      if ((await sizeOf(part)) <= have)
        throw new Fault('IMAGE_DOWNLOAD_FAILED', `blob ${descriptor.digest} breaks off`, { cause: error })
    }
  }
  await rename(part, file)
  await syncDirectory(dirname(file))
}

async function fetchRest(
  { descriptor, request, onProgress }: BlobFile,
  part: string,
  have: number,
): Promise<void> {
  const { digest, size } = descriptor
  const hash = createHash('sha256')
  let at = have <= size ? have : 0
  if (at > 0) await addFile(hash, part, at)
  const output = await open(part, at > 0 ? 'r+' : 'w')
  try {
    if (at < size || size === 0) {
      const response = await request(at)
      try {
        if (at > 0 && !continues(response, at)) {
          // The whole blob comes after all, or the part is longer than the server believes.
          await output.truncate(0)
          if (response.statusCode !== 200)
            throw new Fault('IMAGE_DOWNLOAD_FAILED', `blob ${digest} cannot be continued`)
          return await copy({ response, output, hash: createHash('sha256'), at: 0 })
        }
        return await copy({ response, output, hash, at })
      } finally {
        response.destroy()
      }
    }
    await finish(hash, output)
  } finally {
    await output.close()
  }

  async function copy(to: {
    response: IncomingMessage
    output: FileHandle
    hash: Hash
    at: number
  }): Promise<void> {
    at = to.at
    for await (const chunk of to.response as AsyncIterable<Buffer>) {
      if (at + chunk.length > size) {
        await rm(part, { force: true })
        throw new Fault(
          'IMAGE_DIGEST_MISMATCH',
          `blob ${digest} is larger than the ${size} bytes it should have`,
        )
      }
      await writeAll(to.output, chunk, at)
      to.hash.update(chunk)
      at += chunk.length
      onProgress?.(at)
    }
    if (at < size) throw new Error(`the transfer ended at byte ${at} of ${size}`)
    await finish(to.hash, to.output)
  }

  async function finish(whole: Hash, to: FileHandle): Promise<void> {
    const actual = `sha256:${whole.digest('hex')}`
    if (actual !== digest) {
      await rm(part, { force: true })
      throw new Fault('IMAGE_DIGEST_MISMATCH', `blob ${digest} that came has digest ${actual}`)
    }
    await to.sync()
  }
}

const continues = (response: IncomingMessage, from: number): boolean =>
  response.statusCode === 206 && response.headers['content-range']?.startsWith(`bytes ${from}-`) === true

async function writeAll(file: FileHandle, bytes: Buffer, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, position + done)
    done += bytesWritten
  }
}

async function addFile(hash: Hash, path: string, length: number): Promise<void> {
  for await (const chunk of createReadStream(path, { end: length - 1 })) hash.update(chunk as Buffer)
}

const sizeOf = async (path: string): Promise<number> => (await stat(path).catch(() => undefined))?.size ?? 0

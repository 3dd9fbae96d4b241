import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import type { IncomingHttpHeaders } from 'node:http'
import { pipeline } from 'node:stream/promises'
import { Fault } from '@kiln/service'
import { openUrl } from './http.ts'

export type Download = {
  url: string
  /** Where the file is put once it is whole; `.part` and `.part.json` beside it until then. */
  file: string
  /** What it must be, hex. */
  sha256?: string
  bytesMax: number
  signal: AbortSignal
}

/**
 * Fetches a file over HTTP. What an earlier try left is resumed with a Range request, if the server still has the
 * same file (If-Range); then the digest is checked. Returns the file's sha256.
 */
export async function download(wanted: Download): Promise<{ sha256: string; sizeBytes: number }> {
  const part = `${wanted.file}.part`
  for (let before = -1; ; ) {
    const have = await sizeOf(part)
    try {
      await fetchInto(wanted, part, have)
      break
    } catch (error) {
      // As long as it gets further, an interrupted transfer simply goes on.
      const now = await sizeOf(part)
      if (error instanceof Fault || wanted.signal.aborted || now <= Math.max(have, before))
        throw asFault(error, wanted)
      before = now
    }
  }
  const sha256 = await hashFile(part)
  if (wanted.sha256 !== undefined && wanted.sha256 !== sha256) {
    await discard(part)
    throw new Fault('IMAGE_DIGEST_MISMATCH', `${wanted.url} has sha256 ${sha256}, not ${wanted.sha256}`)
  }
  const sizeBytes = await sizeOf(part)
  await rename(part, wanted.file)
  await rm(`${part}.json`, { force: true })
  return { sha256, sizeBytes }
}

async function fetchInto(wanted: Download, part: string, have: number): Promise<void> {
  const validator = have > 0 ? await readValidator(part, wanted.url) : undefined
  const from = validator === undefined ? 0 : have
  const headers: Record<string, string> = { 'accept-encoding': 'identity' }
  if (validator !== undefined) Object.assign(headers, { range: `bytes=${from}-`, 'if-range': validator })
  const response = await openUrl(wanted.url, { headers, signal: wanted.signal })
  try {
    const status = response.statusCode ?? 0
    const resumed = status === 206 && response.headers['content-range']?.startsWith(`bytes ${from}-`) === true
    if (status === 416) await discard(part)
    if (status === 404 || status === 410)
      throw new Fault('IMAGE_NOT_FOUND', `${wanted.url} answers ${status}`)
    if (status !== 200 && !resumed)
      throw new Fault('IMAGE_DOWNLOAD_FAILED', `${wanted.url} answers ${status}`)
    const total = Number(response.headers['content-length'] ?? 0) + (resumed ? from : 0)
    if (total > wanted.bytesMax) throw tooLarge(wanted)
    await writeValidator(part, wanted.url, response.headers)
    const file = await open(part, resumed ? 'a' : 'w')
    try {
      let size = resumed ? from : 0
      for await (const chunk of response as AsyncIterable<Buffer>) {
        size += chunk.length
        if (size > wanted.bytesMax) throw tooLarge(wanted)
        await file.writeFile(chunk)
      }
      if (total > 0 && size !== total) throw new Error(`the transfer ended at byte ${size} of ${total}`)
      await file.sync()
    } finally {
      await file.close()
    }
  } finally {
    response.destroy()
  }
}

const tooLarge = (wanted: Download): Fault =>
  new Fault('IMAGE_TOO_LARGE', `${wanted.url} is larger than ${wanted.bytesMax} bytes`)

const asFault = (error: unknown, wanted: Download): Fault =>
  error instanceof Fault
    ? error
    : new Fault('IMAGE_DOWNLOAD_FAILED', `downloading ${wanted.url} failed`, { cause: error })

/** A part may be continued only if the same URL gave it and the server named its version. */
async function readValidator(part: string, url: string): Promise<string | undefined> {
  try {
    const saved = JSON.parse(await readFile(`${part}.json`, 'utf8')) as { url?: unknown; validator?: unknown }
    return saved.url === url && typeof saved.validator === 'string' ? saved.validator : undefined
  } catch {
    return undefined
  }
}

async function writeValidator(part: string, url: string, headers: IncomingHttpHeaders): Promise<void> {
  const { etag } = headers
  const validator = etag && !etag.startsWith('W/') ? etag : headers['last-modified']
  if (validator) await writeFile(`${part}.json`, JSON.stringify({ url, validator }))
  else await rm(`${part}.json`, { force: true })
}

async function discard(part: string): Promise<void> {
  await rm(part, { force: true })
  await rm(`${part}.json`, { force: true })
}

const sizeOf = async (path: string): Promise<number> => (await stat(path).catch(() => undefined))?.size ?? 0

async function hashFile(path: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), hash)
  return hash.digest('hex')
}

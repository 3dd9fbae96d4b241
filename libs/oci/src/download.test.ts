import { createHash } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { download } from './download.ts'

const body = Buffer.alloc(300_000, 'kiln')
const sha256 = createHash('sha256').update(body).digest('hex')
const cleanups: (() => void)[] = []
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup()
})

async function serve(
  answer: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<{ url: string; ranges: (string | undefined)[] }> {
  const ranges: (string | undefined)[] = []
  const server = createServer((request, response) => {
    ranges.push(request.headers.range)
    answer(request, response)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  cleanups.push(() => {
    server.closeAllConnections()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/x.tar`, ranges }
}

const wanted = (url: string) => ({
  url,
  file: join(mkdtempSync(join(tmpdir(), 'kiln-download-')), 'x.tar'),
  bytesMax: 1 << 20,
  signal: new AbortController().signal,
})

/** Serves ranges of `body` under `etag`, and breaks off after `breaks` bytes as long as there are some. */
function ranges(etag: () => string, breaks: number[]) {
  return (request: IncomingMessage, response: ServerResponse): void => {
    const match =
      request.headers['if-range'] === etag() ? /bytes=(\d+)-/.exec(request.headers.range ?? '') : null
    const from = Number(match?.[1] ?? 0)
    response.writeHead(match ? 206 : 200, {
      etag: etag(),
      'content-length': body.length - from,
      ...(match ? { 'content-range': `bytes ${from}-${body.length - 1}/${body.length}` } : {}),
    })
    const stop = breaks.shift()
    if (stop === undefined) response.end(body.subarray(from))
    else response.write(body.subarray(from, from + stop), () => setTimeout(() => response.destroy(), 50))
  }
}

test('a transfer that breaks off is continued where it was', async () => {
  const { url, ranges: asked } = await serve(ranges(() => '"1"', [100_000, 50_000]))
  const file = wanted(url)
  expect(await download({ ...file, sha256 })).toEqual({ sha256, sizeBytes: body.length })
  expect(readFileSync(file.file).equals(body)).toBe(true)
  expect(asked).toEqual([undefined, 'bytes=100000-', 'bytes=150000-'])
  expect(readdirSync(join(file.file, '..'))).toEqual(['x.tar'])
})

test('a file that changed meanwhile is fetched anew', async () => {
  let etag = '"1"'
  const { url } = await serve((request, response) => {
    ranges(() => etag, etag === '"1"' ? [1000] : [])(request, response)
    etag = '"2"'
  })
  expect((await download(wanted(url))).sha256).toBe(sha256)
})

test('a wrong digest, a missing file and one that is too large are faults, and nothing is kept', async () => {
  const { url } = await serve(ranges(() => '"1"', []))
  const file = wanted(url)
  await expect(download({ ...file, sha256: 'f'.repeat(64) })).rejects.toMatchObject({
    code: 'IMAGE_DIGEST_MISMATCH',
  })
  expect(readdirSync(join(file.file, '..'))).toEqual([])
  await expect(download({ ...file, bytesMax: 1000 })).rejects.toMatchObject({ code: 'IMAGE_TOO_LARGE' })
  const missing = await serve((_, response) => response.writeHead(404).end())
  await expect(download(wanted(missing.url))).rejects.toMatchObject({ code: 'IMAGE_NOT_FOUND' })
})

test('a server that is not there is a fault with its cause', async () => {
  await expect(download(wanted('http://127.0.0.1:9/x'))).rejects.toMatchObject({
    code: 'IMAGE_DOWNLOAD_FAILED',
  })
})

test('redirects are followed, but not for ever', async () => {
  const { url } = await serve(ranges(() => '"1"', []))
  const redirecting = await serve((_, response) => response.writeHead(302, { location: url }).end())
  expect((await download(wanted(redirecting.url))).sha256).toBe(sha256)
  const circle = await serve((_, response) => response.writeHead(302, { location: '/x.tar' }).end())
  await expect(download(wanted(circle.url))).rejects.toMatchObject({ code: 'IMAGE_DOWNLOAD_FAILED' })
})

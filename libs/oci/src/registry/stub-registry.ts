import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { ImageContent } from '../image-writer.ts'
import { layoutFiles } from '../image-writer.ts'

export type StubRegistry = {
  host: string
  /** Of every request: method, path and what stood in two headers. */
  seen: { method: string; path: string; range?: string | undefined; authorization?: string | undefined }[]
  /** Answers a request itself by returning true. */
  intercept: (request: IncomingMessage, response: ServerResponse, body: string) => boolean
  manifests: Map<string, { bytes: Uint8Array; mediaType: string }>
  blobs: Map<string, Uint8Array>
  /** Puts an image in as `library/x:TAG`; answers its digests. */
  add(content: ImageContent, tag: string): Promise<{ manifestDigest: string; layers: string[] }>
  close(): void
}

/** A registry for tests that does as it is told. */
export async function startStubRegistry(): Promise<StubRegistry> {
  const server = createServer((request, response) => {
    let body = ''
    request.on('data', (chunk: Buffer) => {
      body += chunk.toString()
    })
    request.on('end', () => {
      const { method = '', url: path = '', headers } = request
      stub.seen.push({ method, path, range: headers.range, authorization: headers.authorization })
      if (!stub.intercept(request, response, body)) answer(path, request, response)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const stub: StubRegistry = {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen: [],
    intercept: () => false,
    manifests: new Map(),
    blobs: new Map(),
    add: async (content, tag) => {
      const { files, manifestDigest } = await layoutFiles(content)
      for (const [name, bytes] of files) {
        if (name.startsWith('blobs/')) stub.blobs.set(`sha256:${name.split('/')[2]}`, bytes)
      }
      const bytes = stub.blobs.get(manifestDigest)!
      const entry = { bytes, mediaType: 'application/vnd.oci.image.manifest.v1+json' }
      stub.manifests.set(tag, entry).set(manifestDigest, entry)
      const manifest = JSON.parse(Buffer.from(bytes).toString()) as { layers: { digest: string }[] }
      return { manifestDigest, layers: manifest.layers.map(({ digest }) => digest) }
    },
    close: () => {
      server.closeAllConnections()
      server.close()
    },
  }
  function answer(path: string, request: IncomingMessage, response: ServerResponse): void {
    const [, kind, reference = ''] = /^\/v2\/.+\/(manifests|blobs)\/(.+)$/.exec(path) ?? []
    const manifest = kind === 'manifests' ? stub.manifests.get(reference) : undefined
    const bytes = manifest?.bytes ?? (kind === 'blobs' ? stub.blobs.get(reference) : undefined)
    if (!bytes) {
      response.writeHead(404).end('{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
      return
    }
    const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0)
    const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`
    response.writeHead(from > 0 ? 206 : 200, {
      'content-type': manifest?.mediaType ?? 'application/octet-stream',
      ...(manifest ? { 'docker-content-digest': digest } : {}),
      ...(from > 0 ? { 'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}` } : {}),
    })
    response.end(bytes.subarray(from))
  }
  return stub
}

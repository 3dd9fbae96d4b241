import { createHash, createSign, type KeyObject } from 'node:crypto'
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
  /** Signs a manifest as cosign does, with a key of ours; `change` spoils the payload before it is signed. */
  sign(manifestDigest: string, key: KeyObject, change?: (payload: CosignPayload) => void): void
  close(): void
}

export type CosignPayload = {
  critical: {
    identity: { 'docker-reference': string }
    image: { 'docker-manifest-digest': string }
    type: string
  }
  optional: null
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
    sign: (manifestDigest, key, change) => {
      const payload: CosignPayload = {
        critical: {
          identity: { 'docker-reference': `${stub.host}/library/x` },
          image: { 'docker-manifest-digest': manifestDigest },
          type: 'cosign container image signature',
        },
        optional: null,
      }
      change?.(payload)
      const bytes = Buffer.from(JSON.stringify(payload))
      const config = Buffer.from('{}')
      const describe = (content: Buffer, mediaType: string): object => {
        const digest = `sha256:${createHash('sha256').update(content).digest('hex')}`
        stub.blobs.set(digest, content)
        return { mediaType, digest, size: content.length }
      }
      const tag = `${manifestDigest.replace(':', '-')}.sig`
      const before = JSON.parse(Buffer.from(stub.manifests.get(tag)?.bytes ?? Buffer.from('{}')).toString())
      const signature = createSign('sha256').update(bytes).sign(key, 'base64')
      const manifest = {
        schemaVersion: 2,
        mediaType: 'application/vnd.oci.image.manifest.v1+json',
        config: describe(config, 'application/vnd.oci.image.config.v1+json'),
        layers: [
          ...((before as { layers?: object[] }).layers ?? []),
          {
            ...describe(bytes, 'application/vnd.dev.cosign.simplesigning.v1+json'),
            annotations: { 'dev.cosignproject.cosign/signature': signature },
          },
        ],
      }
      stub.manifests.set(tag, {
        bytes: Buffer.from(JSON.stringify(manifest)),
        mediaType: manifest.mediaType,
      })
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

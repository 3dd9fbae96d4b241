import { createHash } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { pipeline } from 'node:stream/promises'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import tar from 'tar-stream'

export type LayerEntry = {
  path: string
  type?: 'file' | 'directory' | 'symlink' | 'link' | 'character-device' | 'fifo'
  content?: string | Uint8Array
  mode?: number
  uid?: number
  gid?: number
  /** Target of a symlink or hard link. */
  target?: string
  pax?: Record<string, string>
}

export type ImageContent = {
  layers: LayerEntry[][]
  compression?: 'none' | 'gzip' | 'zstd'
  architecture?: string
  tag?: string
  config: {
    Entrypoint?: string[]
    Cmd?: string[]
    Env?: string[]
    User?: string
    WorkingDir?: string
    Labels?: Record<string, string>
  }
}

type Blob = { digest: string; bytes: Uint8Array }

const epoch = new Date(0)
const sha256 = (bytes: Uint8Array): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`
const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value))
const compressors = {
  none: (bytes: Uint8Array) => bytes,
  gzip: (bytes: Uint8Array) => gzipSync(bytes, { level: 9 }),
  zstd: (bytes: Uint8Array) => zstdCompressSync(bytes),
}
const suffix = { none: '', gzip: '+gzip', zstd: '+zstd' }

/** A tar of these entries in this order; the same entries give the same bytes. */
export async function layerTar(entries: LayerEntry[]): Promise<Buffer> {
  const pack = tar.pack()
  for (const entry of entries) {
    const header = {
      name: entry.path,
      type: entry.type ?? 'file',
      mode: entry.mode ?? (entry.type === 'directory' ? 0o755 : 0o644),
      uid: entry.uid ?? 0,
      gid: entry.gid ?? 0,
      mtime: epoch,
      linkname: entry.target ?? '',
      ...(entry.pax ? { pax: entry.pax } : {}),
    }
    pack.entry(header, Buffer.from(entry.content ?? ''))
  }
  pack.finalize()
  const chunks: Buffer[] = []
  for await (const chunk of pack) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

/** The files of an OCI image layout that is at the same time what `docker load` reads. */
export async function layoutFiles(
  content: ImageContent,
): Promise<{ files: Map<string, Uint8Array>; manifestDigest: string; configDigest: string }> {
  const compression = content.compression ?? 'gzip'
  const diffIds: string[] = []
  const layers: Blob[] = []
  for (const entries of content.layers) {
    const plain = await layerTar(entries)
    diffIds.push(sha256(plain))
    const bytes = compressors[compression](plain)
    layers.push({ digest: sha256(bytes), bytes })
  }
  const config = json({
    architecture: content.architecture ?? 'amd64',
    os: 'linux',
    created: epoch.toISOString(),
    config: content.config,
    rootfs: { type: 'layers', diff_ids: diffIds },
  })
  const media = 'application/vnd.oci.image'
  const manifest = json({
    schemaVersion: 2,
    mediaType: `${media}.manifest.v1+json`,
    config: { mediaType: `${media}.config.v1+json`, digest: sha256(config), size: config.length },
    layers: layers.map((layer) => ({
      mediaType: `${media}.layer.v1.tar${suffix[compression]}`,
      digest: layer.digest,
      size: layer.bytes.length,
    })),
  })
  const index = json({
    schemaVersion: 2,
    manifests: [
      {
        mediaType: `${media}.manifest.v1+json`,
        digest: sha256(manifest),
        size: manifest.length,
        platform: { architecture: content.architecture ?? 'amd64', os: 'linux' },
        ...(content.tag ? { annotations: { 'org.opencontainers.image.ref.name': content.tag } } : {}),
      },
    ],
  })
  const blob = (digest: string): string => `blobs/sha256/${digest.slice(7)}`
  const docker = [
    {
      Config: blob(sha256(config)),
      RepoTags: content.tag ? [content.tag] : [],
      Layers: layers.map((layer) => blob(layer.digest)),
    },
  ]
  const files = new Map<string, Uint8Array>([
    ['oci-layout', json({ imageLayoutVersion: '1.0.0' })],
    ['index.json', index],
    ['manifest.json', json(docker)],
    [blob(sha256(config)), config],
    [blob(sha256(manifest)), manifest],
    ...layers.map((layer): [string, Uint8Array] => [blob(layer.digest), layer.bytes]),
  ])
  return { files, manifestDigest: sha256(manifest), configDigest: sha256(config) }
}

/** Writes an image as one tar file, OCI layout and Docker archive in one. Returns the digest of its config. */
export async function writeImageArchive(file: string, content: ImageContent): Promise<string> {
  const { files, configDigest } = await layoutFiles(content)
  const pack = tar.pack()
  for (const [name, bytes] of files) pack.entry({ name, mode: 0o644, mtime: epoch }, Buffer.from(bytes))
  pack.finalize()
  await pipeline(pack, createWriteStream(file))
  return configDigest
}

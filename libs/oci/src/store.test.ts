import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import { openArchive, openLayout } from './image-source.ts'
import { type ImageContent, type LayerEntry, layoutFiles, writeImageArchive } from './image-writer.ts'
import { type ImageStore, openImageStore, type StoredImage } from './store.ts'

const newFolder = (): string => mkdtempSync(join(tmpdir(), 'kiln-oci-'))
const architecture = 'amd64'

function newStore(options: object = {}): Promise<ImageStore> {
  return openImageStore({ folder: newFolder(), syncTree: async () => undefined, ...options })
}

async function importLayers(
  layers: LayerEntry[][],
  more: Partial<ImageContent> = {},
  store?: ImageStore,
): Promise<{ image: StoredImage; root: string; store: ImageStore }> {
  const path = join(newFolder(), 'image.tar')
  await writeImageArchive(path, { layers, config: {}, ...more })
  const used = store ?? (await newStore())
  const image = await used.import(path, await openArchive({ path, architecture }))
  return { image, root: used.treeOf(image), store: used }
}

const file = (path: string, content = path, more: Partial<LayerEntry> = {}): LayerEntry => ({
  path,
  content,
  ...more,
})
const folder = (path: string): LayerEntry => ({ path, type: 'directory' })
const link = (path: string, target: string): LayerEntry => ({ path, type: 'symlink', target })

test('layers are applied in order, whatever they are compressed with', async () => {
  for (const compression of ['none', 'gzip', 'zstd'] as const) {
    const { root, image } = await importLayers(
      [
        [folder('etc'), file('etc/a', 'one'), file('etc/b', 'one', { mode: 0o4755 })],
        [file('./etc/a', 'two'), link('etc/c', 'a'), { path: 'etc/d', type: 'link', target: 'etc/b' }],
      ],
      { compression },
    )
    expect(readFileSync(join(root, 'etc/a'), 'utf8')).toBe('two')
    expect(statSync(join(root, 'etc/b')).mode & 0o7777).toBe(0o4755)
    expect(readlinkSync(join(root, 'etc/c'))).toBe('a')
    expect(statSync(join(root, 'etc/d')).ino).toBe(statSync(join(root, 'etc/b')).ino)
    expect(image).toMatchObject({ formatVersion: 1, entries: 6, skipped: { devices: 0, attributes: 0 } })
  }
})

test('whiteouts remove what was below, and opaque folders keep only what their layer brings', async () => {
  const { root } = await importLayers([
    [file('a/old'), file('a/sub/old'), file('b/old'), file('c'), file('d/x/y')],
    [
      file('a/new'),
      file('a/.wh..wh..opq'),
      file('b/.wh.old'),
      file('.wh.c'),
      file('.wh.d'),
      file('.wh..wh.plnk'),
    ],
  ])
  expect(readdirSync(root).sort()).toEqual(['a', 'b'])
  expect(readdirSync(join(root, 'a'))).toEqual(['new'])
  expect(readdirSync(join(root, 'b'))).toEqual([])
})

test('a symlink is a road within the image, and cannot lead out of it', async () => {
  const outside = newFolder()
  const { root } = await importLayers([
    [folder('usr/lib'), link('lib', 'usr/lib'), link('evil', outside), link('up', '../../../../..')],
    [file('lib/x'), file('evil/planted'), file('up/tmp-planted')],
  ])
  expect(readFileSync(join(root, 'usr/lib/x'), 'utf8')).toBe('lib/x')
  expect(readdirSync(outside)).toEqual([])
  expect(readFileSync(join(root, outside, 'planted'), 'utf8')).toBe('evil/planted')
  expect(existsSync(join(root, 'tmp-planted'))).toBe(true)
})

test('entries that climb, loop, pass through files or link to nothing are refused and leave nothing', async () => {
  const hostile: LayerEntry[][] = [
    [file('../escape')],
    [file('a/../../escape')],
    [link('a', 'b'), link('b', 'a'), file('a/x')],
    [file('a'), file('a/b')],
    [{ path: 'a', type: 'link', target: '../../etc/passwd' }],
    [{ path: 'a', type: 'link', target: 'missing' }],
    [file('.wh...')],
    [file('.wh.')],
    [link('.', '/etc')],
    [{ path: 'x', type: 'symlink', target: '' }],
  ]
  for (const entries of hostile) {
    const base = newFolder()
    const store = await newStore({ folder: base })
    await expect(importLayers([entries], {}, store), JSON.stringify(entries)).rejects.toMatchObject({
      code: 'LAYER_PATH_REFUSED',
    })
    expect(readdirSync(join(base, 'trees'))).toEqual([])
    expect(await store.list()).toEqual([])
  }
})

test('a hard link cannot reach a file outside through a symlink', async () => {
  const outside = newFolder()
  writeFileSync(join(outside, 'secret'), 'secret')
  const climbing = importLayers([[link('out', outside), { path: 'a', type: 'link', target: 'out/secret' }]])
  await expect(climbing).rejects.toMatchObject({ code: 'LAYER_PATH_REFUSED' })
})

test('devices and attributes are counted, not made', async () => {
  const { root, image } = await importLayers([
    [
      { path: 'dev/null', type: 'character-device' },
      { path: 'pipe', type: 'fifo' },
      file('ping', 'x', { pax: { 'SCHILY.xattr.security.capability': 'x' } }),
    ],
  ])
  expect(image.skipped).toEqual({ devices: 2, attributes: 1 })
  expect(existsSync(join(root, 'dev/null'))).toBe(false)
})

test('an image that is too big, has too many entries or endless headers is refused', async () => {
  const content = [[file('a', 'x'.repeat(20_000)), file('b')]]
  const small = await newStore({ bytesMax: 10_000 })
  await expect(importLayers(content, {}, small)).rejects.toMatchObject({ code: 'IMAGE_TOO_LARGE' })
  const few = await newStore({ entriesMax: 1 })
  await expect(importLayers(content, {}, few)).rejects.toMatchObject({ code: 'IMAGE_TOO_LARGE' })
  const endless = importLayers([[file('a', 'x', { pax: { comment: 'y'.repeat(3 << 20) } })]])
  await expect(endless).rejects.toMatchObject({ code: 'IMAGE_TOO_LARGE' })
})

async function layoutOnDisk(change: (files: Map<string, Uint8Array>) => void): Promise<string> {
  const path = newFolder()
  const content = { layers: [[file('a')]], config: { Cmd: ['/a'] }, tag: 'v1', compression: 'gzip' as const }
  const { files } = await layoutFiles(content)
  change(files)
  for (const [name, bytes] of files) {
    mkdirSync(dirname(join(path, name)), { recursive: true })
    writeFileSync(join(path, name), bytes)
  }
  return path
}

test('a layout is read by tag, and every damaged blob is noticed', async () => {
  const whole = await layoutOnDisk(() => undefined)
  const opened = await openLayout({ path: whole, tag: 'v1', architecture })
  expect(opened.config.config.Cmd).toEqual(['/a'])
  const store = await newStore()
  await store.import('x', opened)
  await expect(openLayout({ path: whole, tag: 'v2', architecture })).rejects.toMatchObject({
    code: 'IMAGE_NOT_FOUND',
  })
  await expect(openLayout({ path: whole, architecture: 'arm64' })).rejects.toMatchObject({
    code: 'IMAGE_NOT_FOUND',
  })

  const names = [
    ...(await layoutFiles({ layers: [[file('a')]], config: { Cmd: ['/a'] }, tag: 'v1' })).files.keys(),
  ]
  for (const name of names.filter((each) => each.startsWith('blobs/'))) {
    const damaged = await layoutOnDisk((files) => {
      const bytes = Buffer.from(files.get(name)!)
      bytes[bytes.length >> 1]! ^= 1
      files.set(name, bytes)
    })
    const fresh = await newStore()
    const reading = openLayout({ path: damaged, architecture }).then((source) => fresh.import('x', source))
    await expect(reading, name).rejects.toThrow()
    expect(await fresh.list()).toEqual([])
  }
})

test('a docker archive without a layout is read, with its layers checked against the config', async () => {
  const { files } = await layoutFiles({ layers: [[file('a', 'hello')]], config: {}, compression: 'none' })
  files.delete('oci-layout')
  const write = async (): Promise<string> => {
    const path = join(newFolder(), 'docker.tar')
    const { layerTar } = await import('./image-writer.ts')
    writeFileSync(path, await layerTar([...files].map(([name, content]) => ({ path: name, content }))))
    return path
  }
  const store = await newStore()
  const image = await store.import('x', await openArchive({ path: await write(), architecture }))
  expect(readFileSync(join(store.treeOf(image), 'a'), 'utf8')).toBe('hello')
  const [name, bytes] = [...files].find(([, content]) => Buffer.from(content).includes('hello'))!
  files.set(name, Buffer.from(Buffer.from(bytes).toString('latin1').replace('hello', 'jello'), 'latin1'))
  const damaged = openArchive({ path: await write(), architecture })
  await expect(damaged.then(async (source) => (await newStore()).import('x', source))).rejects.toMatchObject({
    code: 'IMAGE_DIGEST_MISMATCH',
  })
})

test('a file that is no archive, or is cut off, is a fault', async () => {
  const path = join(newFolder(), 'image.tar')
  await expect(openArchive({ path, architecture })).rejects.toMatchObject({ code: 'IMAGE_NOT_FOUND' })
  await writeImageArchive(path, {
    layers: [[file('a', 'x'.repeat(100_000))]],
    config: {},
    compression: 'none',
  })
  const bytes = readFileSync(path)
  for (const length of [0, 100, 5000, bytes.length - 50_000]) {
    writeFileSync(path, bytes.subarray(0, length))
    await expect(openArchive({ path, architecture }), String(length)).rejects.toMatchObject({
      code: 'IMAGE_ARCHIVE_INVALID',
    })
  }
})

test('the same chain is unpacked once, and an image on top of one that is here shares its files', async () => {
  const base = [file('base', 'base'), folder('etc'), file('etc/x', 'old')]
  const { store, image } = await importLayers([base])
  const again = await importLayers([base], { config: { Cmd: ['/other'] } }, store)
  expect(again.image.chainId).toBe(image.chainId)
  expect(again.image.entries).toBe(0)
  const derived = await importLayers([base, [file('etc/x', 'new')]], {}, store)
  expect(derived.image.entries).toBe(1)
  expect(statSync(join(derived.root, 'base')).ino).toBe(statSync(join(store.treeOf(image), 'base')).ino)
  expect(readFileSync(join(derived.root, 'etc/x'), 'utf8')).toBe('new')
  expect(readFileSync(join(store.treeOf(image), 'etc/x'), 'utf8')).toBe('old')
})

test('what a crash left half done is removed, and unused trees are collected', async () => {
  const base = newFolder()
  const store = await newStore({ folder: base })
  const { image } = await importLayers([[file('a')]], {}, store)
  mkdirSync(join(base, 'trees/new-123/x'), { recursive: true })
  const reopened = await newStore({ folder: base })
  expect(readdirSync(join(base, 'trees'))).toEqual([image.chainId.slice(7)])
  expect((await reopened.get(image.reference))?.chainId).toBe(image.chainId)
  expect(await reopened.collect(new Set())).toEqual([])
  expect(await reopened.remove(image.reference)).toBe(true)
  expect(await reopened.collect(new Set([image.chainId]))).toEqual([])
  expect(await reopened.collect(new Set())).toEqual([image.chainId])
  expect(readdirSync(join(base, 'trees'))).toEqual([])
})

test('a crash before the tree is durable leaves no tree with a name', async () => {
  const base = newFolder()
  const failing = await newStore({ folder: base, syncTree: () => Promise.reject(new Error('power cut')) })
  await expect(importLayers([[file('a')]], {}, failing)).rejects.toThrow(/power cut/)
  expect(readdirSync(join(base, 'trees'))).toEqual([])
})

test('blobs are kept as they came, a docker archive gets a manifest, and what no image needs is collected', async () => {
  const base = newFolder()
  const store = await newStore({ folder: base })
  const content = { layers: [[file('a', 'hello')]], config: {} }
  const { files, manifestDigest } = await layoutFiles(content)
  const { image } = await importLayers(content.layers, {}, store)
  expect(image.blobs?.[0]?.digest).toBe(manifestDigest)
  for (const { digest, size } of image.blobs!) {
    const bytes = readFileSync(store.blobs.path(digest))
    expect(bytes.length).toBe(size)
    expect(bytes.equals(files.get(`blobs/sha256/${digest.slice(7)}`)!)).toBe(true)
  }
  files.delete('oci-layout')
  const path = join(newFolder(), 'docker.tar')
  const { layerTar } = await import('./image-writer.ts')
  writeFileSync(path, await layerTar([...files].map(([name, bytes]) => ({ path: name, content: bytes }))))
  const docker = await store.import('docker', await openArchive({ path, architecture }))
  const [manifest, config, layer] = docker.blobs!
  const made = JSON.parse(readFileSync(store.blobs.path(manifest!.digest), 'utf8'))
  expect(made).toMatchObject({ config: { digest: docker.digest }, layers: [{ digest: layer!.digest }] })
  expect(config!.digest).toBe(docker.digest)
  writeFileSync(join(store.blobs.folder, `${'a'.repeat(64)}.part`), 'half')
  await store.remove(image.reference)
  await store.collect(new Set(), 60_000)
  expect(readdirSync(store.blobs.folder)).toHaveLength(4)
  await store.remove('docker')
  await store.collect(new Set())
  expect(readdirSync(store.blobs.folder)).toEqual([])
})

test('a stored blob that is damaged is removed when it is found to be, so that the next try can fetch it', async () => {
  const store = await newStore()
  const { image } = await importLayers([[file('a', 'hello'.repeat(100))]], { compression: 'none' }, store)
  const layer = store.blobs.path(image.blobs![2]!.digest)
  const bytes = readFileSync(layer)
  bytes[600]! ^= 1
  writeFileSync(layer, bytes)
  await store.remove(image.reference)
  const damaged = { slice: { file: layer, offset: 0, length: bytes.length }, digest: image.blobs![2]!.digest }
  const source = {
    digest: image.digest,
    configDigest: image.configDigest,
    config: image.config,
    documents: { config: readFileSync(store.blobs.path(image.configDigest)) },
    layers: [{ ...damaged, diffId: image.config.rootfs.diff_ids[0]! }],
  }
  const reopened = await newStore()
  await expect(reopened.import('x', source)).rejects.toMatchObject({ code: 'IMAGE_DIGEST_MISMATCH' })
  await store.collect(new Set([]))
  writeFileSync(layer, bytes)
  await expect(store.import('x', source)).rejects.toMatchObject({ code: 'IMAGE_DIGEST_MISMATCH' })
  expect(existsSync(layer)).toBe(false)
})

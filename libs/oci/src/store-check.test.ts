import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { exportDockerArchive, exportLayout } from './image-export.ts'
import { openArchive, openLayout } from './image-source.ts'
import { writeImageArchive } from './image-writer.ts'
import { type ImageStore, openImageStore, type StoredImage } from './store.ts'
import { checkStore, verifyImage } from './store-check.ts'

const newFolder = (): string => mkdtempSync(join(tmpdir(), 'kiln-check-'))
const architecture = 'amd64'
const { signal } = new AbortController()

async function storeWith(
  ...names: string[]
): Promise<{ folder: string; store: ImageStore; images: StoredImage[] }> {
  const folder = newFolder()
  const store = await openImageStore({ folder, syncTree: async () => undefined })
  const images: StoredImage[] = []
  for (const name of names) {
    const path = join(newFolder(), 'image.tar')
    const layers = [[{ path: 'base', content: 'base' }], [{ path: name, content: name.repeat(1000) }]]
    await writeImageArchive(path, { layers, config: { Cmd: [name] } })
    images.push(await store.import(name, await openArchive({ path, architecture })))
  }
  return { folder, store, images }
}

function flipBit(path: string): void {
  const bytes = readFileSync(path)
  bytes[bytes.length >> 1]! ^= 1
  writeFileSync(path, bytes)
}

const check = (folder: string, repair = false, inUse = new Set<string>()) =>
  checkStore({ folder, repair, inUse, signal }).then((all) =>
    all.map(({ kind, path, repaired }) => `${kind} ${path}${repaired ? ' repaired' : ''}`),
  )

test('one flipped bit in any blob of an image is found, and so is a blob that is missing', async () => {
  const { store, images } = await storeWith('a')
  const image = images[0]!
  expect(await verifyImage(store.blobs.folder, image)).toEqual([])
  for (const { digest } of image.blobs!) {
    flipBit(store.blobs.path(digest))
    expect(await verifyImage(store.blobs.folder, image)).toEqual([{ digest, problem: 'damaged' }])
    flipBit(store.blobs.path(digest))
  }
  const { digest } = image.blobs![2]!
  const swapped = { ...image, blobs: image.blobs!.filter((each) => each.digest !== digest) }
  expect(await verifyImage(store.blobs.folder, swapped)).toEqual([{ digest, problem: 'unexpected' }])
  rmSync(store.blobs.path(digest))
  expect(await verifyImage(store.blobs.folder, image)).toEqual([{ digest, problem: 'missing' }])
})

test('a sound store has no findings; everything that is wrong with one is named and, if wanted, removed', async () => {
  const { folder, store, images } = await storeWith('a', 'b', 'c')
  expect(await check(folder)).toEqual([])
  const [a, b, c] = images as [StoredImage, StoredImage, StoredImage]
  const hex = (digest: string): string => digest.slice(7)
  flipBit(store.blobs.path(a.blobs![3]!.digest))
  const record = (reference: string): string =>
    readdirSync(join(folder, 'records')).find((name) =>
      readFileSync(join(folder, 'records', name), 'utf8').includes(`"reference":"${reference}"`),
    )!
  const [recordB, recordC] = [record('b'), record('c')]
  writeFileSync(join(folder, 'records', recordB), '{"cut off')
  rmSync(join(folder, 'trees', hex(c.chainId)), { recursive: true })
  mkdirSync(join(folder, 'trees/new-1'))
  writeFileSync(join(folder, 'blobs', `${'e'.repeat(64)}.part`), 'x')
  writeFileSync(join(folder, 'records/x.json.new-1-a'), '{')
  const found = [
    `damaged records/${recordB}`,
    `missing records/${recordC}`,
    'half-made records/x.json.new-1-a',
    'half-made trees/new-1',
    `unreferenced trees/${hex(b.chainId)}`,
    `damaged blobs/${hex(a.blobs![3]!.digest)}`,
    `half-made blobs/${'e'.repeat(64)}.part`,
    // Manifest, config and own layer of each; the base is also of a.
    ...[b, c].flatMap(({ blobs }) =>
      [blobs![0]!, blobs![1]!, blobs![3]!].map(({ digest }) => `unreferenced blobs/${hex(digest)}`),
    ),
  ].sort()
  expect((await check(folder)).sort()).toEqual(found)
  expect((await check(folder)).sort()).toEqual(found)
  expect((await check(folder, true)).sort()).toEqual(found.map((line) => `${line} repaired`))
  // What is left needs the registry.
  expect(await check(folder, true)).toEqual([`missing blobs/${hex(a.blobs![3]!.digest)}`])
  expect((await store.list()).map(({ reference }) => reference)).toEqual(['a'])
  expect(existsSync(store.treeOf(a))).toBe(true)
})

test('a tree that a container runs on is in use, even if no record names it', async () => {
  const { folder, store, images } = await storeWith('a')
  await store.remove('a')
  expect(
    (await check(folder, true, new Set([images[0]!.chainId]))).some((line) => line.includes('trees')),
  ).toBe(false)
  expect(existsSync(store.treeOf(images[0]!))).toBe(true)
})

test.each(['none', 'gzip', 'zstd'] as const)(
  'an image with layers of %s is exported as layout and as docker archive, and read back the same',
  async (compression) => {
    const path = join(newFolder(), 'image.tar')
    const layers = [
      [{ path: 'a', content: 'one' }],
      [{ path: 'b', content: 'two'.repeat(9000) }],
      [{ path: 'a', content: 'one' }],
    ]
    await writeImageArchive(path, { layers, config: { Cmd: ['/a'] }, compression })
    const store = await openImageStore({ folder: newFolder(), syncTree: async () => undefined })
    const image = await store.import('x', await openArchive({ path, architecture }))
    const wanted = { blobsFolder: store.blobs.folder, image, signal }
    const folder = newFolder()
    await exportLayout({ ...wanted, target: join(folder, 'layout'), name: 'v1' })
    await exportDockerArchive({ ...wanted, target: join(folder, 'docker.tar'), name: 'x:v1' })
    expect(readdirSync(folder).sort()).toEqual(['docker.tar', 'layout'])
    const again = await openImageStore({ folder: newFolder(), syncTree: async () => undefined })
    const layout = await again.import(
      'l',
      await openLayout({ path: join(folder, 'layout'), tag: 'v1', architecture }),
    )
    expect(layout.digest).toBe(image.digest)
    expect(layout.blobs).toEqual(image.blobs)
    const docker = await again.import(
      'd',
      await openArchive({ path: join(folder, 'docker.tar'), architecture }),
    )
    expect([docker.configDigest, docker.chainId]).toEqual([image.configDigest, image.chainId])
    expect(readFileSync(join(again.treeOf(docker), 'b'), 'utf8')).toHaveLength(27_000)
    await expect(
      exportLayout({ ...wanted, target: join(folder, 'layout'), name: undefined }),
    ).rejects.toMatchObject({ code: 'EXPORT_TARGET_EXISTS' })
  },
)

test('an image with a damaged or missing blob, or without blobs, is not exported, and nothing is left', async () => {
  const { store, images } = await storeWith('a')
  const image = images[0]!
  const folder = newFolder()
  const both = async (which: StoredImage, code: string): Promise<void> => {
    const wanted = { blobsFolder: store.blobs.folder, image: which, signal, name: undefined }
    for (const write of [exportLayout, exportDockerArchive])
      await expect(write({ ...wanted, target: join(folder, 'out') })).rejects.toMatchObject({ code })
    expect(readdirSync(folder)).toEqual([])
  }
  const { blobs: _, ...old } = image
  await both(old, 'IMAGE_WITHOUT_BLOBS')
  for (const at of [0, 1]) {
    flipBit(store.blobs.path(image.blobs![at]!.digest))
    await both(image, 'IMAGE_DIGEST_MISMATCH')
    flipBit(store.blobs.path(image.blobs![at]!.digest))
  }
  writeFileSync(store.blobs.path(image.blobs![3]!.digest), 'other')
  await both(image, 'IMAGE_DIGEST_MISMATCH')
})

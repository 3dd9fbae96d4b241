import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { writeImageArchive } from '@kiln/oci'
import { createLog } from '@kiln/service'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type Images, type ImagesInUse, openImages } from './images.ts'

let folder: string
let images: Images

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'kiln-images-'))
  images = await openImages({
    folder: join(folder, 'store'),
    bootUrl: undefined,
    bytesMax: 1 << 20,
    registriesFile: '/nonexistent',
    registryAuthFile: '/nonexistent',
    imagePolicyFile: '/nonexistent',
    signal: new AbortController().signal,
    log: createLog('test', 'silent'),
  })
})

afterEach(() => rmSync(folder, { recursive: true }))

async function archive(name: string): Promise<string> {
  const file = join(folder, `${name}.tar`)
  const architecture = process.arch === 'arm64' ? 'arm64' : 'amd64'
  await writeImageArchive(file, { layers: [[{ path: name, content: name }]], architecture, config: {} })
  return `docker-archive:${file}`
}

const inUse = (...references: string[]): ImagesInUse => ({
  references: new Set(references),
  chains: new Set(),
})

test('images that no pod names are removed with their trees, others stay', async () => {
  const [used, unused] = [await archive('used'), await archive('unused')]
  const [kept, gone] = [
    await images.acquire(used, 'IfNotPresent'),
    await images.acquire(unused, 'IfNotPresent'),
  ]
  expect(await images.collect(() => inUse(used), 3_600_000)).toEqual([])
  expect(await images.collect(() => inUse(used), 0)).toEqual([unused])
  expect([kept, gone].map((image) => existsSync(images.treeOf(image)))).toEqual([true, false])
})

test('an image that a pod begins to use while others are removed is kept', async () => {
  const [first, second] = [await archive('first'), await archive('second')]
  for (const reference of [first, second]) await images.acquire(reference, 'IfNotPresent')
  let asked = 0
  const removed = await images.collect(() => (asked++ === 0 ? inUse() : inUse(first, second)), 0)
  expect(removed).toHaveLength(1)
})

test('a pull that begins during a collection has its tree afterwards', async () => {
  const [old, fresh] = [await archive('old'), await archive('fresh')]
  await images.acquire(old, 'IfNotPresent')
  let pulled: ReturnType<Images['acquire']> | undefined
  const collecting = images.collect(() => {
    pulled ??= images.acquire(fresh, 'IfNotPresent')
    return inUse()
  }, 0)
  expect(await collecting).toEqual([old])
  expect(existsSync(images.treeOf((await pulled)!))).toBe(true)
})

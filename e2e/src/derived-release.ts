import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { copyFile, link, mkdir, open, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createReleaseKey, signManifest } from '@kiln/pki'
import { ReleaseManifest } from '@kiln/schemas'

/**
 * Makes a folder with another release of the same image: new version, and optionally another `usr.img` that the
 * manifest agrees with. For stories about releases; images that behave otherwise are variants of the image build.
 */
export async function deriveRelease(at: {
  from: string
  to: string
  version: string
  /** Changes the image; its sha256 goes into the manifest, its verity root hash stays. */
  damage?: (usrImage: string) => Promise<void>
}): Promise<string> {
  const manifest = ReleaseManifest.parse(JSON.parse(await readFile(join(at.from, 'manifest.json'), 'utf8')))
  await rm(at.to, { recursive: true, force: true })
  await mkdir(at.to, { recursive: true })
  for (const part of manifest.parts) {
    const path = join(at.to, part.name)
    if (part.name === 'usr.img' && at.damage) {
      await copyFile(join(at.from, part.name), path)
      await at.damage(path)
      part.sha256 = await sha256Of(path)
    } else await link(join(at.from, part.name), path).catch(() => copyFile(join(at.from, part.name), path))
  }
  await writeFile(
    join(at.to, 'manifest.json'),
    JSON.stringify({ ...manifest, version: at.version }, null, 2) + '\n',
  )
  return at.to
}

const blockBytes = 4096
/** Every so many blocks one is damaged: a boot reads thousands, so it meets one soon. */
const damageEvery = 16
/** The superblock stays, so that the file system still mounts. */
const sparedBytes = 1024 * 1024

/** Flips a byte in many blocks of an image, so that verity finds corruption as soon as it is read. */
export async function damageBlocks(path: string, dataBytes: number): Promise<void> {
  const file = await open(path, 'r+')
  try {
    const byte = Buffer.alloc(1)
    for (let at = sparedBytes; at < dataBytes; at += damageEvery * blockBytes) {
      await file.read(byte, 0, 1, at)
      byte[0] = byte[0]! ^ 0xff
      await file.write(byte, 0, 1, at)
    }
  } finally {
    await file.close()
  }
}

/** Replaces a file by a damaged copy of itself: the release it was linked from stays whole. */
export async function damageInPlace(path: string, offset: number): Promise<void> {
  const copy = `${path}.damaged`
  await copyFile(path, copy)
  const file = await open(copy, 'r+')
  try {
    await file.write(Buffer.alloc(blockBytes, 0xa5), 0, blockBytes, offset)
  } finally {
    await file.close()
  }
  await rename(copy, path)
}

/** Signs a staged release with a key that nobody trusts. */
export async function signWithStrangersKey(folder: string): Promise<void> {
  const manifest = await readFile(join(folder, 'manifest.json'))
  const { privateKey } = createReleaseKey()
  await writeFile(join(folder, 'manifest.json.sig'), signManifest(manifest, privateKey) + '\n')
}

async function sha256Of(path: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer)
  return hash.digest('hex')
}

import { existsSync } from 'node:fs'
import { copyFile, link, mkdir, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { createReleaseKey, releasePublicKey, signManifest } from '@kiln/pki'
import { ReleaseManifest } from '@kiln/schemas'
import { atomicWrite, Fault } from '@kiln/service'
import type { StateFolder } from './state-folder.ts'

/** Version of the image that a new cluster is installed with. */
export const firstVersion = '0.1.0'

/** Version that demonstrations update to. */
export const secondVersion = '0.2.0'

/** How long a signed release may be installed. */
const signedDays = 365
const dayMs = 86_400_000

/** The manifest's bytes with a new end, and their signature. */
export function signedManifest(at: { manifest: string; key: string; now: Date; days: number }): {
  manifest: string
  signature: string
} {
  const parsed = parseManifest(at.manifest)
  const expiresAt = new Date(at.now.getTime() + at.days * dayMs).toISOString()
  const manifest = JSON.stringify({ ...parsed, expiresAt }, null, 2) + '\n'
  return { manifest, signature: signManifest(Buffer.from(manifest), at.key) + '\n' }
}

/** Signs the release in a folder: writes the manifest with its new end, then the signature. */
export async function signReleaseFolder(folder: string, key: string, days = signedDays): Promise<void> {
  const path = join(folder, 'manifest.json')
  const manifest = await readManifest(folder)
  const signed = signedManifest({ manifest, key, now: new Date(), days })
  await rm(`${path}.sig`, { force: true })
  await atomicWrite(path, signed.manifest)
  await atomicWrite(`${path}.sig`, signed.signature)
}

/** The key that signs a virtual cluster's releases, made with the cluster; returns its public half too. */
export async function releaseKeyOf(state: StateFolder): Promise<{ privateKey: string; publicKey: string }> {
  if (existsSync(state.releaseKey)) {
    const privateKey = await readFile(state.releaseKey, 'utf8')
    return { privateKey, publicKey: releasePublicKey(privateKey) }
  }
  const key = createReleaseKey()
  await atomicWrite(state.releaseKey, key.privateKey, { mode: 0o600 })
  return key
}

/**
 * Puts a built release below the boot server's assets, signed; one of that version is replaced as a whole, or not at all. Large parts are
 * hard links where the file system allows it. `expected` is the version it must have.
 */
export async function stageRelease(
  state: StateFolder,
  imageFolder: string,
  key: string,
  expected?: string,
): Promise<string> {
  const { version, parts } = parseManifest(await readManifest(imageFolder))
  if (expected !== undefined && version !== expected)
    throw new Fault('USAGE', `${imageFolder} holds version ${version}, not ${expected}`)
  const target = join(state.assets, 'releases', version)
  const staging = join(state.bootData, `staging-${version}`)
  await rm(staging, { recursive: true, force: true })
  await mkdir(staging, { recursive: true })
  try {
    for (const { name } of parts) {
      const from = join(imageFolder, name)
      const place = join(staging, name)
      await link(from, place)
        .catch(() => copyFile(from, place))
        .catch((cause: unknown) => {
          throw new Fault('RELEASE_UNKNOWN', `the release in ${imageFolder} has no ${name}`, { cause })
        })
    }
    await copyFile(join(imageFolder, 'manifest.json'), join(staging, 'manifest.json'))
    await signReleaseFolder(staging, key)
    await mkdir(join(target, '..'), { recursive: true })
    await rm(target, { recursive: true, force: true })
    await rename(staging, target)
  } finally {
    await rm(staging, { recursive: true, force: true })
  }
  return version
}

async function readManifest(folder: string): Promise<string> {
  try {
    return await readFile(join(folder, 'manifest.json'), 'utf8')
  } catch (cause) {
    throw new Fault('RELEASE_UNKNOWN', `no release in ${folder}`, { cause })
  }
}

function parseManifest(text: string): ReleaseManifest {
  try {
    return ReleaseManifest.parse(JSON.parse(text))
  } catch (cause) {
    throw new Fault('RELEASE_MANIFEST_INVALID', 'the manifest of the release cannot be read', { cause })
  }
}

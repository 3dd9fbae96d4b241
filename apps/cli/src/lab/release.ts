import { existsSync } from 'node:fs'
import { copyFile, link, mkdir, readFile, rm } from 'node:fs/promises'
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
  let parsed: ReleaseManifest
  try {
    parsed = ReleaseManifest.parse(JSON.parse(at.manifest))
  } catch (cause) {
    throw new Fault('RELEASE_MANIFEST_INVALID', 'the manifest of the release cannot be read', { cause })
  }
  const expiresAt = new Date(at.now.getTime() + at.days * dayMs).toISOString()
  const manifest = JSON.stringify({ ...parsed, expiresAt }, null, 2) + '\n'
  return { manifest, signature: signManifest(Buffer.from(manifest), at.key) + '\n' }
}

/** Signs the release in a folder: writes the manifest with its new end, then the signature. */
export async function signReleaseFolder(folder: string, key: string, days = signedDays): Promise<void> {
  const path = join(folder, 'manifest.json')
  let manifest: string
  try {
    manifest = await readFile(path, 'utf8')
  } catch (cause) {
    throw new Fault('RELEASE_UNKNOWN', `no release in ${folder}`, { cause })
  }
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
 * Puts a built release below the boot server's assets and signs it there. Large parts are hard links where the file
 * system allows it.
 */
export async function stageRelease(state: StateFolder, imageFolder: string, key: string): Promise<string> {
  const manifest = ReleaseManifest.parse(
    JSON.parse(await readFile(join(imageFolder, 'manifest.json'), 'utf8')),
  )
  const target = join(state.assets, 'releases', manifest.version)
  await mkdir(target, { recursive: true })
  for (const { name } of manifest.parts) {
    const path = join(target, name)
    await rm(path, { force: true })
    await link(join(imageFolder, name), path).catch(() => copyFile(join(imageFolder, name), path))
  }
  await copyFile(join(imageFolder, 'manifest.json'), join(target, 'manifest.json'))
  await signReleaseFolder(target, key)
  return manifest.version
}

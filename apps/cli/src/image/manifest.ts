import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { ReleaseManifest } from '@kiln/schemas'
import { fileSha256 } from './apt-archive.ts'
import type { Lock, Recipe } from './recipe.ts'
import type { UsrImage } from './usr-image.ts'

export type ImageManifest = ReleaseManifest

/** Files of a release (docs/reference/seams.md), in the order they are written to a disk. */
export const releaseParts = ['vmlinuz', 'initrd', 'usr.img', 'systemd-bootx64.efi'] as const

/** Days an unsigned manifest is good for; whoever signs sets the real end. */
const unsignedDays = 365

/** The manifest of the parts in `dir`. Its time is the lock's, so the same inputs give the same manifest. */
export async function imageManifest(
  plan: { version: string; recipe: Recipe; lock: Lock },
  image: UsrImage,
  dir: string,
): Promise<ImageManifest> {
  const parts: ImageManifest['parts'] = []
  for (const name of releaseParts) {
    const path = join(dir, name)
    parts.push({ name, sizeBytes: (await stat(path)).size, sha256: await fileSha256(path) })
  }
  const createdMs = plan.lock.sourceDateEpoch * 1000
  return ReleaseManifest.parse({
    formatVersion: 1,
    version: plan.version,
    arch: 'x86_64',
    createdAt: new Date(createdMs).toISOString(),
    expiresAt: new Date(createdMs + unsignedDays * 86_400_000).toISOString(),
    usrRootHash: image.rootHash,
    usrHashOffset: image.hashOffset,
    kernelArguments: plan.recipe.kernelArguments,
    parts,
  })
}

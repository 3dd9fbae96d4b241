import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { verifyManifest } from '@kiln/pki/release'
import { type ReleaseManifest, ReleaseVersion } from '@kiln/schemas'
import { Fault } from '@kiln/service'

/** Releases below the assets: `releases/VERSION/`. A manifest is only used when a release key signed it. */
export type ReleaseShelf = {
  manifest(version: string, keys: ReadonlyMap<string, string>): Promise<ReleaseManifest>
}

/** Reads and checks manifests; parts that are missing or of another size count as no release. */
export function openReleaseShelf(assetsPath: string): ReleaseShelf {
  return {
    async manifest(version, keys) {
      if (assetsPath === '' || !ReleaseVersion.safeParse(version).success) throw unknown(version)
      const folder = join(assetsPath, 'releases', version)
      const [bytes, signature] = await Promise.all([
        readFile(join(folder, 'manifest.json')),
        readFile(join(folder, 'manifest.json.sig'), 'utf8'),
      ]).catch((cause: unknown) => {
        throw unknown(version, cause)
      })
      const manifest = verifyManifest(bytes, signature, [...keys.values()], new Date())
      if (manifest.version !== version) {
        throw new Fault(
          'RELEASE_MANIFEST_INVALID',
          `the manifest in ${version} is of release ${manifest.version}`,
        )
      }
      for (const part of manifest.parts) {
        const size = await stat(join(folder, part.name)).then(
          (found) => found.size,
          () => undefined,
        )
        if (size !== part.sizeBytes) {
          const found = size === undefined ? 'missing' : `${size} bytes instead of ${part.sizeBytes}`
          throw new Fault('RELEASE_UNKNOWN', `release ${version} is incomplete: ${part.name} is ${found}`)
        }
      }
      return manifest
    },
  }
}

const unknown = (version: string, cause?: unknown): Fault =>
  new Fault('RELEASE_UNKNOWN', `no release ${version.slice(0, 128)} below the assets`, { cause })

import { createHash } from 'node:crypto'
import { verifyManifest } from '@kiln/pki'
import { ReleaseManifest } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import { fetchResource, shown } from './fetch-resource.ts'
import type { Run } from './run.ts'

/** The release this machine gets: its manifest, and where its parts are. */
export type Release = { manifest: ReleaseManifest; url: string }

/** Time to fetch one part of a release, retries included. */
const partTimeoutMs = 300_000

/**
 * Fetches the manifest of the release that this machine was booted from. It is verified with the release keys of the
 * config; a config without keys leaves the machine with what plain HTTP promises, and that is said.
 */
export async function fetchRelease(publicKeys: string[], run: Run): Promise<Release | undefined> {
  const url = releaseUrl(run)
  if (url === undefined) return undefined
  const bytes = await fetchPart(`${url}/manifest.json`, run)
  const manifest =
    publicKeys.length > 0 ? await signed(url, bytes, publicKeys, run) : unsigned(url, bytes, run)
  if (run.kernel.usrHash !== undefined && run.kernel.usrHash !== manifest.usrRootHash) {
    throw new Fault('RELEASE_MISMATCH', `${shown(url)} is another image than the one this machine runs`, {
      remedy: 'start the machine again',
    })
  }
  return { manifest, url }
}

async function signed(url: string, bytes: Buffer, publicKeys: string[], run: Run): Promise<ReleaseManifest> {
  const signature = await fetchPart(`${url}/manifest.json.sig`, run)
  return verifyManifest(bytes, signature.toString('utf8'), publicKeys, run.now())
}

function unsigned(url: string, bytes: Buffer, run: Run): ReleaseManifest {
  run.warn(`image: ${shown(url)} is not verified: the config has no release keys`)
  try {
    return ReleaseManifest.parse(JSON.parse(bytes.toString('utf8')))
  } catch (cause) {
    throw new Fault('RELEASE_MANIFEST_INVALID', `${shown(url)}/manifest.json is not a manifest`, { cause })
  }
}

function releaseUrl(run: Run): string | undefined {
  const { usrUrl } = run.kernel
  return run.options.releaseUrl ?? usrUrl?.slice(0, usrUrl.lastIndexOf('/'))
}

/** One part of a release, checked against the manifest. */
export async function fetchReleasePart(release: Release, name: string, run: Run): Promise<Buffer> {
  const part = partOf(release.manifest, name)
  const bytes = await fetchPart(`${release.url}/${name}`, run)
  const sum = createHash('sha256').update(bytes).digest('hex')
  if (sum !== part.sha256) {
    throw new Fault(
      'RELEASE_PART_CORRUPT',
      `${shown(release.url)}/${name} has sha256 ${sum}, not ${part.sha256}`,
      {
        remedy: 'publish the release again',
      },
    )
  }
  return bytes
}

export function partOf(manifest: ReleaseManifest, name: string): ReleaseManifest['parts'][number] {
  const part = manifest.parts.find((each) => each.name === name)
  if (!part) throw new Fault('RELEASE_MANIFEST_INVALID', `release ${manifest.version} has no part ${name}`)
  return part
}

function fetchPart(source: string, run: Run): Promise<Buffer> {
  return fetchResource({ source }, run.fetcher, { ...run.settings, totalTimeoutMs: partTimeoutMs })
}

import { isAbsolute } from 'node:path'
import { Fault } from '@kiln/service'

/** Where an image comes from. `pin` is the sha256 that the file (archives) or the manifest (layouts) must have. */
export type ImageReference =
  | { kind: 'layout'; path: string; tag?: string; pin?: string }
  | { kind: 'archive'; path: string; pin?: string }
  | { kind: 'url'; url: string; pin?: string }

/**
 * Reads an image reference: `oci:PATH[:TAG]`, `docker-archive:PATH`, `oci-archive:PATH`, `boot://NAME` (an asset of
 * the boot server) or `http(s)://...`, each with an optional `@sha256:HEX`.
 */
export function parseImageReference(text: string, bootUrl: string | undefined): ImageReference {
  const [, rest, pin] = /^(.*?)(?:@sha256:([0-9a-f]{64}))?$/s.exec(text) ?? []
  const [, scheme, place] = /^(oci|docker-archive|oci-archive|boot|https?):(.*)$/s.exec(rest ?? '') ?? []
  if (scheme === undefined || place === undefined) {
    throw new Fault('IMAGE_REFERENCE_UNSUPPORTED', `cannot use image reference ${text}`, {
      remedy: 'use boot://NAME, http://, https://, oci:PATH, docker-archive:PATH or oci-archive:PATH',
    })
  }
  const pinned = pin === undefined ? {} : { pin }
  if (scheme === 'http' || scheme === 'https') return { kind: 'url', url: `${scheme}:${place}`, ...pinned }
  if (scheme === 'boot') return { kind: 'url', url: assetUrl(text, place, bootUrl), ...pinned }
  const [, path, tag] = /^(\/[^:]*)(?::([\w][\w.-]{0,127}))?$/.exec(place) ?? []
  if (path === undefined || !isAbsolute(path) || path.split('/').includes('..') || (tag && scheme !== 'oci'))
    throw new Fault('IMAGE_REFERENCE_INVALID', `image reference ${text} needs an absolute path`)
  if (scheme === 'oci') return { kind: 'layout', path, ...(tag === undefined ? {} : { tag }), ...pinned }
  return { kind: 'archive', path, ...pinned }
}

function assetUrl(text: string, place: string, bootUrl: string | undefined): string {
  const name = place.replace(/^\/\//, '')
  const segments = name.split('/')
  if (!place.startsWith('//') || segments.some((segment) => !/^[\w+=@%-][\w.+=@%-]*$/.test(segment)))
    throw new Fault('IMAGE_REFERENCE_INVALID', `image reference ${text} is not boot://NAME`)
  if (bootUrl === undefined)
    throw new Fault(
      'IMAGE_REFERENCE_UNSUPPORTED',
      `image ${text} needs a boot server, and this machine has none`,
    )
  return `${bootUrl.replace(/\/$/, '')}/assets/${name}`
}

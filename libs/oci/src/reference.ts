import { isAbsolute } from 'node:path'
import { Fault } from '@kiln/service'

/** Where an image comes from. `pin` is the sha256 that the file (archives) or the manifest (layouts) must have. */
export type ImageReference =
  | { kind: 'layout'; path: string; tag?: string; pin?: string }
  | { kind: 'archive'; path: string; pin?: string }
  | { kind: 'url'; url: string; pin?: string }
  | ({ kind: 'registry' } & RegistryReference)

/** An image in a registry (distribution-spec, "Pulling manifests"). A pin wins over the tag. */
export type RegistryReference = { registry: string; repository: string; tag: string; pin?: string }

const host = /^(?:[a-zA-Z0-9-]+(?:\.[a-zA-Z0-9-]+)*|\[[0-9a-fA-F:]+\])(?::\d{1,5})?$/
const repositoryPath = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/

/**
 * Reads an image reference: `oci:PATH[:TAG]`, `docker-archive:PATH`, `oci-archive:PATH`, `boot://NAME` (an asset of
 * the boot server), `http(s)://...`, or an image of a registry as Kubernetes writes it, `[docker://][HOST/]NAME[:TAG]`, each
 * with an optional `@sha256:HEX`. Names without a host are Docker Hub's.
 */
export function parseImageReference(text: string, bootUrl: string | undefined): ImageReference {
  const [, rest, pin] = /^(.*?)(?:@sha256:([0-9a-f]{64}))?$/s.exec(text) ?? []
  const [, scheme, place] = /^(oci|docker-archive|oci-archive|boot|https?):(.*)$/s.exec(rest ?? '') ?? []
  const pinned = pin === undefined ? {} : { pin }
  if (scheme === undefined || place === undefined) {
    return { kind: 'registry', ...registryReference(text, rest ?? ''), ...pinned }
  }
  if (scheme === 'http' || scheme === 'https') return { kind: 'url', url: `${scheme}:${place}`, ...pinned }
  if (scheme === 'boot') return { kind: 'url', url: assetUrl(text, place, bootUrl), ...pinned }
  const [, path, tag] = /^(\/[^:]*)(?::([\w][\w.-]{0,127}))?$/.exec(place) ?? []
  if (path === undefined || !isAbsolute(path) || path.split('/').includes('..') || (tag && scheme !== 'oci'))
    throw new Fault('IMAGE_REFERENCE_INVALID', `image reference ${text} needs an absolute path`)
  if (scheme === 'oci') return { kind: 'layout', path, ...(tag === undefined ? {} : { tag }), ...pinned }
  return { kind: 'archive', path, ...pinned }
}

function registryReference(text: string, place: string): RegistryReference {
  const name = place.replace(/^docker:\/\//, '')
  const [first = '', ...more] = name.split('/')
  const hasHost = more.length > 0 && (/[.:[]/.test(first) || first === 'localhost')
  const registry = hasHost ? first : 'docker.io'
  const path = hasHost ? more.join('/') : name
  const [, repository = '', tag = 'latest'] = /^(.*?)(?::([\w][\w.-]{0,127}))?$/s.exec(path) ?? []
  if (!host.test(registry) || !repositoryPath.test(repository) || repository.length > 255) {
    throw new Fault('IMAGE_REFERENCE_INVALID', `cannot use image reference ${text}`, {
      remedy:
        'write [HOST/]NAME[:TAG], boot://NAME, http://, https://, oci:PATH, docker-archive:PATH or oci-archive:PATH',
    })
  }
  const isOfficial = registry === 'docker.io' && !repository.includes('/')
  return { registry, repository: isOfficial ? `library/${repository}` : repository, tag }
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

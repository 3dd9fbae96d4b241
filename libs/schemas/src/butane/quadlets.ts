import { setContents, type Translation } from './base.ts'
import { addCommonOrigin, addOrigin, type ConfigPath } from './config-path.ts'
import type { Decoded } from './decode.ts'
import { readLocal } from './files.ts'
import { NodeIndex, nodeExistsMessage } from './trees.ts'

const extensions = ['container', 'volume', 'network', 'kube', 'image', 'build', 'pod', 'artifact']
const adminFolder = '/etc/containers/systemd'

export const hasQuadletExtension = (name: string): boolean =>
  extensions.some((extension) => name.endsWith(`.${extension}`))

/** `app@one.container` is an instance of `app@.container`; undefined for what is no instance. */
export function quadletTemplate(name: string): string | undefined {
  const at = name.indexOf('@')
  const dot = name.indexOf('.')
  if (at < 0 || at + 1 === dot) return undefined
  return `${name.slice(0, at)}@.${name.slice(dot + 1)}`
}

/** `systemd.quadlets`: files that Podman's generator reads (podman-systemd.unit(5)); an instance is a link. */
export function addQuadlets(source: Decoded, config: Decoded, how: Translation): void {
  const quadlets = (source['systemd']?.quadlets ?? []) as Decoded[]
  if (quadlets.length === 0) return
  const nodes = new NodeIndex(config)
  for (const [index, quadlet] of quadlets.entries()) {
    const at: ConfigPath = ['systemd', 'quadlets', index]
    const name = (quadlet['name'] ?? '') as string
    const path = `${adminFolder}${quadlet['rootful'] === true ? '' : '/users'}/${name}`
    if (nodes.has(path)) {
      how.findings.push({ space: 'yaml', severity: 'error', path: at, message: nodeExistsMessage })
      continue
    }
    const template = quadletTemplate(name)
    if (template !== undefined) {
      const link = nodes.add('links', { path, target: template }, at, how)
      addOrigin(how.origins, [...at, 'name'], ['storage', 'links', link, 'path'])
      continue
    }
    const node: Decoded = { path }
    const file = nodes.add('files', node, at, how)
    addOrigin(how.origins, [...at, 'name'], ['storage', 'files', file, 'path'])
    addQuadletContents(quadlet, node, at, ['storage', 'files', file, 'contents'], how)
  }
}

function addQuadletContents(
  quadlet: Decoded,
  node: Decoded,
  at: ConfigPath,
  to: ConfigPath,
  how: Translation,
): void {
  let bytes: Uint8Array = Buffer.from((quadlet['contents'] ?? '') as string, 'utf8')
  let from: ConfigPath = [...at, 'contents']
  if (quadlet['contents_local']) {
    from = [...at, 'contents_local']
    const read = readLocal(how.files, quadlet['contents_local'])
    if (!read.ok) {
      how.findings.push({ space: 'yaml', severity: 'error', path: from, message: read.message })
      return
    }
    bytes = read.bytes
  }
  const contents: Decoded = {}
  setContents(contents, bytes, how)
  node['contents'] = contents
  addCommonOrigin(how.origins, from, to, contents)
}

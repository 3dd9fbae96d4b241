import {
  addCommonOrigin,
  addOrigin,
  type ConfigPath,
  camel,
  type Finding,
  type Origins,
} from './config-path.ts'
import { type Encoding, makeDataUrl } from './data-url.ts'
import type { Decoded, Shape, Struct } from './decode.ts'
import { type FilesPort, noFilesMessage, readLocal } from './files.ts'

/** What the sugar of a config may use. */
export type Translation = {
  files: FilesPort | undefined
  /** How contents may be encoded. */
  encoding: Encoding
  /** The version of the Ignition specification that is written. */
  ignition: string
  origins: Origins
  findings: Finding[]
}

/** Fields that are only sugar and have no counterpart in Ignition. */
const sugar = new Set(['inline', 'local', 'contents_local', 'ssh_authorized_keys_local', 'with_mount_unit'])

/** Fields that are there even when they are empty, for the rules of Ignition to tell of. */
const required: Record<string, string[]> = {
  directory: ['path'],
  file: ['path'],
  link: ['path'],
  disk: ['device'],
  filesystem: ['device'],
  raid: ['name'],
  luks: ['name'],
  unit: ['name'],
  dropin: ['name'],
  user: ['name'],
  group: ['name'],
  tang: ['url'],
  header: ['name'],
}

/** Before Ignition 3.3 these could not be left out. */
const requiredEarlier: Record<string, string[]> = { link: ['target'], raid: ['level'] }

/** The sections that carry over to Ignition: names in its spelling, sugar within them resolved. */
export function translateBase(source: Decoded, shape: Struct, how: Translation): Decoded {
  const config: Decoded = { ignition: {} }
  for (const section of ['ignition', 'kernel_arguments', 'passwd', 'storage', 'systemd']) {
    const field = shape.fields[section]
    const value = source[section]
    if (!field || value === undefined) continue
    const carried = carry(value, field, [section], [camel(section)], how)
    if (!isEmpty(carried)) config[camel(section)] = carried
  }
  config['ignition'] = { ...config['ignition'], version: how.ignition }
  addOrigin(how.origins, ['version'], ['ignition', 'version'])
  addOrigin(how.origins, ['ignition'], ['ignition'])
  return config
}

/** Also structures that hold only empty ones are nothing. */
function isEmpty(value: unknown): boolean {
  if (Array.isArray(value)) return value.length === 0
  return typeof value === 'object' && value !== null && Object.keys(value).length === 0
}

function carry(value: unknown, shape: Shape, from: ConfigPath, to: ConfigPath, how: Translation): unknown {
  addOrigin(how.origins, from, to)
  if (shape.kind === 'list') {
    return (value as unknown[]).map((item, index) =>
      carry(item, shape.of, [...from, index], [...to, index], how),
    )
  }
  return shape.kind === 'struct' ? carryStruct(value as Decoded, shape, from, to, how) : value
}

function carryStruct(
  value: Decoded,
  shape: Struct,
  from: ConfigPath,
  to: ConfigPath,
  how: Translation,
): Decoded {
  const carried: Decoded = {}
  for (const [name, field] of Object.entries(shape.fields)) {
    const own = value[name]
    if (own === undefined || sugar.has(name)) continue
    if (shape.name === 'storage' && name === 'trees') continue
    if (shape.name === 'systemd' && name === 'quadlets') continue
    const child = carry(own, field, [...from, name], [...to, camel(name)], how)
    if (!isEmpty(child)) carried[camel(name)] = child
  }
  const earlier = how.ignition < '3.3.0' ? (requiredEarlier[shape.name] ?? []) : []
  for (const name of [...(required[shape.name] ?? []), ...earlier]) {
    carried[name] ??= ''
    addOrigin(how.origins, [...from, name], [...to, name])
  }
  switch (shape.name) {
    case 'resource':
      addContents(carried, value, from, to, how)
      break
    case 'unit':
    case 'dropin':
      addLocalContents(carried, value, from, to, how)
      break
    case 'user':
      addLocalKeys(carried, value, from, to, how)
      break
    default:
  }
  return carried
}

/** `inline` and `local`: the contents become a data URL. */
function addContents(
  carried: Decoded,
  value: Decoded,
  from: ConfigPath,
  to: ConfigPath,
  how: Translation,
): void {
  for (const field of ['local', 'inline'] as const) {
    if (value[field] === undefined) continue
    const at = [...from, field]
    let bytes: Uint8Array = field === 'inline' ? value[field] : new Uint8Array()
    if (field === 'local') {
      const read = readLocal(how.files, value[field])
      if (!read.ok) {
        how.findings.push({ space: 'yaml', severity: 'error', path: at, message: read.message })
        continue
      }
      bytes = read.bytes
    }
    setContents(carried, bytes, how)
    addOrigin(how.origins, at, [...to, 'source'])
    if (value['compression'] === undefined) addOrigin(how.origins, at, [...to, 'compression'])
  }
}

/** Puts bytes into a resource; what it says of compression is kept if the user said it. */
export function setContents(resource: Decoded, bytes: Uint8Array, how: { encoding: Encoding }): void {
  const url = makeDataUrl(bytes, { compression: resource['compression'], encoding: how.encoding })
  resource['source'] = url.source
  if (url.compression !== undefined) resource['compression'] = url.compression
}

/** `contents_local` of a unit or a dropin. */
function addLocalContents(
  carried: Decoded,
  value: Decoded,
  from: ConfigPath,
  to: ConfigPath,
  how: Translation,
): void {
  if (!value['contents_local']) return
  const at = [...from, 'contents_local']
  const read = readLocal(how.files, value['contents_local'])
  if (!read.ok) {
    how.findings.push({ space: 'yaml', severity: 'error', path: at, message: read.message })
    return
  }
  carried['contents'] = Buffer.from(read.bytes).toString('utf8')
  addOrigin(how.origins, at, [...to, 'contents'])
}

/** `ssh_authorized_keys_local`: a key a line. */
function addLocalKeys(
  carried: Decoded,
  value: Decoded,
  from: ConfigPath,
  to: ConfigPath,
  how: Translation,
): void {
  const names = (value['ssh_authorized_keys_local'] ?? []) as string[]
  if (names.length === 0) return
  const at = [...from, 'ssh_authorized_keys_local']
  if (!how.files) {
    how.findings.push({ space: 'yaml', severity: 'error', path: at, message: noFilesMessage })
    return
  }
  carried['sshAuthorizedKeys'] ??= []
  const keys = carried['sshAuthorizedKeys'] as string[]
  addOrigin(how.origins, at, [...to, 'sshAuthorizedKeys'])
  for (const [index, name] of names.entries()) {
    const read = readLocal(how.files, name)
    if (!read.ok) {
      how.findings.push({ space: 'yaml', severity: 'error', path: [...at, index], message: read.message })
      continue
    }
    for (const line of Buffer.from(read.bytes).toString('utf8').split(/\r?\n/)) {
      if (line === '') continue
      addOrigin(how.origins, [...at, index], [...to, 'sshAuthorizedKeys', keys.length])
      keys.push(line)
    }
  }
  if (keys.length === 0) delete carried['sshAuthorizedKeys']
}

/** Adds an entry to a list of the config that sugar makes, and says where it came from. */
export function appendMade(
  config: Decoded,
  list: readonly [section: string, name: string],
  entry: Decoded,
  from: ConfigPath,
  origins: Origins,
): number {
  config[list[0]] ??= {}
  const section = config[list[0]] as Decoded
  section[list[1]] ??= []
  const entries = section[list[1]] as Decoded[]
  if (entries.length === 0) addOrigin(origins, from, list)
  addCommonOrigin(origins, from, [...list, entries.length], entry)
  return entries.push(entry) - 1
}

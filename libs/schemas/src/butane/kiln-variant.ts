import { type ClusterMember, clientUrl, kvEnvironment } from '../kv-environment.ts'
import type { parsePod } from '../pod.ts'
import { setContents, type Translation } from './base.ts'
import { addCommonOrigin, type ConfigPath } from './config-path.ts'
import type { Decoded } from './decode.ts'
import { readLocal } from './files.ts'
import { isTimeZone, timeZoneFile } from './time-zone.ts'
import { NodeIndex } from './trees.ts'

/** Reads a pod document and says what is wrong with it. */
export type ParsePod = typeof parsePod

const hostName = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/
const groupName = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/
const address = /^(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?!$)|$)){4}$/
const rebootWindow = /^(?:(?:Sun|Mon|Tue|Wed|Thu|Fri|Sat) )?(?:[01]\d|2[0-3]):[0-5]\d\+[1-9]\d{0,3}$/
const tokenPattern = /^[A-Za-z0-9._-]{1,128}$/
const membersMax = 9
const shortNames = ['name', 'image', 'args', 'environment', 'ports']

/**
 * The sections of the variant `kiln`: each becomes the file that a daemon of the image reads, as kiln-boot writes it
 * for the machines that it manages (docs/reference/butane-kiln.md).
 */
export function addKilnFiles(source: Decoded, config: Decoded, how: Translation, parse: ParsePod): void {
  const files = new KilnFiles(config, how)
  addMachine(source, files)
  addStore(source, files)
  addUpdate(source, files)
  addTimeZone(source, files)
  for (const [index, pod] of ((source['pods'] ?? []) as Decoded[]).entries()) {
    addPod(pod, ['pods', index], files, parse)
  }
}

class KilnFiles {
  readonly #nodes: NodeIndex
  readonly #how: Translation

  constructor(config: Decoded, how: Translation) {
    this.#nodes = new NodeIndex(config)
    this.#how = how
  }

  get local(): Translation['files'] {
    return this.#how.files
  }

  fail(path: ConfigPath, message: string): undefined {
    this.#how.findings.push({ space: 'yaml', severity: 'error', path, message })
  }

  add(from: ConfigPath, file: { path: string; bytes: Uint8Array | string; mode?: number }): undefined {
    if (this.#nodes.has(file.path)) return this.fail(from, `${file.path} is already written by this config`)
    const node: Decoded = { path: file.path, mode: file.mode ?? 0o644, overwrite: true, contents: {} }
    setContents(node['contents'], Buffer.from(file.bytes), this.#how)
    const index = this.#nodes.add('files', node, from, this.#how)
    addCommonOrigin(this.#how.origins, from, ['storage', 'files', index], node)
  }
}

function membersOf(source: Decoded): ClusterMember[] {
  const members = (source['store']?.members ?? {}) as Record<string, string>
  return Object.entries(members).map(([name, at]) => ({ name, address: at }))
}

/** `/etc/kiln/machine.json`, what every daemon knows of its machine. */
function addMachine(source: Decoded, files: KilnFiles): void {
  const machine = source['machine'] as Decoded | undefined
  const server = source['boot_server'] as Decoded | undefined
  const group = source['update']?.group as string | undefined
  if (!machine) {
    const missing =
      'needs the sections machine and boot_server: the daemons read all of it from /etc/kiln/machine.json'
    if (server) files.fail(['boot_server'], missing)
    if (group !== undefined) files.fail(['update', 'group'], missing)
    return
  }
  const name = (machine['name'] ?? '') as string
  if (!hostName.test(name)) files.fail(['machine', 'name'], 'must be a lower-case host name of one label')
  if (!address.test(machine['address'] ?? '')) files.fail(['machine', 'address'], 'must be an IPv4 address')
  if (group !== undefined && !groupName.test(group))
    files.fail(['update', 'group'], 'must be one path segment')
  if (!server) {
    files.fail(['machine'], 'needs the section boot_server: updates come from there')
    return
  }
  for (const [field, scheme] of [
    ['address', 'http:'],
    ['tls_address', 'https:'],
  ] as const) {
    const url = (server[field] ?? '') as string
    if (!URL.canParse(url) || new URL(url).protocol !== scheme) {
      files.fail(['boot_server', field], `must be a URL that begins with ${scheme}//`)
    }
  }
  const members = membersOf(source)
  const facts = {
    formatVersion: 1,
    id: name,
    name,
    group: group ?? 'default',
    role: members.some((member) => member.name === name) ? 'store' : 'worker',
    address: machine['address'],
    bootUrl: server['address'],
    bootTlsUrl: server['tls_address'],
    storeEndpoints: members.map((member) => clientUrl(member.address)),
  }
  files.add(['machine'], {
    path: '/etc/kiln/machine.json',
    bytes: `${JSON.stringify(facts, undefined, 2)}\n`,
  })
  files.add(['machine', 'name'], { path: '/etc/hostname', bytes: `${name}\n` })
}

/** `/etc/kiln/kv.env` on the machines that are members of the store. */
function addStore(source: Decoded, files: KilnFiles): void {
  const store = source['store'] as Decoded | undefined
  if (!store) return
  const members = membersOf(source)
  if (members.length === 0 || members.length > membersMax) {
    files.fail(['store', 'members'], `must name 1 to ${membersMax} members and their addresses`)
  }
  for (const member of members) {
    if (!hostName.test(member.name) || !address.test(member.address)) {
      files.fail(['store', 'members', member.name], 'must be a host name and its IPv4 address')
    }
  }
  if (new Set(members.map((member) => member.address)).size < members.length) {
    files.fail(['store', 'members'], 'two members cannot have one address')
  }
  const token = (store['token'] ?? '') as string
  if (!tokenPattern.test(token)) {
    files.fail(['store', 'token'], 'must be 1 to 128 letters, digits, dots, dashes: it keeps clusters apart')
  }
  const state = (store['state'] ?? 'new') as string
  if (state !== 'new' && state !== 'existing') files.fail(['store', 'state'], 'must be new or existing')
  const own = members.find((member) => member.name === source['machine']?.name)
  if (!source['machine'])
    files.fail(['store'], 'needs the section machine, whose name says which member this is')
  if (!own) return
  const environment = kvEnvironment({
    name: own.name,
    address: own.address,
    members,
    state: state === 'existing' ? 'existing' : 'new',
    token,
  })
  files.add(['store'], { path: '/etc/kiln/kv.env', bytes: environment })
}

/** `/etc/kiln/update.toml`. */
function addUpdate(source: Decoded, files: KilnFiles): void {
  const windows = source['update']?.reboot_windows as string[] | undefined
  if (!windows) return
  for (const [index, text] of windows.entries()) {
    if (!rebootWindow.test(text)) {
      files.fail(
        ['update', 'reboot_windows', index],
        'must be "[Day ]HH:MM+MINUTES" in UTC, as "Sat 02:00+120"',
      )
    }
  }
  const bytes = `rebootWindows = ${JSON.stringify(windows)}\n`
  files.add(['update', 'reboot_windows'], { path: '/etc/kiln/update.toml', bytes })
}

/** The image has no database of time zones: the zone's rules themselves become `/etc/localtime`. */
function addTimeZone(source: Decoded, files: KilnFiles): void {
  const zone = source['time_zone'] as string | undefined
  if (zone === undefined) return
  if (!isTimeZone(zone)) {
    files.fail(['time_zone'], 'must be the name of a time zone, such as Europe/Prague')
    return
  }
  files.add(['time_zone'], { path: '/etc/localtime', bytes: timeZoneFile(zone) })
  files.add(['time_zone'], { path: '/etc/timezone', bytes: `${zone}\n` })
}

/** A file below `/etc/kiln/pods.d`, from a local file, a manifest in place, or the few fields most pods need. */
function addPod(pod: Decoded, at: ConfigPath, files: KilnFiles, parse: ParsePod): void {
  const short = shortNames.some((name) => pod[name] !== undefined)
  const given = [pod['local'] !== undefined, pod['manifest'] !== undefined, short].filter(Boolean).length
  if (given !== 1) {
    files.fail(at, 'must have exactly one of: local, manifest, or a name and an image')
    return
  }
  if (pod['local'] !== undefined) {
    const read = readLocal(files.local, pod['local'])
    if (!read.ok) files.fail([...at, 'local'], read.message)
    else {
      const name = (pod['local'] as string).split('/').at(-1)!
      if (!/^[^.].*\.(ya?ml|json)$/.test(name))
        files.fail([...at, 'local'], 'must end in .yaml, .yml or .json')
      files.add([...at, 'local'], { path: `/etc/kiln/pods.d/${name}`, bytes: read.bytes })
    }
    return
  }
  const document: unknown = short ? manifestOf(pod) : pod['manifest']
  const { pod: manifest, problems } = parse(document)
  for (const problem of problems) {
    const inner = short ? [] : ['manifest', ...problem.path.split(/[.[\]]+/).filter((part) => part !== '')]
    files.fail(
      [...at, ...inner.map((part) => (/^\d+$/.test(part) ? Number(part) : part))],
      short ? `${problem.path} ${problem.message}` : problem.message,
    )
  }
  if (!manifest) return
  const bytes = `${JSON.stringify(document, undefined, 2)}\n`
  files.add(at, { path: `/etc/kiln/pods.d/${manifest.metadata.name}.json`, bytes })
}

function manifestOf(pod: Decoded): object {
  const environment = Object.entries((pod['environment'] ?? {}) as Record<string, string>)
  const container = {
    name: pod['name'],
    image: pod['image'],
    ...(pod['args'] ? { args: pod['args'] } : {}),
    ...(environment.length > 0 ? { env: environment.map(([name, value]) => ({ name, value })) } : {}),
    ...(pod['ports']
      ? { ports: (pod['ports'] as number[]).map((port) => ({ containerPort: port, hostPort: port })) }
      : {}),
  }
  return { apiVersion: 'v1', kind: 'Pod', metadata: { name: pod['name'] }, spec: { containers: [container] } }
}

import { Fault } from '@kiln/service'

/** The facts the C front took where the caller is, by the tags of `native/oci-ask.c`. */
export type FrontRequest = {
  command: string
  args: string[]
  cwd: string
  /** `LISTEN_FDS` of sd_listen_fds(3): descriptors from 3 on that the container is to have. */
  listenFds: number
  mountinfo: string
  cgroup: string
  /** `config.json`, the process of `exec --process`, or the resources of `update --resources`. */
  document?: string
  /** What `create` left for `exec` and `update`: see `ExecBase`. */
  base?: string
  systemd: boolean
  /** The caller may not be allowed to make cgroups. What it may is the kernel's to say: this grants nothing. */
  rootless: boolean
}

const KiB = 1024
const MiB = 1024 * KiB
/** Bytes of a question: what its facts may have together. */
export const questionBytesMax = 16 * MiB

/** The facts by their tag, each with its bounds. `loose` ones are the kernel's, with paths of any bytes. */
const facts: readonly ({ name: string; bytesMax: number; timesMax?: number; loose?: true } | undefined)[] = [
  undefined,
  { name: 'command', bytesMax: 64 },
  { name: 'argument', bytesMax: 128 * KiB, timesMax: 1024 },
  { name: 'cwd', bytesMax: 4 * KiB },
  { name: 'listenFds', bytesMax: 16 },
  { name: 'mounts', bytesMax: 4 * MiB, loose: true },
  { name: 'cgroup', bytesMax: 4 * MiB, loose: true },
  { name: 'document', bytesMax: 4 * MiB },
  { name: 'base', bytesMax: 128 * KiB },
  { name: 'systemd', bytesMax: 0 },
  { name: 'rootless', bytesMax: 0 },
  { name: 'end', bytesMax: 0 },
]
const needed = ['command', 'cwd', 'mounts', 'cgroup', 'end']

function invalid(what: string): never {
  throw new Fault('OCI_REQUEST_INVALID', `the front's question: ${what}`)
}

/** Reads a question: u32 tag, u32 length and bytes a fact, the last of them `end`, so that a part never looks whole. */
export function decodeRequest(bytes: Buffer): FrontRequest {
  if (bytes.length > questionBytesMax) invalid(`more than ${questionBytesMax} bytes`)
  const found = new Map<string, string[]>()
  for (let at = 0; at < bytes.length; ) {
    if (found.has('end')) invalid('something follows its end')
    if (at + 8 > bytes.length) invalid('it is cut off')
    const fact = facts[bytes.readUInt32LE(at)]
    const length = bytes.readUInt32LE(at + 4)
    if (!fact) return invalid('a fact that is not known: front and planner are of different versions')
    if (length > fact.bytesMax) invalid(`${fact.name} has ${length} bytes, more than ${fact.bytesMax}`)
    if (at + 8 + length > bytes.length) invalid('it is cut off')
    const texts = found.get(fact.name) ?? []
    if (texts.length >= (fact.timesMax ?? 1)) invalid(`${fact.name} more than ${fact.timesMax ?? 1} times`)
    texts.push(textOf(bytes.subarray(at + 8, at + 8 + length), fact.name, fact.loose ?? false))
    found.set(fact.name, texts)
    at += 8 + length
  }
  const missing = needed.find((name) => !found.has(name))
  if (missing) invalid(missing === 'end' ? 'it is cut off' : `${missing} is missing`)
  const one = (name: string) => found.get(name)?.[0]
  const cwd = one('cwd')!
  if (!cwd.startsWith('/')) invalid(`the working directory ${JSON.stringify(cwd)} is not absolute`)
  return {
    command: one('command')!,
    args: found.get('argument') ?? [],
    cwd,
    listenFds: countOf(one('listenFds') ?? '0'),
    mountinfo: one('mounts')!,
    cgroup: one('cgroup')!,
    document: one('document'),
    base: one('base'),
    systemd: found.has('systemd'),
    rootless: found.has('rootless'),
  }
}

function textOf(bytes: Buffer, name: string, loose: boolean): string {
  if (loose) return bytes.toString('utf8')
  try {
    const text = new TextDecoder('utf8', { fatal: true, ignoreBOM: true }).decode(bytes)
    return text.includes('\0') ? invalid(`${name} holds a NUL`) : text
  } catch (error) {
    if (error instanceof Fault) throw error
    return invalid(`${name} is not UTF-8`)
  }
}

/** Descriptors that may be kept, as many as a plan takes. */
export const keptFdsMax = 1024

function countOf(text: string): number {
  const count = Number(text)
  return /^\d{1,4}$/.test(text) && count <= keptFdsMax
    ? count
    : invalid(`LISTEN_FDS is ${JSON.stringify(text)}, not 0 to ${keptFdsMax}`)
}

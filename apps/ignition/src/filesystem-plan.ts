import type { IgnitionFilesystem } from '@kiln/schemas'

/** A signature blkid found on a device. */
export type FoundFilesystem = { type: string; label: string | undefined; uuid: string | undefined }

export type FilesystemAction =
  | { kind: 'keep' }
  | { kind: 'wipe' }
  | { kind: 'create'; command: string; args: string[] }
  | { kind: 'refuse'; reason: string }

/**
 * What to do with a device: without wipeFilesystem, the same type (and label and uuid, where given) is kept and
 * anything else that is there is refused (Ignition operator notes, "filesystem reuse semantics").
 */
export function planFilesystem(
  spec: IgnitionFilesystem,
  device: string,
  found: FoundFilesystem[],
): FilesystemAction {
  const format = spec.format ?? ''
  const wipe = spec.wipeFilesystem === true
  if (format === '') return { kind: 'keep' }
  const [first] = found
  if (format === 'none') {
    if (!first) return { kind: 'keep' }
    return wipe ? { kind: 'wipe' } : { kind: 'refuse', reason: `${device} holds ${first.type}, not nothing` }
  }
  if (first && !wipe) {
    const differs = found.map((each) => difference(spec, each))
    if (differs.includes(undefined)) return { kind: 'keep' }
    return { kind: 'refuse', reason: `${device} holds ${first.type} already: ${differs[0]}` }
  }
  return { kind: 'create', ...mkfs(spec, device) }
}

function difference(spec: IgnitionFilesystem, found: FoundFilesystem): string | undefined {
  if (found.type !== spec.format) return `its type is ${found.type}, not ${spec.format}`
  if (spec.label && spec.label !== found.label)
    return `its label is ${found.label ?? 'empty'}, not ${spec.label}`
  if (spec.uuid && plainUuid(spec.uuid) !== plainUuid(found.uuid ?? '')) {
    return `its uuid is ${found.uuid ?? 'empty'}, not ${spec.uuid}`
  }
  return undefined
}

const plainUuid = (uuid: string): string => uuid.toLowerCase().replaceAll('-', '')

type Maker = { command: string; flags: string[]; label: string; uuid(value: string): string[] }

const makers: Record<string, Maker> = {
  ext4: { command: 'mkfs.ext4', flags: ['-F', '-q'], label: '-L', uuid: (value) => ['-U', value] },
  xfs: { command: 'mkfs.xfs', flags: ['-f'], label: '-L', uuid: (value) => ['-m', `uuid=${value}`] },
  btrfs: { command: 'mkfs.btrfs', flags: ['--force'], label: '-L', uuid: (value) => ['-U', value] },
  vfat: { command: 'mkfs.vfat', flags: [], label: '-n', uuid: (value) => ['-i', value.replaceAll('-', '')] },
  swap: { command: 'mkswap', flags: ['-f'], label: '-L', uuid: (value) => ['-U', value] },
}

function mkfs(spec: IgnitionFilesystem, device: string): { command: string; args: string[] } {
  const maker = makers[spec.format!]!
  const args = [...maker.flags, ...(spec.options ?? [])]
  if (spec.uuid) args.push(...maker.uuid(spec.uuid))
  if (spec.label) args.push(maker.label, spec.label)
  return { command: maker.command, args: [...args, device] }
}

/** What `blkid -p -o export` says of a device. */
export function parseBlkid(output: string): FoundFilesystem | undefined {
  const values = new Map<string, string>()
  for (const line of output.split('\n')) {
    const equals = line.indexOf('=')
    if (equals > 0) values.set(line.slice(0, equals), line.slice(equals + 1).replaceAll(/\\(.)/g, '$1'))
  }
  const type = values.get('TYPE') ?? values.get('PTTYPE')
  return type === undefined ? undefined : { type, label: values.get('LABEL'), uuid: values.get('UUID') }
}

/** What `wipefs --json --output TYPE,LABEL,UUID` lists; copies of one signature count once. */
export function parseWipefs(output: string): FoundFilesystem[] {
  if (output.trim() === '') return []
  const { signatures } = JSON.parse(output) as {
    signatures: { type: string; label: string | null; uuid: string | null }[]
  }
  const found = new Map<string, FoundFilesystem>()
  for (const { type, label, uuid } of signatures) {
    if (!found.has(type)) found.set(type, { type, label: label ?? undefined, uuid: uuid ?? undefined })
  }
  return [...found.values()]
}

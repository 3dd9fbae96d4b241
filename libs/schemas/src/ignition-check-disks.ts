import type {
  IgnitionConfig,
  IgnitionDisk,
  IgnitionFilesystem,
  IgnitionLuks,
  IgnitionPartition,
} from './ignition.ts'
import { checkResource, isParsable, sourceProblem } from './ignition-check-resource.ts'
import { duplicateEntries } from './ignition-duplicates.ts'
import { type IgnitionPath, pathProblem, type Report } from './ignition-finding.ts'

const guidPattern = /^(|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})$/i
const labelLengths: Record<string, number> = { ext4: 16, btrfs: 256, xfs: 12, swap: 15, vfat: 11 }
const raidLevels = 'linear raid0 0 stripe raid1 1 mirror raid4 4 raid5 5 raid6 6 raid10 10'.split(' ')
const levelsWithoutSpares = 'linear raid0 0 stripe'.split(' ')
const luksLabelMax = 47
/** Limits of labels count bytes. */
const byteLength = (text: string): number => Buffer.byteLength(text)
/** Before 3.6 a custom clevis pin had to be one of these. */
const clevisPins = ['tpm2', 'tang', 'sss']

export function checkDisks(config: IgnitionConfig, report: Report): void {
  for (const [index, disk] of (config.storage?.disks ?? []).entries()) {
    const path = ['storage', 'disks', index]
    const problem = disk.device === '' ? 'disk device is required' : pathProblem(disk.device)
    if (problem) report('error', [...path, 'device'], problem)
    if (disk.device !== '') checkPartitionSet(disk, [...path, 'partitions'], report)
    for (const [at, partition] of (disk.partitions ?? []).entries()) {
      checkPartition(partition, [...path, 'partitions', at], report)
    }
  }
  for (const [index, raid] of (config.storage?.raid ?? []).entries()) {
    const path = ['storage', 'raid', index]
    if (raid.level === undefined) report('error', [...path, 'level'], 'raid level is required')
    else if (!raidLevels.includes(raid.level)) {
      report('error', [...path, 'level'], 'unrecognized raid level')
    } else if ((raid.spares ?? 0) !== 0 && levelsWithoutSpares.includes(raid.level)) {
      report('error', [...path, 'level'], 'spares unsupported for linear and raid0 arrays')
    }
    if ((raid.devices ?? []).length === 0) report('error', [...path, 'devices'], 'raid devices required')
    for (const [at, device] of (raid.devices ?? []).entries()) {
      const problem = pathProblem(device)
      if (problem) report('error', [...path, 'devices', at], problem)
    }
  }
  checkLuks(config, report)
}

function checkPartitionSet(disk: IgnitionDisk, path: IgnitionPath, report: Report): void {
  const partitions = disk.partitions ?? []
  const [collision] = duplicateEntries(partitions.map(({ number }) => (number ? String(number) : undefined)))
  if (collision !== undefined) report('error', [...path, collision], 'partition numbers collide')
  const overlap = overlappingPartition(partitions)
  if (overlap !== undefined) report('error', [...path, overlap], 'partitions overlap')
  const removed = partitions.some(({ shouldExist }) => shouldExist === false)
  if (removed && partitions.some(({ number }) => !number)) {
    const text = 'partitions with shouldExist=false cannot be mixed with partitions without a number'
    report('error', path, text)
  }
  const [label] = duplicateEntries(partitions.map((partition) => partition.label))
  if (label !== undefined) report('error', [...path, label], 'cannot use the same partition label twice')
}

/** Place of a partition that another one reaches into, among those with a start; a size of 0 counts as one MiB. */
function overlappingPartition(partitions: IgnitionPartition[]): number | undefined {
  const ranges = partitions.map(({ startMiB, sizeMiB }) =>
    startMiB && sizeMiB !== undefined ? { start: startMiB, end: startMiB + Math.max(sizeMiB, 1) } : undefined,
  )
  for (const [at, range] of ranges.entries()) {
    const other = ranges.findIndex(
      (each, place) => place !== at && each && range && range.start < each.end && range.end > each.start,
    )
    if (other >= 0) return other
  }
  return undefined
}

function checkPartition(partition: IgnitionPartition, path: IgnitionPath, report: Report): void {
  const { number, label, typeGuid, guid, startMiB, sizeMiB, shouldExist } = partition
  if (!number && label === undefined) {
    report('error', path, 'a partition number >= 1 or a label must be specified')
  }
  const others = label !== undefined || typeGuid || guid || startMiB !== undefined || sizeMiB !== undefined
  if (shouldExist === false && others) {
    report('error', path, 'shouldExist is false, but other attributes are given')
  }
  if (label !== undefined && byteLength(label) > 36) {
    report('error', [...path, 'label'], 'partition labels may not exceed 36 characters')
  }
  if (label?.includes(':')) {
    report('error', [...path, 'label'], 'partition label will be truncated to text before the colon')
  }
  for (const field of ['typeGuid', 'guid'] as const) {
    if (!guidPattern.test(partition[field] ?? '')) {
      report('error', [...path, field], `doesn't match the form "01234567-89AB-CDEF-EDCB-A98765432101"`)
    }
  }
}

export function checkFilesystems(config: IgnitionConfig, report: Report): void {
  for (const [index, filesystem] of (config.storage?.filesystems ?? []).entries()) {
    const path = ['storage', 'filesystems', index]
    const device = pathProblem(filesystem.device)
    if (device) report('error', [...path, 'device'], device)
    checkFormat(filesystem, path, config.ignition.version, report)
    const disk = config.storage?.disks?.findLast((each) => each.device === filesystem.device)
    if (disk?.partitions?.length) {
      report('warning', [...path, 'device'], 'filesystem overwrites partitioned device')
    } else if (disk?.wipeTable === true && filesystem.wipeFilesystem !== true) {
      const text = 'device matches disk with wipeTable enabled; filesystem will be wiped'
      report('warning', [...path, 'device'], text)
    }
  }
}

function checkFormat(
  filesystem: IgnitionFilesystem,
  path: IgnitionPath,
  version: string,
  report: Report,
): void {
  const { format, label, uuid, options, mountOptions, wipeFilesystem } = filesystem
  if (format === undefined || format === '') {
    const mountPath = filesystem.path
    if (mountPath || label || uuid || wipeFilesystem || options?.length || mountOptions?.length) {
      const text =
        'format cannot be empty when path, label, uuid, wipeFilesystem, options, or mountOptions is specified'
      report('error', [...path, 'format'], text)
    }
  } else if (labelLengths[format] === undefined && !(format === 'none' && version >= '3.3.0')) {
    report('error', [...path, 'format'], 'invalid filesystem format')
  }
  if (filesystem.path !== undefined && filesystem.path !== '') {
    const problem = pathProblem(filesystem.path)
    if (problem) report('error', [...path, 'path'], problem)
  }
  if (label === undefined || label === '') return
  const length = labelLengths[format ?? '']
  if (!format) report('error', [...path, 'label'], 'filesystem must specify format if label is specified')
  else if (length !== undefined && byteLength(label) > length) {
    const text = `filesystem labels cannot be longer than ${length} characters when using ${format}`
    report('error', [...path, 'label'], text)
  }
}

function checkLuks(config: IgnitionConfig, report: Report): void {
  for (const [index, luks] of (config.storage?.luks ?? []).entries()) {
    const path = ['storage', 'luks', index]
    if (luks.name.includes('/')) report('error', [...path, 'name'], 'device names cannot contain a slash')
    if (byteLength(luks.label ?? '') > luksLabelMax) {
      report(
        'error',
        [...path, 'label'],
        `luks device labels cannot be longer than ${luksLabelMax} characters`,
      )
    }
    const device = luks.device === undefined ? 'path not specified' : pathProblem(luks.device)
    if (device) report('error', [...path, 'device'], device)
    if (luks.keyFile) {
      const { version } = config.ignition
      checkResource(luks.keyFile, { path: [...path, 'keyFile'], version, required: false, report })
      // The reference tells this of the key file and again under a name that no spec has.
      const { source } = luks.keyFile
      if (source && sourceProblem(source, version)) {
        report('error', [...path, 'keys'], 'invalid key file')
      }
    }
    checkClevis(luks, path, config.ignition.version, report)
    for (const [at, tang] of (luks.clevis?.tang ?? []).entries()) {
      const tangPath = [...path, 'clevis', 'tang', at]
      if (!isParsable(tang.url)) report('error', [...tangPath, 'url'], 'unable to parse url')
      else if (!/^https?:/i.test(tang.url)) report('error', [...tangPath, 'url'], 'invalid url scheme')
      if (tang.advertisement && !isJson(tang.advertisement)) {
        report('error', [...tangPath, 'advertisement'], 'advertisement is not valid JSON')
      }
      if (!tang.thumbprint) report('error', [...tangPath, 'thumbprint'], 'thumbprint is required')
    }
  }
}

function checkClevis(luks: IgnitionLuks, path: IgnitionPath, version: string, report: Report): void {
  const { custom, tang: servers, tpm2, threshold } = luks.clevis ?? {}
  const others = servers?.length || tpm2 || threshold
  if (luks.cex?.enabled === true) {
    if (others || custom?.pin) report('error', [...path, 'cex'], 'cex cannot be combined with clevis')
    if (luks.keyFile?.source) report('error', [...path, 'cex'], 'cex cannot be combined with a key file')
  }
  // In 3.2 an empty custom part counted as one.
  if ((version < '3.3.0' ? custom : custom?.pin) && others) {
    const text = 'cannot use custom clevis config with tpm2, tang, or threshold'
    report('error', [...path, 'clevis'], text)
  }
  const customPath = [...path, 'clevis', 'custom']
  const inUse = custom?.pin || custom?.config || (custom?.needsNetwork && version >= '3.3.0')
  if (!custom || !inUse) return
  const isKnown = version >= '3.6.0' || clevisPins.includes(custom.pin ?? '')
  if (!custom.pin && version >= '3.3.0') {
    report('error', [...customPath, 'pin'], 'missing required custom clevis pin')
  } else if (!isKnown) report('error', [...customPath, 'pin'], 'unsupported clevis pin')
  if (!custom.config) report('error', [...customPath, 'config'], 'missing required custom clevis config')
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

import type { IgnitionConfig, IgnitionDisk, IgnitionFilesystem, IgnitionPartition } from './ignition.ts'
import { type IgnitionPath, pathProblem, type Report } from './ignition-finding.ts'

const guidPattern = /^(|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})$/i
const labelLengths: Record<string, number> = { ext4: 16, btrfs: 256, xfs: 12, swap: 15, vfat: 11 }
const raidLevels = 'linear raid0 0 stripe raid1 1 mirror raid4 4 raid5 5 raid6 6 raid10 10'.split(' ')
const levelsWithoutSpares = 'linear raid0 0 stripe'.split(' ')
const luksLabelMax = 47
/** Before 3.6 a custom clevis pin had to be one of these. */
const clevisPins = ['tpm2', 'tang', 'sss']

export function checkDisks(config: IgnitionConfig, report: Report): void {
  for (const [index, disk] of (config.storage?.disks ?? []).entries()) {
    const path = ['storage', 'disks', index]
    const problem = disk.device === '' ? 'disk device is required' : pathProblem(disk.device)
    if (problem) report('error', [...path, 'device'], problem)
    checkPartitionSet(disk, [...path, 'partitions'], report)
    for (const [at, partition] of (disk.partitions ?? []).entries()) {
      checkPartition(partition, [...path, 'partitions', at], report)
    }
  }
  for (const [index, raid] of (config.storage?.raid ?? []).entries()) {
    const path = ['storage', 'raid', index]
    if (raid.level === undefined) report('error', [...path, 'level'], 'raid level is required')
    else if (!raidLevels.includes(raid.level)) {
      report('error', [...path, 'level'], 'unrecognized raid level')
    } else if ((raid.spares ?? 0) > 0 && levelsWithoutSpares.includes(raid.level)) {
      report('error', [...path, 'level'], 'spares unsupported for linear and raid0 arrays')
    }
    if ((raid.devices ?? []).length === 0) report('error', [...path, 'devices'], 'raid devices required')
  }
  checkLuks(config, report)
}

function checkPartitionSet(disk: IgnitionDisk, path: IgnitionPath, report: Report): void {
  const partitions = disk.partitions ?? []
  const labels = partitions.flatMap(({ label, number }) => (label && number ? [label] : []))
  if (new Set(labels).size < labels.length) report('error', path, 'cannot use the same partition label twice')
  const ranges = partitions
    .filter(({ startMiB, sizeMiB, shouldExist }) => startMiB && sizeMiB && shouldExist !== false)
    .map(({ startMiB, sizeMiB }) => ({ start: startMiB!, end: startMiB! + sizeMiB! }))
    .sort((a, b) => a.start - b.start)
  if (ranges.some((range, at) => at > 0 && range.start < ranges[at - 1]!.end)) {
    report('error', path, 'partitions overlap')
  }
  const removed = partitions.some(({ shouldExist }) => shouldExist === false)
  const flexible = partitions.some(
    ({ startMiB, sizeMiB, shouldExist }) => shouldExist !== false && (startMiB === 0 || sizeMiB === 0),
  )
  if (removed && flexible) {
    const text = 'partitions with shouldExist=false cannot be mixed with partitions of start or size 0'
    report('error', path, text)
  }
}

function checkPartition(partition: IgnitionPartition, path: IgnitionPath, report: Report): void {
  const { number, label, typeGuid, guid, startMiB, sizeMiB, shouldExist } = partition
  if (!number && label === undefined) {
    report('error', path, 'a partition number >= 1 or a label must be specified')
  }
  if (shouldExist === false) {
    const others = label || typeGuid || guid || startMiB || sizeMiB
    if (others) report('error', path, 'shouldExist is false, but other attributes are given')
    if (!number) report('error', path, 'shouldExist is false, which needs a partition number')
  }
  if (label !== undefined && label.length > 36) {
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
    checkFormat(filesystem, path, report)
    const disk = config.storage?.disks?.find((each) => each.device === filesystem.device)
    if (disk?.partitions?.length) {
      report('warning', [...path, 'device'], 'filesystem overwrites partitioned device')
    } else if (disk?.wipeTable === true) {
      const text = 'device matches disk with wipeTable enabled; filesystem will be wiped'
      report('warning', [...path, 'device'], text)
    }
  }
}

function checkFormat(filesystem: IgnitionFilesystem, path: IgnitionPath, report: Report): void {
  const { format, label, uuid, options, mountOptions, wipeFilesystem } = filesystem
  if (format === undefined || format === '') {
    const mountPath = filesystem.path
    if (mountPath || label || uuid || wipeFilesystem || options?.length || mountOptions?.length) {
      const text =
        'format cannot be empty when path, label, uuid, wipeFilesystem, options, or mountOptions is specified'
      report('error', [...path, 'format'], text)
    }
  } else if (format !== 'none' && labelLengths[format] === undefined) {
    report('error', [...path, 'format'], 'invalid filesystem format')
  }
  if (filesystem.path !== undefined && filesystem.path !== '') {
    const problem = pathProblem(filesystem.path)
    if (problem) report('error', [...path, 'path'], problem)
  }
  if (label === undefined || label === '') return
  const length = labelLengths[format ?? '']
  if (!format) report('error', [...path, 'label'], 'filesystem must specify format if label is specified')
  else if (length !== undefined && label.length > length) {
    const text = `filesystem labels cannot be longer than ${length} characters when using ${format}`
    report('error', [...path, 'label'], text)
  }
}

function checkLuks(config: IgnitionConfig, report: Report): void {
  for (const [index, luks] of (config.storage?.luks ?? []).entries()) {
    const path = ['storage', 'luks', index]
    if (luks.name.includes('/')) report('error', [...path, 'name'], 'device names cannot contain a slash')
    if ((luks.label?.length ?? 0) > luksLabelMax) {
      report(
        'error',
        [...path, 'label'],
        `luks device labels cannot be longer than ${luksLabelMax} characters`,
      )
    }
    const device = luks.device === undefined ? 'path not specified' : pathProblem(luks.device)
    if (device) report('error', [...path, 'device'], device)
    const custom = luks.clevis?.custom
    const inUse = custom?.pin || custom?.config || custom?.needsNetwork
    if (inUse && !custom.pin) {
      report('error', [...path, 'clevis', 'custom', 'pin'], 'missing required custom clevis pin')
    }
    if (inUse && !custom.config) {
      report('error', [...path, 'clevis', 'custom', 'config'], 'missing required custom clevis config')
    }
    if (custom?.pin && config.ignition.version < '3.6.0' && !clevisPins.includes(custom.pin)) {
      report('error', [...path, 'clevis', 'custom', 'pin'], 'unsupported clevis pin')
    }
    for (const [at, tang] of (luks.clevis?.tang ?? []).entries()) {
      const tangPath = [...path, 'clevis', 'tang', at]
      if (!/^https?:/i.test(tang.url)) report('error', [...tangPath, 'url'], 'invalid url scheme')
      if (tang.advertisement && !isJson(tang.advertisement)) {
        report('error', [...tangPath, 'advertisement'], 'advertisement is not valid JSON')
      }
      if (!tang.thumbprint) report('error', [...tangPath, 'thumbprint'], 'thumbprint is required')
    }
  }
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

import { partitionTypes } from './guid.ts'
import { emptyTable, entriesMax, type GptPartition, type GptReading, type GptTable } from './table.ts'

/** A partition as Ignition's storage.disks[].partitions asks for it; undefined means "as it is, or anything". */
export type PartitionSpec = {
  /** 0 takes the next free number, or the partition that has the label already. */
  number?: number | undefined
  label?: string | undefined
  sizeMiB?: number | undefined
  startMiB?: number | undefined
  typeGuid?: string | undefined
  guid?: string | undefined
  wipePartitionEntry?: boolean | undefined
  shouldExist?: boolean | undefined
  resize?: boolean | undefined
}

export type DiskSpec = { wipeTable?: boolean | undefined; partitions: PartitionSpec[] }

/** What is on the disk now. */
export type FoundDisk = {
  sectorBytes: number
  sectors: number
  reading: GptReading
  /** Numbers of partitions that are mounted or held by something. */
  busy: number[]
}

export type PartitionAction =
  | { kind: 'wipe-table' }
  | { kind: 'create-table' }
  | { kind: 'keep'; partition: GptPartition }
  | { kind: 'create'; partition: GptPartition }
  | { kind: 'resize'; partition: GptPartition; fromEndLba: number }
  | { kind: 'delete'; partition: GptPartition }

export type PartitionPlan =
  | {
      ok: true
      actions: PartitionAction[]
      /** The table to be on the disk at the end. */
      table: GptTable
      /** False when the disk is right already and nothing must be written. */
      changes: boolean
    }
  | { ok: false; refusals: string[] }

const mebibyte = 1024 * 1024

/**
 * Plans a disk. What is right already is kept, what is missing is created; what differs is replaced only when the
 * spec says so with `wipePartitionEntry` or `resize`, otherwise the whole plan is refused and nothing is touched
 * (Ignition operator notes, "partition reuse semantics").
 */
export function planPartitions(spec: DiskSpec, found: FoundDisk, newGuid: () => string): PartitionPlan {
  const refusals: string[] = []
  const start = startingTable(spec, found, newGuid, refusals)
  if (!start) return { ok: false, refusals }
  const wanted = resolve(spec.partitions, start.table, refusals)
  const actions: PartitionAction[] = [...start.actions]
  const kept = new Map(start.table.partitions.map((partition) => [partition.number, partition]))
  const later: PartitionAction[] = []
  for (const want of wanted) {
    const existing = kept.get(want.number)
    const action = decide(want, existing, { newGuid, refusals, sectorBytes: found.sectorBytes })
    for (const each of action) {
      if (each.kind !== 'keep' && existing && found.busy.includes(existing.number)) {
        refusals.push(`partition ${existing.number} is in use and cannot be changed`)
      }
      if (each.kind === 'delete') kept.delete(each.partition.number)
      else if (each.kind === 'create' || each.kind === 'resize') kept.set(want.number, each.partition)
      if (each.kind === 'create' && existing) later.push(each)
      else actions.push(each)
    }
  }
  actions.push(...later)
  const table = { ...start.table, partitions: [...kept.values()].sort((a, b) => a.number - b.number) }
  refusals.push(...overlaps(table))
  if (refusals.length > 0) return { ok: false, refusals: [...new Set(refusals)] }
  return { ok: true, actions, table, changes: actions.some((action) => action.kind !== 'keep') }
}

/** One line for the log and for tests. */
export function describePartitionAction(action: PartitionAction, sectorBytes: number): string {
  switch (action.kind) {
    case 'wipe-table':
      return 'wipe the partition table'
    case 'create-table':
      return 'create a GPT'
    case 'resize':
      return `resize ${text(action.partition, sectorBytes)}, was ${megabytes((action.fromEndLba - action.partition.startLba + 1) * sectorBytes)}`
    case 'keep':
    case 'create':
    case 'delete':
      return `${action.kind} ${text(action.partition, sectorBytes)}`
  }
}

function text(partition: GptPartition, sectorBytes: number): string {
  const { number, label, startLba, endLba } = partition
  return `partition ${number} "${label}" at ${megabytes(startLba * sectorBytes)}, ${megabytes((endLba - startLba + 1) * sectorBytes)}`
}

const megabytes = (bytes: number): string => `${Number((bytes / mebibyte).toFixed(2))} MiB`

function startingTable(
  spec: DiskSpec,
  found: FoundDisk,
  newGuid: () => string,
  refusals: string[],
): { table: GptTable; actions: PartitionAction[] } | undefined {
  const fresh = (): GptTable =>
    emptyTable({ sectorBytes: found.sectorBytes, sectors: found.sectors, diskGuid: newGuid() })
  if (spec.wipeTable === true && found.reading.kind !== 'none') {
    if (found.busy.length > 0) {
      refusals.push(`wipeTable is set but partition ${found.busy[0]} is in use`)
      return undefined
    }
    return { table: fresh(), actions: [{ kind: 'wipe-table' }, { kind: 'create-table' }] }
  }
  switch (found.reading.kind) {
    case 'none':
      return { table: fresh(), actions: [{ kind: 'create-table' }] }
    case 'table':
      return { table: grown(found.reading.table, found.sectors), actions: [] }
    case 'dos':
      refusals.push('the disk has a DOS partition table; set wipeTable to replace it')
      return undefined
    case 'broken':
      refusals.push(
        `the disk has a damaged GPT (${found.reading.problems.join('; ')}); set wipeTable to replace it`,
      )
      return undefined
  }
}

/** A table whose disk has become larger since it was written uses the whole disk. */
function grown(table: GptTable, sectors: number): GptTable {
  const whole = emptyTable({ sectorBytes: table.sectorBytes, sectors, diskGuid: table.diskGuid })
  return { ...table, sectors, lastUsableLba: Math.max(table.lastUsableLba, whole.lastUsableLba) }
}

/** A spec with its number, start and size settled. */
type Wanted = { spec: PartitionSpec; number: number; startLba: number; endLba: number }

/**
 * Settles numbers, starts and sizes as `sgdisk` would in a dry run: all named partitions are taken away and put back in
 * order, entries with number 0 last.
 */
function resolve(specs: PartitionSpec[], table: GptTable, refusals: string[]): Wanted[] {
  const byNumber = new Map(table.partitions.map((partition) => [partition.number, partition]))
  const ordered = [...specs.filter((spec) => spec.number), ...specs.filter((spec) => !spec.number)]
  const claimed = new Set(specs.map((spec) => spec.number ?? 0))
  const taken = new Set([...byNumber.keys(), ...claimed])
  const unclaimed = table.partitions.filter((partition) => !claimed.has(partition.number))
  const numbered = ordered.map((spec) => ({ spec, number: spec.number || numberFor(spec, unclaimed, taken) }))
  const named = new Set(numbered.map(({ number }) => number))
  const placed = table.partitions.filter((partition) => !named.has(partition.number))
  const wanted: Wanted[] = []
  for (const { spec, number } of numbered) {
    const existing = byNumber.get(number)
    if (number > entriesMax) refusals.push(`there is no free partition number for ${nameOf(spec, number)}`)
    if (spec.shouldExist === false) {
      wanted.push({ spec, number, startLba: 0, endLba: 0 })
      continue
    }
    const place = placeFor(spec, number, existing, { table, placed, refusals })
    if (!place) continue
    wanted.push({ spec, number, ...place })
    placed.push({ ...blank, number, ...place })
  }
  return wanted
}

/** The number of the partition with this label, unless another entry claims it by its number; else the next free one. */
function numberFor(spec: PartitionSpec, unclaimed: GptPartition[], taken: Set<number>): number {
  const labelled = unclaimed.find((partition) => spec.label && partition.label === spec.label)
  if (labelled) return labelled.number
  let number = 1
  while (taken.has(number)) number++
  taken.add(number)
  return number
}

const blank = { typeGuid: partitionTypes.linux, guid: '', label: '', attributes: 0n }
type Extent = { startLba: number; endLba: number }
type Room = { table: GptTable; placed: Extent[]; refusals: string[] }

function placeFor(
  spec: PartitionSpec,
  number: number,
  existing: GptPartition | undefined,
  room: Room,
): Extent | undefined {
  const grain = mebibyte / room.table.sectorBytes
  const asFound = existing && spec.wipePartitionEntry !== true ? existing : undefined
  const start = spec.startMiB === undefined ? asFound?.startLba : spec.startMiB * grain
  const size =
    spec.sizeMiB === undefined
      ? asFound && asFound.endLba - asFound.startLba + 1
      : Math.round(spec.sizeMiB * grain)
  const blocks = freeBlocks(room.table, room.placed)
  const name = nameOf(spec, number)
  const block = start
    ? blocks.find((free) => free.startLba <= start && start <= free.endLba)
    : blocks.toSorted((a, b) => length(b) - length(a) || a.startLba - b.startLba)[0]
  if (!block) {
    const where = start ? `at ${megabytes(start * room.table.sectorBytes)}` : 'on the disk'
    room.refusals.push(`${name}: there is no free space ${where}`)
    return undefined
  }
  const from = start || block.startLba
  const rest = { startLba: from, endLba: block.endLba }
  if (!size) return { startLba: from, endLba: alignedEnd(rest, grain) }
  if (size > length(rest)) {
    const free = megabytes(length(rest) * room.table.sectorBytes)
    const needed = megabytes(size * room.table.sectorBytes)
    room.refusals.push(`${name} needs ${needed} but only ${free} are free`)
    return undefined
  }
  return { startLba: from, endLba: from + size - 1 }
}

const length = (extent: Extent): number => extent.endLba - extent.startLba + 1

/** The end of a partition that fills its block, on a MiB boundary where that leaves anything. */
function alignedEnd(extent: Extent, grain: number): number {
  const end = Math.floor((extent.endLba + 1) / grain) * grain - 1
  return end > extent.startLba ? end : extent.endLba
}

/** Gaps between partitions, starting on a MiB boundary. */
function freeBlocks(table: GptTable, placed: Extent[]): Extent[] {
  const grain = mebibyte / table.sectorBytes
  const blocks: Extent[] = []
  let next = table.firstUsableLba
  const end: Extent = { startLba: table.lastUsableLba + 1, endLba: table.lastUsableLba + 1 }
  for (const extent of [...placed].sort((a, b) => a.startLba - b.startLba).concat(end)) {
    const startLba = Math.ceil(next / grain) * grain
    if (extent.startLba > startLba) blocks.push({ startLba, endLba: extent.startLba - 1 })
    next = Math.max(next, extent.endLba + 1)
  }
  return blocks
}

/** Ignition's table of present x shouldExist x wipePartitionEntry. */
function decide(
  want: Wanted,
  existing: GptPartition | undefined,
  { newGuid, refusals, sectorBytes }: { newGuid: () => string; refusals: string[]; sectorBytes: number },
): PartitionAction[] {
  const { spec, number } = want
  const name = nameOf(spec, number)
  if (spec.shouldExist === false) {
    if (!existing) return []
    if (spec.wipePartitionEntry === true) return [{ kind: 'delete', partition: existing }]
    refusals.push(`${name} exists but should not; set wipePartitionEntry to delete it`)
    return []
  }
  if (!existing) return [{ kind: 'create', partition: created(want, newGuid) }]
  const differences = differing(want, existing, sectorBytes)
  if (differences.length === 0) return [{ kind: 'keep', partition: existing }]
  if (spec.wipePartitionEntry === true) {
    return [
      { kind: 'delete', partition: existing },
      { kind: 'create', partition: created(want, newGuid) },
    ]
  }
  if (spec.resize === true && differences.every((difference) => difference.startsWith('size '))) {
    const partition = { ...existing, endLba: want.endLba }
    return [{ kind: 'resize', partition, fromEndLba: existing.endLba }]
  }
  const remedy =
    spec.resize === true ? 'only its size may be changed' : 'set wipePartitionEntry to replace it'
  refusals.push(`${name} exists but differs: ${differences.join(', ')}; ${remedy}`)
  return []
}

function created(want: Wanted, newGuid: () => string): GptPartition {
  const { spec, number, startLba, endLba } = want
  return {
    number,
    startLba,
    endLba,
    label: spec.label ?? '',
    typeGuid: (spec.typeGuid || partitionTypes.linux).toUpperCase(),
    guid: (spec.guid || newGuid()).toUpperCase(),
    attributes: 0n,
  }
}

function differing(want: Wanted, existing: GptPartition, sectorBytes: number): string[] {
  const { spec } = want
  const differences: string[] = []
  const compare = (what: string, wanted: string | undefined, is: string): void => {
    if (wanted && wanted !== is) differences.push(`${what} is ${is}, not ${wanted}`)
  }
  const extent = (what: string, wanted: number, is: number): void => {
    const sectors = `${wanted - is} sectors more`
    const [are, should] = [megabytes(is * sectorBytes), megabytes(wanted * sectorBytes)]
    if (wanted !== is) differences.push(`${what} is ${are}, not ${are === should ? sectors : should}`)
  }
  extent('start', want.startLba, existing.startLba)
  extent('size', length(want), length(existing))
  compare('guid', spec.guid?.toUpperCase(), existing.guid)
  compare('typeGuid', spec.typeGuid?.toUpperCase(), existing.typeGuid)
  if (spec.label !== undefined && spec.label !== existing.label) {
    differences.push(`label is "${existing.label}", not "${spec.label}"`)
  }
  return differences
}

function overlaps(table: GptTable): string[] {
  const problems: string[] = []
  const sorted = [...table.partitions].sort((a, b) => a.startLba - b.startLba)
  for (const [index, partition] of sorted.entries()) {
    const next = sorted[index + 1]
    if (next && next.startLba <= partition.endLba) {
      problems.push(`partitions ${partition.number} and ${next.number} overlap`)
    }
    if (partition.startLba < table.firstUsableLba || partition.endLba > table.lastUsableLba) {
      problems.push(`partition ${partition.number} does not fit on the disk`)
    }
  }
  return problems
}

const nameOf = (spec: PartitionSpec, number: number): string =>
  spec.label ? `partition ${number} "${spec.label}"` : `partition ${number}`

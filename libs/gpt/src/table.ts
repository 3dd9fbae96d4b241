import { crc32 } from './crc32.ts'
import { guidBytes, guidText } from './guid.ts'

/** One used entry of a table; LBAs are inclusive. */
export type GptPartition = {
  number: number
  typeGuid: string
  guid: string
  label: string
  startLba: number
  endLba: number
  attributes: bigint
}

/** A GUID partition table (UEFI 2.10, section 5.3) with 128 entries. */
export type GptTable = {
  sectorBytes: number
  sectors: number
  diskGuid: string
  firstUsableLba: number
  lastUsableLba: number
  partitions: GptPartition[]
}

/** Bytes to put at a byte offset of the disk. */
export type DiskWrite = { offset: number; bytes: Uint8Array }

export type GptReading =
  | { kind: 'table'; table: GptTable; problems: string[] }
  /** No table and no trace of one. */
  | { kind: 'none' }
  /** A classic DOS table that holds partitions. */
  | { kind: 'dos' }
  /** Traces of a table that cannot be trusted. */
  | { kind: 'broken'; problems: string[] }

export const entriesMax = 128
const entryBytes = 128
const signature = 'EFI PART'
export const labelMax = 36

/** Sectors that the entry array needs. */
export const arraySectors = (sectorBytes: number): number =>
  Math.ceil((entriesMax * entryBytes) / sectorBytes)

/** An empty table for a disk. */
export function emptyTable(disk: { sectorBytes: number; sectors: number; diskGuid: string }): GptTable {
  const array = arraySectors(disk.sectorBytes)
  return {
    ...disk,
    firstUsableLba: Math.max(2 + array, Math.ceil((1024 * 1024) / disk.sectorBytes)),
    lastUsableLba: disk.sectors - array - 2,
    partitions: [],
  }
}

/** All writes that put a table on a disk: backup copy first, so that a cut in the middle leaves a usable one. */
export function serialiseTable(table: GptTable): DiskWrite[] {
  const { sectorBytes, sectors } = table
  const array = new Uint8Array(entriesMax * entryBytes)
  for (const partition of table.partitions) {
    array.set(entryOf(partition), (partition.number - 1) * entryBytes)
  }
  const arrayCrc = crc32(array)
  const backupArrayLba = sectors - 1 - arraySectors(sectorBytes)
  const primary = header(table, { own: 1, other: sectors - 1, arrayLba: 2, arrayCrc })
  const backup = header(table, { own: sectors - 1, other: 1, arrayLba: backupArrayLba, arrayCrc })
  return [
    { offset: backupArrayLba * sectorBytes, bytes: array },
    { offset: (sectors - 1) * sectorBytes, bytes: backup },
    { offset: 2 * sectorBytes, bytes: array },
    { offset: sectorBytes, bytes: primary },
    { offset: 0, bytes: protectiveMbr(table) },
  ]
}

/**
 * Reads a table. `read(offset, length)` returns bytes of the disk. The backup is used when the primary is damaged,
 * and that is said in `problems`.
 */
export function parseTable(
  disk: { sectorBytes: number; sectors: number },
  read: (offset: number, length: number) => Uint8Array,
): GptReading {
  const primary = readCopy(disk, 1, read)
  const backup = readCopy(disk, disk.sectors - 1, read)
  if (primary.table) {
    return {
      kind: 'table',
      table: primary.table,
      problems: backup.table ? [] : [`backup: ${backup.problem}`],
    }
  }
  if (backup.table) return { kind: 'table', table: backup.table, problems: [`primary: ${primary.problem}`] }
  if (primary.signed || backup.signed) {
    return { kind: 'broken', problems: [`primary: ${primary.problem}`, `backup: ${backup.problem}`] }
  }
  return dosKind(read(0, 512))
}

function dosKind(sector: Uint8Array): GptReading {
  if (sector[510] !== 0x55 || sector[511] !== 0xaa) return { kind: 'none' }
  const types = [446, 462, 478, 494].map((offset) => sector[offset + 4]!)
  if (types.every((type) => type === 0)) return { kind: 'none' }
  if (types.includes(0xee))
    return { kind: 'broken', problems: ['a protective MBR without a table behind it'] }
  return { kind: 'dos' }
}

type Copy = { table?: GptTable; signed: boolean; problem: string }

function readCopy(
  disk: { sectorBytes: number; sectors: number },
  lba: number,
  read: (offset: number, length: number) => Uint8Array,
): Copy {
  if (lba < 1 || lba >= disk.sectors) return { signed: false, problem: 'beyond the disk' }
  const bytes = Buffer.from(read(lba * disk.sectorBytes, disk.sectorBytes))
  if (bytes.subarray(0, 8).toString('latin1') !== signature) return { signed: false, problem: 'no signature' }
  const size = bytes.readUInt32LE(12)
  if (size < 92 || size > disk.sectorBytes) return { signed: true, problem: `header size is ${size}` }
  const stored = bytes.readUInt32LE(16)
  const zeroed = Buffer.from(bytes.subarray(0, size))
  zeroed.writeUInt32LE(0, 16)
  if (crc32(zeroed) !== stored) return { signed: true, problem: 'header CRC is wrong' }
  if (bytes.readBigUInt64LE(24) !== BigInt(lba))
    return { signed: true, problem: 'header is not at its own LBA' }
  const count = bytes.readUInt32LE(80)
  const width = bytes.readUInt32LE(84)
  if (width < entryBytes || width > 4096 || count > 1024) {
    return { signed: true, problem: `${count} entries of ${width} bytes` }
  }
  const array = Buffer.from(read(Number(bytes.readBigUInt64LE(72)) * disk.sectorBytes, count * width))
  if (crc32(array) !== bytes.readUInt32LE(88)) return { signed: true, problem: 'entry CRC is wrong' }
  const partitions: GptPartition[] = []
  for (let index = 0; index < count; index++) {
    const partition = partitionOf(array.subarray(index * width, (index + 1) * width), index + 1)
    if (partition) partitions.push(partition)
  }
  return {
    signed: true,
    problem: '',
    table: {
      sectorBytes: disk.sectorBytes,
      sectors: disk.sectors,
      diskGuid: guidText(bytes.subarray(56, 72)),
      firstUsableLba: Number(bytes.readBigUInt64LE(40)),
      lastUsableLba: Number(bytes.readBigUInt64LE(48)),
      partitions,
    },
  }
}

function partitionOf(entry: Buffer, number: number): GptPartition | undefined {
  if (entry.subarray(0, 16).every((byte) => byte === 0)) return undefined
  const label = entry.subarray(56, 128).toString('utf16le')
  const end = label.indexOf('\0')
  return {
    number,
    typeGuid: guidText(entry.subarray(0, 16)),
    guid: guidText(entry.subarray(16, 32)),
    startLba: Number(entry.readBigUInt64LE(32)),
    endLba: Number(entry.readBigUInt64LE(40)),
    attributes: entry.readBigUInt64LE(48),
    label: end < 0 ? label : label.slice(0, end),
  }
}

function entryOf(partition: GptPartition): Uint8Array {
  const entry = Buffer.alloc(entryBytes)
  entry.set(guidBytes(partition.typeGuid), 0)
  entry.set(guidBytes(partition.guid), 16)
  entry.writeBigUInt64LE(BigInt(partition.startLba), 32)
  entry.writeBigUInt64LE(BigInt(partition.endLba), 40)
  entry.writeBigUInt64LE(partition.attributes, 48)
  entry.write(partition.label.slice(0, labelMax), 56, 'utf16le')
  return entry
}

function header(
  table: GptTable,
  place: { own: number; other: number; arrayLba: number; arrayCrc: number },
): Uint8Array {
  const bytes = Buffer.alloc(table.sectorBytes)
  bytes.write(signature, 0, 'latin1')
  bytes.writeUInt32LE(0x00010000, 8)
  bytes.writeUInt32LE(92, 12)
  bytes.writeBigUInt64LE(BigInt(place.own), 24)
  bytes.writeBigUInt64LE(BigInt(place.other), 32)
  bytes.writeBigUInt64LE(BigInt(table.firstUsableLba), 40)
  bytes.writeBigUInt64LE(BigInt(table.lastUsableLba), 48)
  bytes.set(guidBytes(table.diskGuid), 56)
  bytes.writeBigUInt64LE(BigInt(place.arrayLba), 72)
  bytes.writeUInt32LE(entriesMax, 80)
  bytes.writeUInt32LE(entryBytes, 84)
  bytes.writeUInt32LE(place.arrayCrc, 88)
  bytes.writeUInt32LE(crc32(bytes.subarray(0, 92)), 16)
  return bytes
}

/** The MBR that keeps tools which know no GPT away (UEFI 2.10, section 5.2.3). */
function protectiveMbr(table: GptTable): Uint8Array {
  const bytes = Buffer.alloc(512)
  bytes.set([0x00, 0x00, 0x02, 0x00, 0xee, 0xff, 0xff, 0xff], 446)
  bytes.writeUInt32LE(1, 454)
  bytes.writeUInt32LE(Math.min(table.sectors - 1, 0xffffffff), 458)
  bytes.set([0x55, 0xaa], 510)
  return bytes
}

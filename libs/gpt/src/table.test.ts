import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { expect, test } from 'vitest'
import { crc32 } from './crc32.ts'
import { guidBytes, guidText } from './guid.ts'
import { sfdiskScript } from './sfdisk.ts'
import { type DiskWrite, emptyTable, type GptTable, parseTable, serialiseTable } from './table.ts'

/**
 * Sectors 0 to 33 and the last 33 of a 64 MiB file after `sfdisk FILE < golden.sfdisk` (util-linux 2.38.1), as
 * gzip in base64.
 */
const golden = gunzipSync(Buffer.from(readText('golden.gpt.base64'), 'base64'))
const disk = { sectorBytes: 512, sectors: (64 * 1024 * 1024) / 512 }

const table: GptTable = {
  ...disk,
  diskGuid: '01234567-89AB-CDEF-0123-456789ABCDEF',
  firstUsableLba: 2048,
  lastUsableLba: 131038,
  partitions: [
    {
      number: 1,
      typeGuid: 'C12A7328-F81F-11D2-BA4B-00A0C93EC93B',
      guid: '11111111-2222-3333-4444-555555555555',
      label: 'EFI',
      startLba: 2048,
      endLba: 22527,
      attributes: 0n,
    },
    {
      number: 2,
      typeGuid: '8484680C-9521-48C6-9C11-B0720656F69E',
      guid: '22222222-3333-4444-5555-666666666666',
      label: 'USR-A',
      startLba: 22528,
      endLba: 63487,
      attributes: 0n,
    },
    {
      number: 5,
      typeGuid: '4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709',
      guid: '33333333-4444-5555-6666-777777777777',
      label: 'größe "x"',
      startLba: 65536,
      endLba: 131038,
      attributes: (1n << 60n) | 1n,
    },
  ],
}

function readText(name: string): string {
  return readFileSync(new URL(`testdata/${name}`, import.meta.url), 'utf8')
}

function imageOf(writes: DiskWrite[], sizeBytes: number): Buffer {
  const image = Buffer.alloc(sizeBytes)
  for (const { offset, bytes } of writes) image.set(bytes, offset)
  return image
}

const readerOf = (image: Buffer) => (offset: number, length: number) =>
  image.subarray(offset, offset + length)
const size = disk.sectors * disk.sectorBytes

function goldenImage(): Buffer {
  const image = Buffer.alloc(size)
  golden.copy(image, 0, 0, 34 * 512)
  golden.copy(image, size - 33 * 512, 34 * 512)
  return image
}

test('the CRC of the check string is the one of the standard', () => {
  expect(crc32(Buffer.from('123456789'))).toBe(0xcbf43926)
})

test('a GUID survives its mixed-endian bytes', () => {
  const text = 'C12A7328-F81F-11D2-BA4B-00A0C93EC93B'
  expect(Buffer.from(guidBytes(text)).toString('hex')).toBe('28732ac11ff8d211ba4b00a0c93ec93b')
  expect(guidText(guidBytes(text))).toBe(text)
  expect(() => guidBytes('nonsense')).toThrow(/not a GUID/)
})

test('a table of sfdisk is read', () => {
  expect(parseTable(disk, readerOf(goldenImage()))).toEqual({ kind: 'table', table, problems: [] })
})

test('a table is written byte for byte as sfdisk writes it', () => {
  const image = imageOf(serialiseTable(table), size)
  const reference = goldenImage()
  // The boot code area of the MBR is nobody's business; sfdisk puts a random disk id there.
  expect(image.subarray(446, 34 * 512).equals(reference.subarray(446, 34 * 512))).toBe(true)
  expect(image.subarray(size - 33 * 512).equals(reference.subarray(size - 33 * 512))).toBe(true)
})

test('the script for sfdisk is the one the golden table was made with', () => {
  expect(sfdiskScript(table)).toBe(readText('golden.sfdisk'))
})

test('a damaged primary is replaced by the backup, and both damaged are told from nothing', () => {
  const image = goldenImage()
  image[512 + 100 - 44] = 0xff
  const reading = parseTable(disk, readerOf(image))
  expect(reading).toMatchObject({ kind: 'table', problems: ['primary: header CRC is wrong'] })
  image[size - 512 + 56] = 0xff
  expect(parseTable(disk, readerOf(image)).kind).toBe('broken')
  expect(parseTable(disk, readerOf(Buffer.alloc(size))).kind).toBe('none')
})

test('a wrong entry array is noticed', () => {
  const image = goldenImage()
  image[1024 + 60] = 0x41
  expect(parseTable(disk, readerOf(image))).toMatchObject({ problems: ['primary: entry CRC is wrong'] })
})

test('a DOS table is told from a protective MBR', () => {
  const image = Buffer.alloc(size)
  image.set([0x55, 0xaa], 510)
  expect(parseTable(disk, readerOf(image)).kind).toBe('none')
  image[446 + 4] = 0x83
  expect(parseTable(disk, readerOf(image)).kind).toBe('dos')
})

test('disks with 4096-byte sectors work as well', () => {
  const large = { sectorBytes: 4096, sectors: 16384 }
  const empty = emptyTable({ ...large, diskGuid: table.diskGuid })
  const written: GptTable = {
    ...empty,
    partitions: [{ ...table.partitions[0]!, startLba: empty.firstUsableLba, endLba: empty.lastUsableLba }],
  }
  const image = imageOf(serialiseTable(written), large.sectors * large.sectorBytes)
  expect(parseTable(large, readerOf(image))).toEqual({ kind: 'table', table: written, problems: [] })
})

test('a cut between any two writes leaves a readable table', () => {
  const before = goldenImage()
  const after = { ...table, partitions: table.partitions.slice(0, 2) }
  const writes = serialiseTable(after)
  for (let cut = 0; cut <= writes.length; cut++) {
    const image = Buffer.from(before)
    for (const { offset, bytes } of writes.slice(0, cut)) image.set(bytes, offset)
    expect(parseTable(disk, readerOf(image)).kind).toBe('table')
  }
})

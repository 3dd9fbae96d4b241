import {
  closeSync,
  existsSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readSync,
  writeSync,
} from 'node:fs'
import { type GptTable, parseTable, serialiseTable } from '@kiln/gpt'
import { assert } from '@kiln/service'
import type { DiskPort } from './disk-port.ts'

const sectorBytes = 512
const mebibyte = 1024 * 1024

/** A sparse file that stands for a disk; it is made when there is none. The table is written by our own code. */
export function fileDisk(path: string, sizeMiB: number): DiskPort {
  const opened = <T>(flags: string, use: (descriptor: number) => T): T => {
    const descriptor = openSync(path, flags)
    try {
      return use(descriptor)
    } finally {
      closeSync(descriptor)
    }
  }
  if (!existsSync(path)) opened('wx', (descriptor) => ftruncateSync(descriptor, sizeMiB * mebibyte))
  return {
    name: path,
    find: async () =>
      opened('r', (descriptor) => {
        const disk = { sectorBytes, sectors: Math.floor(fstatSync(descriptor).size / sectorBytes) }
        return { ...disk, reading: parseTable(disk, readerOf(descriptor)), busy: [] }
      }),
    write: async (table: GptTable) =>
      opened('r+', (descriptor) => {
        for (const { offset, bytes } of serialiseTable(table)) {
          assert(
            writeSync(descriptor, bytes, 0, bytes.length, offset) === bytes.length,
            'whole table written',
          )
        }
        fsyncSync(descriptor)
      }),
    locate: async (number, table) => {
      const partition = table.partitions.find((each) => each.number === number)
      assert(partition, `partition ${number} is in the table`)
      const sectors = partition.endLba - partition.startLba + 1
      return {
        path,
        offset: partition.startLba * sectorBytes,
        sizeBytes: sectors * sectorBytes,
        device: false,
      }
    },
  }
}

/** Reads of an open disk; what lies beyond its end reads as zeroes. */
export function readerOf(descriptor: number): (offset: number, length: number) => Uint8Array {
  return (offset, length) => {
    const bytes = Buffer.alloc(length)
    let done = 0
    while (done < length) {
      const count = readSync(descriptor, bytes, done, length - done, offset + done)
      if (count === 0) break
      done += count
    }
    return bytes
  }
}

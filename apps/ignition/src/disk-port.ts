import type { FoundDisk, GptTable } from '@kiln/gpt'

/** A whole disk: a block device, or a file that stands for one. */
export type DiskPort = {
  /** For messages. */
  name: string
  find(): Promise<FoundDisk>
  /** Puts the table on the disk and makes its partitions appear. */
  write(table: GptTable, how: { wipe: boolean; busy: number[] }): Promise<void>
  /** Where a partition's bytes are: a file to open, and the offset of the partition in it. */
  locate(number: number, table: GptTable): Promise<PartitionPlace>
}

export type PartitionPlace = {
  path: string
  offset: number
  sizeBytes: number
  /** A block device of its own, on which mkfs and mount work. */
  device: boolean
}

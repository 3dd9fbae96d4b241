export { crc32 } from './crc32.ts'
export { guidBytes, guidText, isGuid, partitionTypes } from './guid.ts'
export { lostPartitions, planAround } from './kept-partitions.ts'
export {
  type DiskSpec,
  describePartitionAction,
  type FoundDisk,
  type PartitionAction,
  type PartitionPlan,
  type PartitionSpec,
  planPartitions,
} from './partition-plan.ts'
export { sfdiskScript } from './sfdisk.ts'
export {
  type DiskWrite,
  emptyTable,
  entriesMax,
  type GptPartition,
  type GptReading,
  type GptTable,
  parseTable,
  serialiseTable,
} from './table.ts'

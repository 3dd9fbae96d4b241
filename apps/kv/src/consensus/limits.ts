import type { ConsensusLimits } from './types.ts'

export const defaultLimits: ConsensusLimits = {
  snapshotBytes: 64 << 20,
  snapshotEntries: 50_000,
  keptEntries: 5_000,
  snapshotFiles: 2,
  segmentBytes: 16 << 20,
  proposalBytesMax: 8 << 20,
  pendingMax: 20_000,
  uncommittedBytesMax: 64 << 20,
  unappliedEntriesMax: 5_000,
  requestTimeoutMs: 7_000,
  snapshotChunkBytes: 512 << 10,
}

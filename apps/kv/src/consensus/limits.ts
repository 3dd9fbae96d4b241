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

/** Ticks after which a read without an answer is asked again. */
export const readRetryTicks = 5
/** Ticks between attempts to get a log segment in reserve on a full disk. */
export const maintainTicks = 50

import { type Entry, noMembers, type Recovered, type SnapshotMeta } from '@kiln/raft'
import { Fault, type Log } from '@kiln/service'
import type { Disk } from '../wal/disk.ts'
import type { RecoveredLog } from '../wal/recovery.ts'
import { findSnapshot, type SnapshotFile } from '../wal/snapshot-file.ts'
import { openWal, type Wal } from '../wal/wal.ts'

export type RecoveredStore = {
  wal: Wal
  recovered: Recovered
  snapshot: SnapshotFile | undefined
  /** The log has to start over at the snapshot, and must say so before anything else is written. */
  origin: { index: number; term: number } | undefined
  /** Acknowledged entries may be missing: no vote until a leader has filled the log again. */
  refill: boolean
  /** Nothing was ever written here. */
  isNew: boolean
}

/** Opens what is on the disk: the newest good snapshot and the log behind it. */
export async function recoverStore(options: {
  disk: Disk
  clusterId: bigint
  memberId: bigint
  segmentBytes: number
  log: Log
  onFatal: (fault: Fault) => void
}): Promise<RecoveredStore> {
  const { found, damaged } = await findSnapshot(options.disk)
  if (damaged.length > 0) options.log.error({ damaged }, 'damaged snapshots are skipped')
  const { wal, recovered: log, refill } = await openWal(options)
  const { recovered, origin } = combine(log, found?.meta)
  const isNew = found === undefined && log.base.index === 0 && log.hardState.term === 0
  return { wal, recovered, snapshot: found, origin, refill, isNew }
}

/**
 * Fits snapshot and log together. A snapshot holds only what is committed, so where the log contradicts it, or ends before it,
 * the log is what goes.
 */
export function combine(
  log: Pick<RecoveredLog, 'base' | 'entries' | 'hardState'>,
  snapshot: SnapshotMeta | undefined,
): { recovered: Recovered; origin: { index: number; term: number } | undefined } {
  const meta = snapshot ?? { index: 0, term: 0, membership: noMembers }
  if (meta.index < log.base.index) {
    throw new Fault(
      'STORE_SNAPSHOT_MISSING',
      `the log begins after entry ${log.base.index} but the newest good snapshot ends at ${meta.index}`,
      { remedy: 'remove this member from the cluster and add it again with an empty data directory' },
    )
  }
  const place = meta.index - log.base.index
  const term = place === 0 ? log.base.term : log.entries[place - 1]?.term
  const fits = term === meta.term
  const entries = fits ? log.entries.slice(place).map(copyOf) : []
  const { hardState } = log
  const newer = meta.term > hardState.term
  return {
    recovered: {
      hardState: {
        term: newer ? meta.term : hardState.term,
        vote: newer ? 0n : hardState.vote,
        commit: Math.max(meta.index, Math.min(hardState.commit, meta.index + entries.length)),
      },
      snapshot: meta,
      entries,
    },
    origin: fits ? undefined : { index: meta.index, term: meta.term },
  }
}

/** What was read back is a view into a whole segment of the log, which would stay in memory as long as the entry. */
const copyOf = (entry: Entry): Entry => ({ ...entry, data: Buffer.from(entry.data) })

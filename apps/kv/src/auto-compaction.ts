import type { Clock } from '@kiln/service'
import type { AutoCompaction } from './settings/settings.ts'

const hourMs = 3_600_000
const revisionIntervalMs = 5 * 60_000

export type CompactionTarget = {
  isLeader(): boolean
  revision(): number
  compact(revision: number): Promise<void>
}

/**
 * Compacts by itself as etcd does: `revision` keeps the newest N, every five minutes; `periodic` keeps a period, looked at each
 * period up to an hour and hourly beyond (kv.md section 10). Only the leader proposes.
 */
export function startAutoCompaction(
  mode: AutoCompaction,
  target: CompactionTarget,
  clock: Clock,
): () => void {
  if (mode.kind === 'off') return () => undefined
  const intervalMs = mode.kind === 'revision' ? revisionIntervalMs : Math.min(mode.periodMs, hourMs)
  const seen: { at: number; revision: number }[] = []
  let compacted = 0
  let cancel = (): void => undefined
  const due = (now: number): number => {
    if (mode.kind === 'revision') return target.revision() - mode.keep
    seen.push({ at: now, revision: target.revision() })
    let revision = 0
    while (seen[0] && now - seen[0].at >= mode.periodMs) revision = seen.shift()!.revision
    return revision
  }
  const round = async (): Promise<void> => {
    const revision = due(clock.now())
    if (revision <= compacted || !target.isLeader()) return
    await target.compact(revision)
    compacted = revision
  }
  const schedule = (): void => {
    cancel = clock.after(intervalMs, () => {
      void round().then(schedule, schedule)
    })
  }
  schedule()
  return () => cancel()
}

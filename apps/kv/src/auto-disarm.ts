import { type Clock, describeError, type Log } from '@kiln/service'

const intervalMs = 5_000
/** An alarm ends only when there is room for a while: at the quota itself it would come right back. */
const usedShareMax = 0.9

export type DisarmTarget = {
  isArmed(): boolean
  usedBytes(): number
  quotaBytes: number
  disarm(): Promise<void>
}

/** Ends this member's NOSPACE alarm by itself once a compaction made room; etcd waits for an operator (kv.md section 11). */
export function startAutoDisarm(target: DisarmTarget, clock: Clock, log: Log): () => void {
  let cancel = (): void => undefined
  let isStopped = false
  const round = async (): Promise<void> => {
    if (!target.isArmed() || target.usedBytes() > target.quotaBytes * usedShareMax) return
    await target.disarm()
    log.info({ usedBytes: target.usedBytes() }, 'there is space again, alarm ended')
  }
  const schedule = (): void => {
    if (isStopped) return
    cancel = clock.after(intervalMs, () => {
      round()
        .catch((error: unknown) =>
          log.debug({ reason: describeError(error) }, 'the alarm could not be ended yet'),
        )
        .finally(schedule)
    })
  }
  schedule()
  return () => {
    isStopped = true
    cancel()
  }
}

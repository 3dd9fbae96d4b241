import { stat } from 'node:fs/promises'
import { type Clock, describeError, type Log } from '@kiln/service'

const intervalMs = 30_000

/** A certificate is renewed by writing its file: looks at it twice a minute. Answers what ends that. */
export function watchCertificate(
  file: string | undefined,
  clock: Clock,
  log: Log,
  renew: () => void,
): () => void {
  if (!file) return () => undefined
  let seen: string | undefined
  let cancel = (): void => undefined
  const look = async (): Promise<void> => {
    const { mtimeMs, ino } = await stat(file)
    const now = `${mtimeMs} ${ino}`
    if (seen !== undefined && now !== seen) {
      renew()
      log.info({ file }, 'certificate renewed')
    }
    seen = now
  }
  const schedule = (): void => {
    cancel = clock.after(intervalMs, () => {
      look()
        .catch((error: unknown) =>
          log.warn({ reason: describeError(error) }, 'certificate could not be renewed'),
        )
        .then(schedule, schedule)
    })
  }
  look().catch(() => undefined)
  schedule()
  return () => cancel()
}

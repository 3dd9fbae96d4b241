import { execFile } from 'node:child_process'
import { describeError, Fault } from './fault.ts'
import { createLog, type Log } from './log.ts'

export type RunningDaemon = { stop(): Promise<void> }

/** Seconds a daemon may take to stop before the process ends anyway. */
const stopDeadlineMs = 30_000

/**
 * Owns the process of a daemon: logger, SIGTERM and SIGINT, READY and STOPPING to systemd, and the exit code
 * (0 stopped, 1 failed, 2 settings invalid). `start` resolves when the daemon serves.
 */
export async function runDaemon(
  name: string,
  start: (log: Log, stopping: AbortSignal) => Promise<RunningDaemon>,
): Promise<void> {
  const log = createLog(name)
  const stopping = new AbortController()
  let running: RunningDaemon | undefined

  const stop = async (signal: string): Promise<void> => {
    if (stopping.signal.aborted) return
    log.info({ signal }, 'stopping')
    stopping.abort()
    notifySystemd('STOPPING=1')
    setTimeout(() => {
      log.error({ stopDeadlineMs }, 'stopping took too long')
      process.exit(1)
    }, stopDeadlineMs).unref()
    try {
      await running?.stop()
      process.exit(0)
    } catch (error) {
      log.error({ error }, 'stopping failed')
      process.exit(1)
    }
  }
  process.once('SIGTERM', () => void stop('SIGTERM'))
  process.once('SIGINT', () => void stop('SIGINT'))
  process.on('unhandledRejection', (error) => fail(error))
  process.on('uncaughtException', (error) => fail(error))

  const fail = (error: unknown): never => {
    log.error({ error }, describeError(error))
    process.exit(error instanceof Fault && error.code === 'SETTINGS_INVALID' ? 2 : 1)
  }

  try {
    running = await start(log, stopping.signal)
    notifySystemd('READY=1')
  } catch (error) {
    if (!stopping.signal.aborted) fail(error)
  }
}

/**
 * sd_notify(3) for `Type=notify` units. Node has no datagram unix sockets, so systemd's own tool speaks for us;
 * the units set `NotifyAccess=all`.
 */
export function notifySystemd(state: string): void {
  if (!process.env['NOTIFY_SOCKET']) return
  execFile('systemd-notify', [`--pid=${process.pid}`, state], () => undefined)
}

import { mkdir, open, readFile, rename, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { describeError, type Log } from '@kiln/service'

export type EventReason =
  | 'Prepared'
  | 'Created'
  | 'ImagePulled'
  | 'ImageFailed'
  | 'NetworkAttached'
  | 'NetworkFailed'
  | 'Started'
  | 'StartFailed'
  | 'Exited'
  | 'OOMKilled'
  | 'BackOff'
  | 'ProbeFailed'
  | 'ProbePassed'
  | 'Unhealthy'
  | 'Stopping'
  | 'Resumed'
  | 'Over'
  | 'Removed'

/** What happened to a pod, and why. */
export type PodEvent = {
  formatVersion: 1
  /** Rises by one, also over restarts of the daemon. */
  sequence: number
  at: string
  pod: string
  uuid: string
  container?: string
  reason: EventReason
  /** Something is not as it should be. */
  warning: boolean
  message: string
  /** Code of the fault behind it. */
  fault?: string
  exitCode?: number
  signal?: number
  /** How long a container waits before it is started again. */
  delayMs?: number
}

export type NewEvent = Omit<PodEvent, 'formatVersion' | 'sequence' | 'at' | 'warning'> & { warning?: boolean }

export type EventLog = {
  add(event: NewEvent): void
  /** Those that are remembered, the oldest first. */
  list(wanted?: { pod?: string | undefined; after?: number | undefined }): PodEvent[]
  /** Calls with each event from now on, until the answer is called. */
  follow(heard: (event: PodEvent) => void): () => void
  /** Waits until all is on the disk. */
  close(): Promise<void>
}

const rememberedMax = 2000
const messageMax = 1000

/**
 * The events of the pods of this machine: lines of JSON in `events/log`, with one older file, each up to `fileBytesMax`. Events of one turn are
 * written together and synced once; a line that a power cut tore is left out.
 */
export async function openEventLog(input: {
  stateDir: string
  fileBytesMax: number
  now(): number
  log: Log
}): Promise<EventLog> {
  const folder = join(input.stateDir, 'events')
  const current = join(folder, 'log')
  const older = join(folder, 'log.1')
  await mkdir(folder, { recursive: true })
  const remembered = [...(await readEvents(older)), ...(await readEvents(current))].slice(-rememberedMax)
  const listeners = new Set<(event: PodEvent) => void>()
  let sequence = remembered.at(-1)?.sequence ?? 0
  let waiting: string[] = []
  let writing: Promise<void> | undefined
  /** A torn last line must not swallow the next. */
  let begin = '\n'

  const write = async (): Promise<void> => {
    while (waiting.length > 0) {
      const text = begin + waiting.splice(0).join('')
      try {
        const size = await stat(current).then(
          (found) => found.size,
          () => 0,
        )
        if (size > 0 && size + text.length > input.fileBytesMax) await rename(current, older)
        const file = await open(current, 'a', 0o600)
        try {
          await file.writeFile(text)
          await file.datasync()
          begin = ''
        } finally {
          await file.close()
        }
      } catch (error) {
        input.log.warn({ error: describeError(error) }, 'events of pods cannot be written')
        begin = '\n'
      }
    }
  }

  return {
    add: (event) => {
      const { warning = false, message, ...rest } = event
      const whole: PodEvent = {
        formatVersion: 1,
        sequence: ++sequence,
        at: new Date(input.now()).toISOString(),
        ...rest,
        warning,
        message: message.slice(0, messageMax),
      }
      remembered.push(whole)
      if (remembered.length > rememberedMax) remembered.shift()
      // A disk that takes nothing must not fill the memory.
      waiting = [...waiting, `${JSON.stringify(whole)}\n`].slice(-rememberedMax)
      writing ??= write().finally(() => {
        writing = undefined
      })
      for (const listener of listeners) listener(whole)
    },
    list: ({ pod, after = 0 } = {}) =>
      remembered.filter(
        (event) => event.sequence > after && (pod === undefined || event.pod === pod || event.uuid === pod),
      ),
    follow: (heard) => {
      listeners.add(heard)
      return () => listeners.delete(heard)
    },
    close: async () => {
      listeners.clear()
      while (writing) await writing
    },
  }
}

async function readEvents(path: string): Promise<PodEvent[]> {
  const text = await readFile(path, 'utf8').catch(() => '')
  return text.split('\n').flatMap((line) => {
    try {
      const event = JSON.parse(line) as PodEvent
      return event.formatVersion === 1 ? [event] : []
    } catch {
      return []
    }
  })
}

import { appendFile, rename, stat } from 'node:fs/promises'
import type { Log } from '@kiln/service'

/** What somebody did or tried; never a secret. */
export type AuditEntry = {
  action: string
  outcome: 'allowed' | 'refused'
  machine?: string
  /** Common name of the client's certificate, or `anonymous`. */
  by?: string
  from?: string
  detail?: string
}

export type AuditLog = { write(entry: AuditEntry): Promise<void> }

const auditBytesMax = 16 * 1024 * 1024

/** Appends JSON lines; at 16 MiB the file becomes `audit.log.1` and replaces the one before. */
export function openAuditLog(path: string, log: Log): AuditLog {
  let last: Promise<void> = Promise.resolve()
  const append = async (line: string): Promise<void> => {
    const size = await stat(path).then(
      (found) => found.size,
      () => 0,
    )
    if (size + line.length > auditBytesMax) await rename(path, `${path}.1`)
    await appendFile(path, line, { mode: 0o600, flush: true })
  }
  return {
    write(entry) {
      const line = `${JSON.stringify({ at: new Date().toISOString(), ...entry })}\n`
      last = last
        .then(() => append(line))
        .catch((error: unknown) => log.error({ error, action: entry.action }, 'audit entry not written'))
      return last
    },
  }
}

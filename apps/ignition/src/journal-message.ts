import { existsSync } from 'node:fs'
import type { Run } from './run.ts'
import type { TargetRoot } from './target-root.ts'

const journalSocket = '/run/systemd/journal/socket'

/** Where messages wait for the journal of the machine, one file each; kiln-ignition-messages.service tells them. */
const messagesFolder = '/var/lib/kiln/ignition-messages'
/** A config with more users and parts than this is told of in part. */
const untoldMax = 1000

/**
 * Fields for the journal (systemd.journal-fields(7)). Our initramfs has none: there a message is kept until `keepMessages`. A journal
 * that refuses one is no failure, and a disk image has no journal at all.
 */
export async function tellJournal(
  run: Pick<Run, 'command' | 'options' | 'warn' | 'now' | 'untold'>,
  fields: Record<string, string>,
  socket = journalSocket,
): Promise<void> {
  if (run.options.diskImage !== undefined) return
  const all = { PRIORITY: '6', SYSLOG_IDENTIFIER: 'ignition', ...fields }
  if (!existsSync(socket)) {
    if (run.options.image !== undefined && run.untold.length < untoldMax)
      run.untold.push(entryOf({ ...all, SYSLOG_TIMESTAMP: run.now().toISOString() }))
    return
  }
  try {
    await run.command('logger', ['--journald'], { input: entryOf(all) })
  } catch (error) {
    run.warn(`the journal did not take a message: ${(error as Error).message}`)
  }
}

/** Leaves what no journal has heard yet in the new system; durable with the stage's final sync. */
export function keepMessages(target: TargetRoot, untold: readonly string[]): void {
  target.remove(messagesFolder)
  for (const [at, entry] of untold.entries())
    target.write(`${messagesFolder}/${String(at).padStart(4, '0')}`, entry, 0o600)
}

/** One entry as `logger --journald` reads it (logger(1)). */
function entryOf(fields: Record<string, string>): string {
  return Object.entries(fields)
    .map(([name, value]) => `${name}=${value.replaceAll('\n', ' ')}\n`)
    .join('')
}

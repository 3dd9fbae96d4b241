import { existsSync } from 'node:fs'
import type { Run } from './run.ts'

const journalSocket = '/run/systemd/journal/socket'

/** Fields for the journal (systemd.journal-fields(7)), where there is one; a journal that refuses them is no failure. */
export async function tellJournal(
  run: Pick<Run, 'command' | 'options' | 'warn'>,
  fields: Record<string, string>,
): Promise<void> {
  if (run.options.diskImage !== undefined || !existsSync(journalSocket)) return
  const lines = Object.entries({ PRIORITY: '6', SYSLOG_IDENTIFIER: 'ignition', ...fields }).map(
    ([name, value]) => `${name}=${value.replaceAll('\n', ' ')}\n`,
  )
  try {
    await run.command('logger', ['--journald'], { input: lines.join('') })
  } catch (error) {
    run.warn(`the journal did not take a message: ${(error as Error).message}`)
  }
}

import { randomBytes } from 'node:crypto'
import { applyAccounts } from './account-files.ts'
import { closeJournal } from './apply-journal.ts'
import type { Progress } from './config-cache.ts'
import { enrol } from './enrol.ts'
import type { Fetched } from './fetch-stage.ts'
import { keepMessages } from './journal-message.ts'
import { writeCrypttab } from './luks.ts'
import { applyNodes } from './nodes.ts'
import { installs } from './options.ts'
import { settingsOfRendered } from './render-config.ts'
import { readBootId } from './reporter.ts'
import { writeResult } from './result-file.ts'
import type { Run } from './run.ts'
import { openTargetRoot, type TargetRoot } from './target-root.ts'
import { applyUnits } from './units-of-root.ts'

/** Groups and users, files, units, the machine's identity and the result file, below the target root. */
export async function runFiles(fetched: Fetched, { mounted, volumes }: Progress, run: Run): Promise<void> {
  const target = openTargetRoot(run)
  await applyParts(fetched, mounted.made, target, run)
  writeCrypttab(volumes, target)
  // A root that is not ours keeps its first boot, at which systemd applies the presets.
  if (installs(run.options)) writeMachineId(target)
  await enrol(target, run)
  if (installs(run.options)) keepMessages(target, run.untold)
  const { userConfigProvided } = fetched
  const { repeated } = writeResult(target, { bootId: readBootId(), at: run.now(), userConfigProvided })
  // An install syncs all of it once, after the boot files.
  if (!installs(run.options)) {
    await run.command('sync', [])
    closeJournal(target)
  }
  if (repeated)
    run.warn('files: this root was provisioned before; the earlier report is kept in the result file')
}

/** What a machine and a container that is being built have in common: accounts, files, units. */
export async function applyParts(
  fetched: Fetched,
  made: string[],
  target: TargetRoot,
  run: Run,
): Promise<void> {
  const settings = await settingsOfRendered(fetched.config, run.fetcher, run.settings)
  await applyAccounts(fetched.config, made, target, run)
  await applyNodes(fetched, target, { ...run, settings })
  applyUnits(fetched.config, target, run)
}

/** With a machine-id systemd does not take the first boot for one, which would apply presets for a minute. */
function writeMachineId(target: TargetRoot): void {
  const text = target.read('/etc/machine-id')?.trim() ?? ''
  if (/^[0-9a-f]{32}$/.test(text)) return
  const bytes = randomBytes(16)
  // Version 4, variant DCE, as systemd-machine-id-setup makes them.
  bytes[6] = (bytes[6]! & 0x0f) | 0x40
  bytes[8] = (bytes[8]! & 0x3f) | 0x80
  target.write('/etc/machine-id', `${bytes.toString('hex')}\n`, 0o444, { uid: 0, gid: 0 })
}

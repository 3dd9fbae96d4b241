import { readFileSync } from 'node:fs'
import { Fault } from '@kiln/service'
import * as z from 'zod'

/** `quarantine.json`: stories that do not run for now, why, and since when. */
export const Quarantine = z.array(
  z.strictObject({ story: z.string(), reason: z.string().min(10), since: z.iso.date() }),
)
export type Quarantine = z.output<typeof Quarantine>

export function readQuarantine(path: string | URL): Quarantine {
  try {
    return Quarantine.parse(JSON.parse(readFileSync(path, 'utf8')))
  } catch (cause) {
    throw new Fault('QUARANTINE_INVALID', 'the list of stories in quarantine cannot be read', { cause })
  }
}

/** Why a story does not run, if it is in quarantine. */
export function quarantineReason(quarantine: Quarantine, story: string): string | undefined {
  const found = quarantine.find((entry) => entry.story === story)
  return found && `in quarantine since ${found.since}: ${found.reason}`
}

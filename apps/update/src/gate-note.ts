import { readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { atomicWrite } from '@kiln/service'
import * as z from 'zod'

/** What the health gate of a boot on trial last said. `settling`: nothing was wrong, it had only not been green for long enough. */
const GateNote = z.object({ bootId: z.string(), problems: z.array(z.string()), settling: z.boolean() })
export type GateNote = z.output<typeof GateNote>

const noteFile = (stateDir: string, generation: number): string => join(stateDir, `gate-${generation}.json`)
/** Written by infra's health-deadline just before it ends a boot: the id of that boot. */
const deadlineFile = (stateDir: string, generation: number): string =>
  join(stateDir, `deadline-${generation}`)

export async function writeGateNote(stateDir: string, generation: number, note: GateNote): Promise<void> {
  await atomicWrite(noteFile(stateDir, generation), JSON.stringify(note) + '\n')
}

/** A boot that is blessed leaves nothing to explain. */
export async function removeGateNote(stateDir: string, generation: number): Promise<void> {
  for (const file of [noteFile, deadlineFile]) await rm(file(stateDir, generation), { force: true })
}

/** Why the trial boots of a generation came back, from what they left. */
export async function readFallbackReason(
  stateDir: string,
  generation: number,
  triesDone: number,
): Promise<string> {
  const read = (path: string): Promise<string | undefined> => readFile(path, 'utf8').catch(() => undefined)
  const text = await read(noteFile(stateDir, generation))
  return fallbackReason({
    note: text === undefined ? undefined : GateNote.safeParse(parseJson(text)).data,
    deadlineBootId: (await read(deadlineFile(stateDir, generation)))?.trim(),
    triesDone,
  })
}

/**
 * Only the deadline ends a boot for its health: one that ended without it died of something else, and what the gate said then is
 * told as what was seen last, not as the reason. Pure.
 */
export function fallbackReason(left: {
  note: GateNote | undefined
  deadlineBootId: string | undefined
  triesDone: number
}): string {
  const { note, deadlineBootId, triesDone } = left
  const tries = triesDone > 0 ? ` in ${triesDone} boots` : ''
  const problems = note?.problems.join('; ').replaceAll(/\s+/g, ' ') ?? ''
  if (deadlineBootId !== undefined && (!note || note.bootId === deadlineBootId)) {
    if (problems !== '') return `health gate stayed red until the deadline${tries}: ${problems}`
    if (!note) return `kiln-update did not look at the health of the machine before the deadline${tries}`
    return `health gate was green but the boot was not blessed before the deadline${tries}`
  }
  const ends = 'kernel panic, hang, power cut or a reboot by hand; see its console'
  if (!note) return `did not reach the health gate${tries} (verity error, ${ends})`
  const seen =
    problems !== ''
      ? `the health gate last saw: ${problems}`
      : note.settling
        ? 'the health gate had just begun to be green'
        : 'the health gate was green'
  return `ended before the health gate decided${tries} (${ends}); ${seen}`
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { atomicWrite, Fault } from '@kiln/service'
import * as z from 'zod'
import type { UpdateState } from './decide.ts'

/** Failures remembered; the oldest go first. */
const failuresMax = 32

const Generation = z.number().int().min(0)

/** `state.json`, and beside it what cannot wait for a decision: bytes already in the slot. */
const StateFile = z.looseObject({
  formatVersion: z.literal(1),
  generationMax: Generation,
  staged: z.object({ version: z.string(), generation: Generation, slot: z.enum(['a', 'b']) }).optional(),
  attempt: z.object({ version: z.string(), generation: Generation, bootId: z.string() }).optional(),
  failures: z.array(
    z.object({ version: z.string(), generation: Generation, reason: z.string(), at: z.string() }),
  ),
  /** The failure that other machines and the boot server have not heard of. */
  unannounced: z
    .object({ version: z.string(), generation: Generation, reason: z.string(), at: z.string() })
    .optional(),
})
export type SavedState = UpdateState & Pick<z.output<typeof StateFile>, 'unannounced'>

/** How far a download got: everything below `bytes` is synced in the slot. */
const Progress = z.object({ manifestSha256: z.string(), slot: z.enum(['a', 'b']), bytes: Generation })
export type Progress = z.output<typeof Progress>

/** Reads the state of this disk; a disk without one starts at the booted generation. */
export async function loadState(stateDir: string, bootedGeneration: number): Promise<SavedState> {
  const path = join(stateDir, 'state.json')
  const text = await readIfThere(path)
  if (text === undefined) return { formatVersion: 1, generationMax: bootedGeneration, failures: [] }
  const result = StateFile.safeParse(parseJson(text))
  if (!result.success)
    throw new Fault(
      'UPDATE_STATE_INVALID',
      `${path} is not a state of kiln-update: ${result.error.issues[0]?.message}`,
      {
        remedy: 'move the file away; the next release is then installed anew',
      },
    )
  return { ...result.data, generationMax: Math.max(result.data.generationMax, bootedGeneration) }
}

export async function saveState(stateDir: string, state: SavedState): Promise<void> {
  await mkdir(stateDir, { recursive: true })
  const kept = { ...state, failures: state.failures.slice(-failuresMax) }
  await atomicWrite(join(stateDir, 'state.json'), JSON.stringify(kept, null, 2) + '\n')
}

export async function loadProgress(stateDir: string): Promise<Progress | undefined> {
  const text = await readIfThere(join(stateDir, 'download.json'))
  const result = Progress.safeParse(text === undefined ? undefined : parseJson(text))
  return result.success ? result.data : undefined
}

export async function saveProgress(stateDir: string, progress: Progress): Promise<void> {
  await mkdir(stateDir, { recursive: true })
  await atomicWrite(join(stateDir, 'download.json'), JSON.stringify(progress))
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

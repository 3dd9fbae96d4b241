import { mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { atomicWrite } from '@kiln/service'

/** Where a target root says how far its install is. */
export const markerPaths = {
  /** Exists from the first mount of ROOT. */
  installing: 'var/lib/kiln/installing',
  /** Why the install stopped, in words; gone with the next try. */
  failure: 'var/lib/kiln/failure',
  /** Written last: the system is complete (docs/reference/seams.md). */
  installed: 'var/lib/kiln/installed',
} as const

export type InstalledMarker = { version: string; generation: number; configHash: string; at: string }

/** Writes a marker so that it survives a power cut. */
export async function writeMarker(root: string, path: string, content: object): Promise<void> {
  const full = join(root, path)
  mkdirSync(dirname(full), { recursive: true })
  await atomicWrite(full, `${JSON.stringify({ formatVersion: 1, ...content })}\n`, { mode: 0o644 })
}

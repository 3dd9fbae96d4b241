import { closeSync, fsyncSync, lstatSync, openSync, rmSync } from 'node:fs'
import { dirname } from 'node:path'
import { Fault } from '@kiln/service'
import type { PlannedNode } from './node-order.ts'
import type { TargetRoot } from './target-root.ts'

/** Where the journal is while a config is being applied; it goes when the stage is complete. */
export const journalPath = '/etc/.ignition-journal'
/** The same for directories that are made for mount points. */
export const madePath = '/etc/.ignition-made'

/** What was at a path before the config was applied for the first time. */
export type Before = { kind: 'absent' } | { kind: 'file'; bytes: number } | { kind: 'other' }

/**
 * What was there before, for the rules of Ignition that cannot be applied twice: a file that must not exist yet, bytes
 * that are appended. Written and synced before the first of them, so that a run that a power cut ended is taken up
 * again by the same config, and by no other.
 */
export type ApplyJournal = {
  /** A run before this one made what is at the path now: it may be replaced. */
  madeBefore(path: string): boolean
  /** Bytes that were in the file before anything was appended, when a run before this one may have appended. */
  bytesBefore(path: string): number | undefined
}

type JournalFile = { formatVersion: 1; configHash: string; before: Record<string, Before> }

/** Opens the journal of a run that did not finish, or writes one. */
export function openJournal(planned: PlannedNode[], configHash: string, target: TargetRoot): ApplyJournal {
  const found = target.read(journalPath)
  const file = found === undefined ? undefined : parsed(found)
  if (file && file.configHash !== configHash) {
    throw new Fault('CONFIG_CHANGED', 'an earlier run applied another config and did not finish', {
      remedy: `give it that config again, or format the root; to go on as it is, remove ${journalPath} from it`,
    })
  }
  if (file) {
    const of = (path: string): Before | undefined =>
      Object.hasOwn(file.before, path) ? file.before[path] : undefined
    return {
      madeBefore: (path) => of(path)?.kind === 'absent',
      bytesBefore: (path) => {
        const before = of(path)
        return before?.kind === 'file' ? before.bytes : undefined
      },
    }
  }
  const before = Object.fromEntries(planned.map(({ node }) => [node.path, stateOf(target.place(node.path))]))
  const written: JournalFile = { formatVersion: 1, configHash, before }
  target.write(journalPath, `${JSON.stringify(written)}\n`, 0o600)
  const place = target.place(journalPath)
  for (const each of [place, dirname(place)]) synced(each)
  return { madeBefore: () => false, bytesBefore: () => undefined }
}

/** The stage is complete and on the disk: from here on what is there is the machine's own. */
export function closeJournal(target: TargetRoot): void {
  for (const path of [journalPath, madePath]) rmSync(target.place(path), { force: true })
}

/** Directories that the mount stage of an unfinished run of the same config made: users may have to own them yet. */
export function madeDirectories(configHash: string, target: TargetRoot): string[] {
  try {
    const file = JSON.parse(target.read(madePath) ?? '{}') as { configHash?: string; made?: string[] }
    return file.configHash === configHash ? (file.made ?? []) : []
  } catch {
    return []
  }
}

/** Remembers directories before they are made. */
export function rememberMade(configHash: string, made: string[], target: TargetRoot): void {
  target.write(madePath, `${JSON.stringify({ formatVersion: 1, configHash, made })}\n`, 0o600)
  for (const each of [target.place(madePath), dirname(target.place(madePath))]) synced(each)
}

/** A journal is renamed into place whole; one that cannot be read was never complete, so nothing was applied. */
function parsed(text: string): JournalFile | undefined {
  try {
    const file = JSON.parse(text) as JournalFile
    return file.formatVersion === 1 ? file : undefined
  } catch {
    return undefined
  }
}

function stateOf(place: string): Before {
  const stats = lstatSync(place, { throwIfNoEntry: false })
  if (!stats) return { kind: 'absent' }
  return stats.isFile() ? { kind: 'file', bytes: stats.size } : { kind: 'other' }
}

function synced(path: string): void {
  const descriptor = openSync(path, 'r')
  try {
    fsyncSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
}

import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Fault } from '@kiln/service'
import type { StateFolder } from './state-folder.ts'

const run = promisify(execFile)

/** Files of one snapshot: a folder below the state folder, complete once it has its final name. */
export type SnapshotFolder = {
  root: string
  bootData: string
  machine(name: string): { memory: string; disk: string; vars: string }
}

const namePattern = /^[a-z0-9][a-z0-9-]{0,40}$/

export function snapshotFolder(state: StateFolder, name: string): SnapshotFolder {
  if (!namePattern.test(name)) {
    throw new Fault('USAGE', `a snapshot's name has small letters, digits and dashes, not "${name}"`)
  }
  return folderAt(join(state.root, 'snapshots', name))
}

function folderAt(root: string): SnapshotFolder {
  const of = (machine: string, what: string): string => join(root, `${machine}.${what}`)
  return {
    root,
    bootData: join(root, 'boot'),
    machine: (name) => ({ memory: of(name, 'memory'), disk: of(name, 'disk'), vars: of(name, 'vars') }),
  }
}

/** Makes a snapshot below a temporary name; it gets its own, and replaces an older one, only when it is whole. */
export async function writeSnapshot(
  folder: SnapshotFolder,
  write: (into: SnapshotFolder) => Promise<void>,
): Promise<void> {
  const partial = folderAt(`${folder.root}.partial`)
  await rm(partial.root, { recursive: true, force: true })
  await mkdir(partial.root, { recursive: true, mode: 0o700 })
  try {
    await write(partial)
    await writeFile(join(partial.root, 'complete'), '')
    await rm(folder.root, { recursive: true, force: true })
    await rename(partial.root, folder.root)
  } catch (error) {
    await rm(partial.root, { recursive: true, force: true })
    throw error
  }
}

export function requireSnapshot(folder: SnapshotFolder): void {
  if (existsSync(join(folder.root, 'complete'))) return
  throw new Fault('SNAPSHOT_UNKNOWN', `there is no snapshot in ${folder.root}`)
}

/** Copies a file or folder over what is there, keeping the holes of disks. */
export async function copyOver(from: string, to: string): Promise<void> {
  await rm(to, { recursive: true, force: true })
  await run('cp', ['--archive', '--sparse=always', '--reflink=auto', from, to])
}

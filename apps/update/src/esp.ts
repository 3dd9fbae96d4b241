import { mkdir, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { atomicWrite, syncDirectory } from '@kiln/service'
import { blessedEntryName, type Entry, parseEntryName } from './entries.ts'

const entriesDir = (espDir: string): string => join(espDir, 'loader/entries')

/** Our entries on the ESP. */
export async function readEntries(espDir: string): Promise<Entry[]> {
  const files = await readdir(entriesDir(espDir))
  return files.sort().flatMap((file) => parseEntryName(file) ?? [])
}

/** Removes entries and makes that durable before anything they point to changes. */
export async function removeEntries(espDir: string, entries: Entry[]): Promise<void> {
  for (const entry of entries) await rm(join(entriesDir(espDir), entry.file), { force: true })
  if (entries.length > 0) await syncDirectory(entriesDir(espDir))
}

/** Versions whose kernels lie on the ESP. */
export async function readKernelFolders(espDir: string): Promise<string[]> {
  await mkdir(join(espDir, 'kiln'), { recursive: true })
  return readdir(join(espDir, 'kiln'))
}

export async function removeKernelFolders(espDir: string, versions: string[]): Promise<void> {
  for (const version of versions) await rm(join(espDir, 'kiln', version), { recursive: true, force: true })
  if (versions.length > 0) await syncDirectory(join(espDir, 'kiln'))
}

/** Writes kernel or initramfs of a release: temporary name, fsync, rename, fsync of the folders. */
export async function writeKernelPart(
  espDir: string,
  at: { version: string; name: string },
  content: Uint8Array,
): Promise<void> {
  const folder = join(espDir, 'kiln', at.version)
  await mkdir(folder, { recursive: true })
  await atomicWrite(join(folder, at.name), content)
  await syncDirectory(join(espDir, 'kiln'))
}

/** The last step of an install: from here on the boot loader tries the release. */
export async function writeEntry(espDir: string, file: string, text: string): Promise<void> {
  await atomicWrite(join(entriesDir(espDir), file), text)
}

/** Blesses a boot: drops the counter from the entry's name and syncs its directory. May run twice. */
export async function blessEntry(espDir: string, generation: number): Promise<void> {
  const entry = (await readEntries(espDir)).find((one) => one.generation === generation)
  if (!entry || entry.triesLeft === undefined) return
  await rename(join(entriesDir(espDir), entry.file), join(entriesDir(espDir), blessedEntryName(entry)))
  await syncDirectory(entriesDir(espDir))
}

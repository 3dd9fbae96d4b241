import { mkdir, readdir, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import {
  changedArguments,
  KernelArgumentChanges,
  kernelArgumentsFile,
  type ReleaseManifest,
} from '@kiln/schemas'
import { atomicWrite, Fault, syncDirectory } from '@kiln/service'
import {
  blessedEntryName,
  type Entry,
  parseEntryName,
  stagedEntryName,
  stagedSuffix,
  trialEntryName,
} from './entries.ts'

const loaderFolder = 'EFI/BOOT'
/** Where the firmware looks, and what the boot loader is called while it must not be found. */
const loaderFile = 'BOOTX64.EFI'
const hiddenLoaderFile = 'reprovision.efi'

const entriesDir = (espDir: string): string => join(espDir, 'loader/entries')

/** Our entries on the ESP. */
export async function readEntries(espDir: string): Promise<Entry[]> {
  const files = await readdir(entriesDir(espDir))
  return files.sort().flatMap((file) => parseEntryName(file) ?? [])
}

/** Removes entries, and those that wait, and makes that durable before anything they point to changes. */
export async function removeEntries(espDir: string, entries: Entry[]): Promise<void> {
  const waiting = (await readdir(entriesDir(espDir))).filter((file) => file.endsWith(stagedSuffix))
  const files = [...entries.map((entry) => entry.file), ...waiting]
  for (const file of files) await rm(join(entriesDir(espDir), file), { force: true })
  if (files.length > 0) await syncDirectory(entriesDir(espDir))
}

/** Arguments of a release's kernel, with what the machine's config changes of them (written at the install). */
export async function argumentsFor(manifest: ReleaseManifest, espDir: string): Promise<string[]> {
  const path = join(espDir, kernelArgumentsFile)
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  if (text === undefined) return manifest.kernelArguments
  try {
    return changedArguments(manifest.kernelArguments, KernelArgumentChanges.parse(JSON.parse(text)))
  } catch (cause) {
    throw new Fault('KERNEL_ARGUMENTS_DAMAGED', `${path} is not what the install wrote`, {
      cause,
      remedy: 'write it anew: {"formatVersion":1,"shouldExist":[...],"shouldNotExist":[...]}, or remove it',
    })
  }
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

/** The last step of an install: the entry, complete, under a name the boot loader does not read yet. */
export async function writeEntry(espDir: string, file: string, text: string): Promise<void> {
  await atomicWrite(join(entriesDir(espDir), file), text)
}

/** From here on the boot loader tries the release. May run twice. */
export async function armEntry(
  espDir: string,
  release: { version: string; generation: number },
): Promise<void> {
  if ((await readEntries(espDir)).some((one) => one.generation === release.generation)) return
  const names = [stagedEntryName, trialEntryName].map((name) => name(release.generation, release.version))
  const [from, to] = names.map((name) => join(entriesDir(espDir), name))
  await rename(from!, to!).catch((cause: unknown) => {
    throw new Fault('UPDATE_ENTRY_MISSING', `${from} of the staged release cannot be put in place`, {
      cause,
      remedy: 'run "kiln-update reset" and restart the daemon: the release is then installed anew',
    })
  })
  await syncDirectory(entriesDir(espDir))
}

/** Takes an armed release back: the turn was given up before the reboot. May run twice. */
export async function disarmEntry(
  espDir: string,
  release: { version: string; generation: number },
): Promise<void> {
  const armed = trialEntryName(release.generation, release.version)
  if (!(await readEntries(espDir)).some((one) => one.file === armed)) return
  const to = stagedEntryName(release.generation, release.version)
  await rename(join(entriesDir(espDir), armed), join(entriesDir(espDir), to))
  await syncDirectory(entriesDir(espDir))
}

/** Blesses a boot: drops the counter from the entry's name and syncs its directory. May run twice. */
export async function blessEntry(espDir: string, generation: number): Promise<void> {
  const entry = (await readEntries(espDir)).find((one) => one.generation === generation)
  if (!entry || entry.triesLeft === undefined) return
  await rename(join(entriesDir(espDir), entry.file), join(entriesDir(espDir), blessedEntryName(entry)))
  await syncDirectory(entriesDir(espDir))
}

/** Hides the boot loader, so that the firmware turns to the network at the next boot. False when it was hidden before. */
export async function hideBootLoader(espDir: string): Promise<boolean> {
  const folder = join(espDir, loaderFolder)
  if (!(await readdir(folder)).includes(loaderFile)) return false
  await rename(join(folder, loaderFile), join(folder, hiddenLoaderFile))
  await syncDirectory(folder)
  return true
}

/** Puts a hidden boot loader back. False when there is none, or one is there. */
export async function showBootLoader(espDir: string): Promise<boolean> {
  const folder = join(espDir, loaderFolder)
  const files = await readdir(folder)
  if (files.includes(loaderFile) || !files.includes(hiddenLoaderFile)) return false
  await rename(join(folder, hiddenLoaderFile), join(folder, loaderFile))
  await syncDirectory(folder)
  return true
}

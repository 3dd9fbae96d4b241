import type { Slot } from './decide.ts'

/** A boot loader entry of ours on the ESP, as its file name says. */
export type Entry = {
  file: string
  generation: number
  version: string
  triesLeft?: number
  triesDone?: number
}

/** Tries systemd-boot gives a new entry before it boots the older one. */
const trialBoots = 2

/**
 * Reads `kiln-<generation>-<version>[+<left>[-<done>]].conf`, the boot counting names of the Boot Loader
 * Specification; undefined for files of others.
 */
export function parseEntryName(file: string): Entry | undefined {
  const match = /^kiln-(\d{1,9})-([0-9A-Za-z.~-]+?)(?:\+(\d+)(?:-(\d+))?)?\.conf$/.exec(file)
  if (!match) return undefined
  const [, generation, version, left, done] = match
  return {
    file,
    generation: Number(generation),
    version: version!,
    ...(left === undefined ? {} : { triesLeft: Number(left), triesDone: Number(done ?? 0) }),
  }
}

export const trialEntryName = (generation: number, version: string): string =>
  `kiln-${generation}-${version}+${trialBoots}.conf`

/**
 * Name of an entry that systemd-boot does not read: a release waits under it until the machine has the turn, so that a
 * power cut of the whole site does not start on every machine what only one was to try.
 */
export const stagedEntryName = (generation: number, version: string): string =>
  `${trialEntryName(generation, version)}${stagedSuffix}`

export const stagedSuffix = '.staged'

export const blessedEntryName = (entry: Entry): string => `kiln-${entry.generation}-${entry.version}.conf`

/** What the entry of a release says; `version` is the generation, so newer installs sort first. */
export function entryText(release: {
  version: string
  generation: number
  slot: Slot
  usrRootHash: string
  usrHashOffset: number
  kernelArguments: string[]
  bootUrl: string
  machine: string
}): string {
  const options = [
    ...release.kernelArguments,
    `kiln.slot=${release.slot}`,
    `kiln.generation=${release.generation}`,
    `kiln.version=${release.version}`,
    `kiln.usr.hash=${release.usrRootHash}`,
    `kiln.usr.offset=${release.usrHashOffset}`,
    `kiln.boot=${release.bootUrl}`,
    `kiln.machine=${release.machine}`,
  ]
  return [
    `title Kiln ${release.version} (slot ${release.slot})`,
    'sort-key kiln',
    `version ${release.generation}`,
    `linux /kiln/${release.version}/vmlinuz`,
    `initrd /kiln/${release.version}/initrd`,
    `options ${options.join(' ')}`,
    '',
  ].join('\n')
}

/**
 * What must go before the inactive slot is written: every entry but the booted one. From then on a power cut
 * finds only the running release.
 */
export function entriesToRemove(entries: Entry[], bootedGeneration: number): Entry[] {
  return entries.filter((entry) => entry.generation !== bootedGeneration)
}

/** Folders of kernels below `/kiln` on the ESP that no entry needs any more. */
export function kernelsToRemove(folders: string[], versions: string[]): string[] {
  return folders.filter((folder) => !versions.includes(folder))
}

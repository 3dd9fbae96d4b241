import { accessSync, constants } from 'node:fs'
import { join } from 'node:path'
import type { IgnitionConfig, IgnitionProblem } from '@kiln/schemas'

const mkfsTools: Readonly<Record<string, string>> = {
  ext4: 'mkfs.ext4',
  xfs: 'mkfs.xfs',
  btrfs: 'mkfs.btrfs',
  vfat: 'mkfs.vfat',
  swap: 'mkswap',
}

/** Whether a program can be started; a port, so that tests need no machine without it. */
export type HasProgram = (name: string) => boolean

/** Looks in the folders of PATH. */
export function programsOf(path: string | undefined): HasProgram {
  const folders = (path ?? '').split(':').filter((folder) => folder !== '')
  return (name) => folders.some((folder) => isExecutable(join(folder, name)))
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

/**
 * Programs that a config needs and this machine does not have. Known before anything is touched. An install of Kiln writes the kernel's
 * arguments itself.
 */
export function missingTools(
  config: IgnitionConfig,
  has: HasProgram,
  { installs }: { installs: boolean },
): IgnitionProblem[] {
  const problems: IgnitionProblem[] = []
  const need = (path: string, program: string, what: string): void => {
    if (has(program)) return
    const message = `${what} needs ${program}, which this machine does not have; add it to the image`
    problems.push({ path, severity: 'error', message, line: 0, column: 0 })
  }
  const { storage, kernelArguments } = config
  for (const index of (storage?.raid ?? []).keys()) need(`$.storage.raid.${index}`, 'mdadm', 'RAID')
  for (const [index, { clevis }] of (storage?.luks ?? []).entries()) {
    need(`$.storage.luks.${index}`, 'cryptsetup', 'LUKS')
    if (clevis) need(`$.storage.luks.${index}.clevis`, 'clevis', 'a clevis pin')
  }
  for (const [index, { format }] of (storage?.filesystems ?? []).entries()) {
    const tool = mkfsTools[format ?? '']
    if (tool) need(`$.storage.filesystems.${index}.format`, tool, `a file system of format ${format}`)
  }
  const changes = [...(kernelArguments?.shouldExist ?? []), ...(kernelArguments?.shouldNotExist ?? [])]
  if (changes.length > 0 && !installs) {
    need('$.kernelArguments', kargsHelper, 'a change of kernel arguments')
  }
  return problems
}

/** The distribution's program that edits the boot loader and reboots when it changed anything. */
export const kargsHelper = 'ignition-kargs-helper'

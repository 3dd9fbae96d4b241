import { type GptReading, partitionTypes } from '@kiln/gpt'
import { type IgnitionConfig, type IgnitionDisk, installLabels } from '@kiln/schemas'

/** The disk of an installed machine when the config does not say otherwise. */
export function installLayout(device: string): IgnitionDisk {
  return {
    device,
    partitions: [
      { number: 1, label: 'EFI', sizeMiB: 192, typeGuid: partitionTypes.efi },
      { number: 2, label: 'USR-A', sizeMiB: 320, typeGuid: partitionTypes.usr },
      { number: 3, label: 'USR-B', sizeMiB: 320, typeGuid: partitionTypes.usr },
      { number: 4, label: 'ROOT', sizeMiB: 0, typeGuid: partitionTypes.root, resize: true },
    ],
  }
}

/** Whether a config lays out the system's partitions itself. */
export function definesInstallLayout(config: IgnitionConfig): boolean {
  const labels = (config.storage?.disks ?? [])
    .flatMap((disk) => disk.partitions ?? [])
    .map(({ label }) => label)
  return installLabels.some((label) => labels.includes(label))
}

/** A disk the machine has. */
export type DiskCandidate = { device: string; sizeBytes: number; removable: boolean; reading: GptReading }

export type DiskChoice = { ok: true; device: string } | { ok: false; reason: string; remedy: string }

const diskSizeMin = 2 * 1024 ** 3

/**
 * The disk to install to: the one named; else the only fixed disk; else the only one that has our layout. It never
 * guesses between several.
 */
export function chooseDisk(candidates: DiskCandidate[], named: string | undefined): DiskChoice {
  if (named !== undefined) return { ok: true, device: named }
  const fixed = candidates.filter(({ removable, sizeBytes }) => !removable && sizeBytes >= diskSizeMin)
  const installed = fixed.filter(({ reading }) => hasInstallLayout(reading))
  const only = fixed.length === 1 ? fixed[0] : installed.length === 1 ? installed[0] : undefined
  if (only) return { ok: true, device: only.device }
  if (fixed.length === 0) {
    return { ok: false, reason: 'the machine has no fixed disk of 2 GiB or more', remedy: 'attach a disk' }
  }
  const names = fixed.map(({ device }) => device).join(', ')
  return {
    ok: false,
    reason: `the machine has ${fixed.length} disks (${names})`,
    remedy: 'name one with the kernel argument kiln.disk=',
  }
}

/** Whether a disk is one that an install, finished or not, has laid out. */
export function hasInstallLayout(reading: GptReading): boolean {
  if (reading.kind !== 'table') return false
  const labels = reading.table.partitions.map(({ label }) => label)
  return installLabels.every((label) => labels.includes(label))
}

/**
 * Whether the default layout may go on a disk: an empty one, one of ours, or any if a reinstall was asked for. Other
 * people's partitions are not ours to remove.
 */
export function mayInstall(reading: GptReading, reinstall: boolean): boolean {
  const empty = reading.kind === 'none' || (reading.kind === 'table' && reading.table.partitions.length === 0)
  return empty || hasInstallLayout(reading) || reinstall
}

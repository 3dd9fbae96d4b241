import type { Finding } from './config-path.ts'
import type { Decoded } from './decode.ts'
import type { Spec } from './specs.ts'

/** Labels of the image's own partitions, and the numbers that they have there. */
const imagePartitions: Record<string, number> = {
  'BIOS-BOOT': 1,
  'PowerPC-PReP-boot': 1,
  'EFI-SYSTEM': 2,
  boot: 3,
  root: 4,
}
const rootSizeMinMiB = 8192

/** Warnings about partitions that are meant to be those of the image. */
export function checkPartitions(config: Decoded, checks: Spec['checks']): Finding[] {
  const findings: Finding[] = []
  for (const [index, disk] of ((config['storage']?.disks ?? []) as Decoded[]).entries()) {
    const partitions = (disk['partitions'] ?? []) as Decoded[]
    for (const [at, partition] of partitions.entries()) {
      const warn = (field: string, message: string): void => {
        const path = ['storage', 'disks', index, 'partitions', at, field]
        findings.push({ space: 'json', severity: 'warning', path, message })
      }
      const label = partition['label'] as string | undefined
      if (label === undefined) continue
      if (checks.rootSize && label === 'root') checkRootSize(partition, partitions.slice(at + 1), warn)
      const number = Object.hasOwn(imagePartitions, label) ? imagePartitions[label] : undefined
      const reused = checks.partitionNumbers && disk['wipeTable'] !== true
      if (reused && number !== undefined && (partition['number'] ?? 0) !== number) {
        warn('label', 'incorrect partition number; a new partition will be created using reserved label')
      }
    }
  }
  return findings
}

function checkRootSize(
  root: Decoded,
  following: Decoded[],
  warn: (field: string, message: string) => void,
): void {
  if (root['sizeMiB']) {
    if (root['sizeMiB'] < rootSizeMinMiB) warn('sizeMiB', 'root should have 8GiB of space assigned')
    return
  }
  for (const { startMiB } of following) {
    if (startMiB) continue
    const message =
      'root partition cannot expand; it is set to fill available space but is followed by an auto-positioned partition'
    warn('label', message)
    return
  }
}

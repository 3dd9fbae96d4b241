import type { IgnitionConfig, IgnitionProblem } from '@kiln/schemas'

const partitionNumberMax = 128
const idMax = 0xffff_fffe

/**
 * What the specification lets pass and no machine can do: numbers out of range, unit names that are paths. Known before
 * anything is touched, so that no machine is left half set up.
 */
export function impossibleParts(config: IgnitionConfig): IgnitionProblem[] {
  const problems: IgnitionProblem[] = []
  const refuse = (path: string, message: string): void => {
    problems.push({ path, severity: 'error', message, line: 0, column: 0 })
  }
  const { storage, passwd, systemd } = config
  const range = (value: number | undefined, max: number, path: string): void => {
    if (value !== undefined && (value < 0 || value > max))
      refuse(path, `${value} is not between 0 and ${max}`)
  }
  for (const [index, disk] of (storage?.disks ?? []).entries()) {
    for (const [at, partition] of (disk.partitions ?? []).entries()) {
      const path = `$.storage.disks.${index}.partitions.${at}`
      range(partition.number, partitionNumberMax, `${path}.number`)
      range(partition.sizeMiB, Number.MAX_SAFE_INTEGER, `${path}.sizeMiB`)
      range(partition.startMiB, Number.MAX_SAFE_INTEGER, `${path}.startMiB`)
    }
  }
  for (const list of ['files', 'directories', 'links'] as const) {
    for (const [index, node] of (storage?.[list] ?? []).entries()) {
      range(node.user?.id, idMax, `$.storage.${list}.${index}.user.id`)
      range(node.group?.id, idMax, `$.storage.${list}.${index}.group.id`)
    }
  }
  for (const [index, user] of (passwd?.users ?? []).entries())
    range(user.uid, idMax, `$.passwd.users.${index}.uid`)
  for (const [index, group] of (passwd?.groups ?? []).entries()) {
    range(group.gid, idMax, `$.passwd.groups.${index}.gid`)
  }
  for (const [index, unit] of (systemd?.units ?? []).entries()) {
    const path = `$.systemd.units.${index}`
    const refused = (name: string): boolean => name.includes('/')
    if (refused(unit.name)) refuse(`${path}.name`, 'the name of a unit has no slash')
    for (const [at, dropin] of (unit.dropins ?? []).entries()) {
      if (refused(dropin.name)) refuse(`${path}.dropins.${at}.name`, 'the name of a drop-in has no slash')
    }
  }
  return problems
}

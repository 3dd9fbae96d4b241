import type { IgnitionConfig, IgnitionProblem } from '@kiln/schemas'

const partitionNumberMax = 128
const idMax = 0xffff_fffe
/** Limits of Linux: bytes of a name in a folder, and of a path without the zero at its end. */
const nameBytesMax = 255
const pathBytesMax = 4095

/**
 * What the specification lets pass and no machine can do: numbers out of range, unit names that are paths, paths that no
 * file can have; and no machine that Kiln runs on: keys in a Crypto Express card. Known before anything is touched, so that no machine is left half set up.
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
  const checkPath = (value: string | undefined, path: string): void => {
    const problem = pathProblem(value ?? '')
    if (problem) refuse(path, problem)
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
      checkPath(node.path, `$.storage.${list}.${index}.path`)
    }
  }
  for (const [index, link] of (storage?.links ?? []).entries()) {
    checkPath(link.target, `$.storage.links.${index}.target`)
  }
  for (const [index, filesystem] of (storage?.filesystems ?? []).entries()) {
    checkPath(filesystem.path, `$.storage.filesystems.${index}.path`)
  }
  for (const [index, luks] of (storage?.luks ?? []).entries()) {
    if (luks.cex?.enabled === true)
      refuse(`$.storage.luks.${index}.cex`, 'cex needs a Crypto Express card, which only an IBM Z has')
  }
  for (const [index, user] of (passwd?.users ?? []).entries()) {
    range(user.uid, idMax, `$.passwd.users.${index}.uid`)
    checkPath(user.homeDir, `$.passwd.users.${index}.homeDir`)
  }
  for (const [index, group] of (passwd?.groups ?? []).entries()) {
    range(group.gid, idMax, `$.passwd.groups.${index}.gid`)
  }
  for (const [index, unit] of (systemd?.units ?? []).entries()) {
    const path = `$.systemd.units.${index}`
    const refused = (name: string): boolean => name.includes('/')
    if (refused(unit.name)) refuse(`${path}.name`, 'the name of a unit has no slash')
    checkPath(unit.name, `${path}.name`)
    for (const [at, dropin] of (unit.dropins ?? []).entries()) {
      if (refused(dropin.name)) refuse(`${path}.dropins.${at}.name`, 'the name of a drop-in has no slash')
      checkPath(dropin.name, `${path}.dropins.${at}.name`)
    }
  }
  return problems
}

function pathProblem(path: string): string | undefined {
  if (path.includes('\0')) return 'a path has no zero byte'
  if (Buffer.byteLength(path) > pathBytesMax) return `a path is longer than ${pathBytesMax} bytes`
  const long = path.split('/').some((name) => Buffer.byteLength(name) > nameBytesMax)
  return long ? `a name in a path is longer than ${nameBytesMax} bytes` : undefined
}

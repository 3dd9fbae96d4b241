import { randomUUID } from 'node:crypto'

/** A node of a file system, before or after a run. */
export type CaseNode = {
  dir: string
  name: string
  uid: number
  gid: number
  contents?: string
  mode?: number
  target?: string
  hard?: boolean
}

export type CasePartition = {
  number?: number
  label?: string
  typeCode?: string
  typeGuid?: string
  guid?: string
  lengthSectors: number
  fsType?: string
  fsLabel?: string
  fsUuid?: string
  fsImageRef?: string
  hybrid?: boolean
  ambivalentFs?: boolean
  files?: CaseNode[]
  directories?: CaseNode[]
  links?: CaseNode[]
  removedNodes?: CaseNode[]
}

export type CaseDisk = { alignmentSectors: number; corruptTable?: boolean; partitions: CasePartition[] }

/** An end-to-end case as the case data describe it (README.md beside them). */
export type Case = {
  name: string
  group: string
  expect: 'success' | 'failure'
  minVersion: string | null
  maxVersion: string | null
  versions: string[]
  config: string
  env: string[]
  mountDevices: { label: string; substitution: string }[]
  systemConfigFiles: CaseNode[]
  needs: string[]
  in: CaseDisk[]
  out: CaseDisk[]
}

/** One run of a case: `version` is empty for a case that has no version in its config. */
export type CaseRun = { name: string; version: string; case: Case }

/** The runs of a case: every version, or the lowest and the highest. */
export function runsOf(each: Case, full: boolean): CaseRun[] {
  const { versions } = each
  const chosen = full || versions.length < 3 ? versions : [versions[0]!, versions.at(-1)!]
  return (chosen.length === 0 ? [''] : chosen).map((version) => ({
    name: version === '' ? each.name : `${each.name} ${version}`,
    version,
    case: each,
  }))
}

/** The case with its version and fresh UUIDs in place of `$version` and `$uuidN`, the same everywhere. */
export function withFreshValues({ case: each, version }: CaseRun): Case {
  const uuids = new Map<string, string>()
  const text = JSON.stringify({ config: each.config, in: each.in, out: each.out })
    .replaceAll('$version', version)
    .replaceAll(/\$uuid\d+/g, (name) => {
      const uuid = uuids.get(name) ?? randomUUID()
      uuids.set(name, uuid)
      return uuid
    })
  return { ...each, ...(JSON.parse(text) as Pick<Case, 'config' | 'in' | 'out'>) }
}

/** `needs` that a host without these kernel features cannot give, in words. */
export function missingNeed(each: Case, kernelFilesystems: ReadonlySet<string>): string | undefined {
  if (each.needs.includes('dm-crypt')) return 'needs device-mapper (dm-crypt), which runs in a VM story'
  if (/"raid"\s*:/.test(each.config)) return 'needs md (RAID), which runs in a VM story'
  for (const disk of [...each.in, ...each.out]) {
    for (const { fsType, files, directories, links } of disk.partitions) {
      const nodes = [...(files ?? []), ...(directories ?? []), ...(links ?? [])]
      if (nodes.length > 0 && fsType !== undefined && !mountable(fsType, kernelFilesystems)) {
        return `needs a mount of ${fsType}, which this kernel does not have`
      }
    }
  }
  return undefined
}

const mountable = (type: string, kernelFilesystems: ReadonlySet<string>): boolean =>
  kernelFilesystems.has(type) || !['vfat', 'xfs', 'btrfs', 'ext4', 'ext2'].includes(type)

/** A file system the config mounts that this kernel cannot: stages after `disks` cannot run then. */
export function unmountableFormat(
  config: string,
  kernelFilesystems: ReadonlySet<string>,
): string | undefined {
  let parsed: { storage?: { filesystems?: { format?: string; path?: string }[] } }
  try {
    parsed = JSON.parse(config)
  } catch {
    return undefined
  }
  return parsed.storage?.filesystems?.find(
    ({ format, path }) => path && format && !mountable(format, kernelFilesystems),
  )?.format
}

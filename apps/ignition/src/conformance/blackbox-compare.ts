import { lstatSync, readFileSync, readlinkSync, type Stats } from 'node:fs'
import { join } from 'node:path'
import { insideRoot } from '../root-path.ts'
import type { CaseDisk, CaseNode, CasePartition } from './blackbox-case.ts'
import { hasNodes, isPresent, type LoopDisk, mounted, tool, typeGuidOf } from './blackbox-disks.ts'

type TablePartition = { node: string; start: number; size: number; type: string; uuid: string; name?: string }

/** What of a disk differs from what the case expects; only attributes the case names are looked at. */
export async function differences(disk: LoopDisk, expected: CaseDisk, scratch: string): Promise<string[]> {
  const wanted = expected.partitions.filter(isPresent)
  const found: string[] = []
  const table = await partitionsOn(disk)
  for (const number of table.keys()) {
    if (!wanted.some((each) => each.number === number)) found.push(`partition ${number} should not exist`)
  }
  for (const partition of wanted) {
    const name = `partition ${partition.number}`
    const there = table.get(partition.number)
    if (!there) {
      found.push(`${name} is missing`)
      continue
    }
    const compare = (what: string, want: string | number | undefined, is: string | number): void => {
      if (want !== undefined && `${want}`.toUpperCase() !== `${is}`.toUpperCase()) {
        found.push(`${name}: ${what} is ${is}, not ${want}`)
      }
    }
    compare('label', partition.label, there.name ?? '')
    compare('type', typeGuidOf(partition), there.type)
    compare('guid', partition.guid, there.uuid)
    compare('size in sectors', partition.lengthSectors, there.size)
    found.push(...(await filesystemDifferences(disk, partition)).map((each) => `${name}: ${each}`))
    if (hasNodes(partition)) {
      const device = disk.partition(partition.number)
      await mounted({ device, type: partition.fsType }, join(scratch, 'check'), async (root) => {
        found.push(...nodeDifferences(root, partition).map((each) => `${name}: ${each}`))
      })
    }
  }
  return found
}

async function partitionsOn(disk: LoopDisk): Promise<Map<number, TablePartition>> {
  const text = await tool('sfdisk', ['--json', disk.file])
  const table = (JSON.parse(text) as { partitiontable: { partitions?: TablePartition[] } }).partitiontable
  return new Map(
    (table.partitions ?? []).map((each) => [
      Number(each.node.slice(disk.file.length).replace(/^p/, '')),
      each,
    ]),
  )
}

type Signature = { type: string; label: string | null; uuid: string | null }

async function filesystemDifferences(
  disk: LoopDisk,
  partition: CasePartition & { number: number },
): Promise<string[]> {
  const { fsType, fsLabel, fsUuid } = partition
  if (fsType === 'image') return []
  const text = await tool('wipefs', ['--json', '-O', 'TYPE,LABEL,UUID', disk.partition(partition.number)])
  const signatures = text.trim() === '' ? [] : (JSON.parse(text) as { signatures: Signature[] }).signatures
  if (fsType === 'blank') return signatures.length > 0 ? [`it holds ${signatures[0]!.type}, not nothing`] : []
  if (fsType === undefined) return []
  const there = signatures.find(({ type }) => type === fsType)
  if (!there)
    return [`it holds ${signatures.map(({ type }) => type).join(' and ') || 'nothing'}, not ${fsType}`]
  const found: string[] = []
  const same = (a: string, b: string): boolean =>
    a.replaceAll('-', '').toLowerCase() === b.replaceAll('-', '').toLowerCase()
  if (fsLabel && there.label !== fsLabel) found.push(`its label is ${there.label}, not ${fsLabel}`)
  if (fsUuid && !same(there.uuid ?? '', fsUuid)) found.push(`its uuid is ${there.uuid}, not ${fsUuid}`)
  return found
}

/** What of the files, folders and links below a root differs. */
export function nodeDifferences(root: string, partition: CasePartition): string[] {
  const found: string[] = []
  const look = (node: CaseNode, kind: string, right: (stats: Stats) => boolean): string | undefined => {
    const path = `/${join(node.dir, node.name)}`
    const full = join(insideRoot(root, `${path}/x`), '..')
    const place = kind === 'a link' ? insideRoot(root, path) : full
    const stats = lstatSync(place, { throwIfNoEntry: false })
    if (!stats) found.push(`${path} is missing`)
    else if (!right(stats)) found.push(`${path} is not ${kind}`)
    else {
      if (stats.uid !== node.uid || stats.gid !== node.gid) {
        found.push(`${path} belongs to ${stats.uid}:${stats.gid}, not ${node.uid}:${node.gid}`)
      }
      const mode = stats.mode & 0o7777
      if (node.mode && mode !== node.mode) {
        found.push(`${path} has mode ${mode.toString(8)}, not ${node.mode.toString(8)}`)
      }
      return place
    }
    return undefined
  }
  for (const node of partition.files ?? []) {
    const place = look(node, 'a file', (stats) => stats.isFile())
    if (place === undefined || !node.contents) continue
    const contents = readFileSync(place, 'utf8')
    if (contents !== node.contents) {
      found.push(`${node.dir}/${node.name} holds ${shortened(contents)}, not ${shortened(node.contents)}`)
    }
  }
  for (const node of partition.directories ?? []) look(node, 'a directory', (stats) => stats.isDirectory())
  for (const node of partition.links ?? []) {
    // Another name of a symbolic link is a hard link too.
    const place = look(node, 'a link', (stats) => node.hard === true || stats.isSymbolicLink())
    if (place === undefined) continue
    if (node.hard) {
      const original = lstatSync(insideRoot(root, node.target ?? ''), { throwIfNoEntry: false })
      if (original?.ino !== lstatSync(place).ino)
        found.push(`${node.name} is not a hard link to ${node.target}`)
    } else if (readlinkSync(place) !== node.target) {
      found.push(`${node.dir}/${node.name} points to ${readlinkSync(place)}, not ${node.target}`)
    }
  }
  for (const node of partition.removedNodes ?? []) {
    const place = insideRoot(root, `/${join(node.dir, node.name)}`)
    if (lstatSync(place, { throwIfNoEntry: false })) found.push(`${node.dir}/${node.name} should be gone`)
  }
  return found
}

const shortened = (text: string): string =>
  JSON.stringify(text.length > 300 ? `${text.slice(0, 300)}…` : text)

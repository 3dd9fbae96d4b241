import { execFile } from 'node:child_process'
import {
  chmodSync,
  closeSync,
  existsSync,
  ftruncateSync,
  lchownSync,
  linkSync,
  mkdirSync,
  openSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import type { CaseDisk, CaseNode, CasePartition } from './blackbox-case.ts'

const execute = promisify(execFile)
const sectorBytes = 512
const gptSectors = 2048
const commandMs = 60_000

/** Runs a program of the host; its standard output. */
export async function tool(command: string, args: string[], input?: string): Promise<string> {
  const running = execute(command, args, { timeout: commandMs, maxBuffer: 16 * 1024 * 1024 })
  // A program that ends before it has read everything says so with its exit code.
  running.child.stdin?.on('error', () => undefined)
  running.child.stdin?.end(input ?? '')
  return (await running).stdout
}

/** A disk of a case: a sparse file behind a loop device. */
export type LoopDisk = { file: string; device: string; partition(number: number): string }

/** GUIDs of the type names that the cases use. */
const typeGuids: Record<string, string> = {
  efi: 'C12A7328-F81F-11D2-BA4B-00A0C93EC93B',
  data: '0FC63DAF-8483-4772-8E79-3D69D8477DE4',
  'coreos-resize': '3884DD41-8582-4404-B9A8-E9B84F2DF50E',
  'coreos-rootfs': '5DFBF5F4-2848-4BAC-AA5E-0D9A20B745A6',
  'coreos-reserved': 'C95DC21A-DF0E-4340-8D7B-26CBFA9A03E0',
  'coreos-root-raid': 'BE9067B9-EA49-4F15-B4F6-F36F8C9E1818',
  bios: '21686148-6449-6E6F-744E-656564454649',
  swap: '0657FD6D-A4AB-43C4-84E5-0933C84B4F4F',
}

export const typeGuidOf = ({ typeGuid, typeCode }: CasePartition): string | undefined =>
  typeGuid ?? (typeCode === undefined ? undefined : typeGuids[typeCode])

const aligned = (sectors: number, alignment: number): number => Math.ceil(sectors / alignment) * alignment

function sectorsOf({ alignmentSectors, partitions }: CaseDisk): number {
  const lengths = partitions.map(({ lengthSectors }) => aligned(lengthSectors, alignmentSectors))
  return aligned(gptSectors, alignmentSectors) + lengths.reduce((sum, each) => sum + each, 0) + gptSectors
}

/** Makes the file, its table and its file systems; the loop device has the partitions' nodes. */
export async function makeDisk(
  before: CaseDisk,
  after: CaseDisk | undefined,
  { file, images, scratch }: { file: string; images: Record<string, string>; scratch: string },
): Promise<LoopDisk> {
  const sectors = Math.max(sectorsOf(before), after ? sectorsOf(after) : 0)
  const descriptor = openSync(file, 'w')
  ftruncateSync(descriptor, sectors * sectorBytes)
  closeSync(descriptor)
  await tool('sfdisk', ['--quiet', '--no-reread', '--no-tell-kernel', file], tableScript(before))
  const device = (await tool('losetup', ['--find', '--show', file])).trim()
  const disk: LoopDisk = { file, device, partition: (number) => `${device}p${number}` }
  try {
    // What a run that was killed left with the kernel would be taken for partitions of this disk.
    await tool('partx', ['--delete', device]).catch(() => undefined)
    const present = before.partitions.filter(isPresent)
    if (present.length > 0) await tool('partx', ['--add', device])
    for (const partition of present) await fill(partition, disk, images, scratch)
    if (before.corruptTable) corrupt(file, sectors)
  } catch (error) {
    await removeDisk(disk)
    throw error
  }
  return disk
}

/** An entry that is a partition, not a gap. */
export const isPresent = (partition: CasePartition): partition is CasePartition & { number: number } =>
  partition.typeCode !== 'blank' && partition.lengthSectors > 0 && partition.number !== undefined

function tableScript({ alignmentSectors, partitions }: CaseDisk): string {
  const lines = ['label: gpt', 'unit: sectors', '']
  let start = aligned(gptSectors, alignmentSectors)
  for (const partition of partitions) {
    if (isPresent(partition)) {
      const { number, lengthSectors, label, guid } = partition
      const fields = [`start=${start}`, `size=${lengthSectors}`]
      fields.push(`type=${typeGuidOf(partition) ?? typeGuids['data']}`)
      if (guid) fields.push(`uuid=${guid}`)
      if (label) fields.push(`name="${label}"`)
      lines.push(`${number} : ${fields.join(', ')}`)
    }
    start += aligned(partition.lengthSectors, alignmentSectors)
  }
  return `${lines.join('\n')}\n`
}

const makers: Record<string, (partition: CasePartition) => [string, string[]]> = {
  ext4: (partition) => ['mkfs.ext4', ['-q', '-F', ...labelled(partition, '-L', '-U')]],
  ext2: (partition) => ['mkfs.ext2', ['-q', '-F', ...labelled(partition, '-L', '-U')]],
  xfs: (partition) => [
    'mkfs.xfs',
    [
      '-q',
      '-f',
      ...labelled(partition, '-L'),
      ...(partition.fsUuid ? ['-m', `uuid=${partition.fsUuid}`] : []),
    ],
  ],
  btrfs: (partition) => ['mkfs.btrfs', ['-q', '--force', ...labelled(partition, '-L', '-U')]],
  vfat: (partition) => [
    'mkfs.vfat',
    [...labelled(partition, '-n'), ...(partition.fsUuid ? ['-i', partition.fsUuid.replaceAll('-', '')] : [])],
  ],
  swap: (partition) => ['mkswap', ['-f', ...labelled(partition, '-L', '-U')]],
}

function labelled({ fsLabel, fsUuid }: CasePartition, label: string, uuid?: string): string[] {
  return [...(fsLabel ? [label, fsLabel] : []), ...(fsUuid && uuid ? [uuid, fsUuid] : [])]
}

async function fill(
  partition: CasePartition & { number: number },
  disk: LoopDisk,
  images: Record<string, string>,
  scratch: string,
): Promise<void> {
  const { fsType, fsImageRef } = partition
  if (!fsType || fsType === 'blank') return
  const device = disk.partition(partition.number)
  if (fsType === 'image') {
    const image = join(scratch, `${partition.number}.image`)
    writeFileSync(image, Buffer.from(images[fsImageRef ?? ''] ?? '', 'base64'))
    await tool('sh', ['-c', 'bunzip2 <"$0" | dd of="$1" bs=1M conv=notrunc status=none', image, device])
    rmSync(image)
  } else {
    const make = makers[fsType]
    if (!make) throw new Error(`no way to make file system ${fsType}`)
    const [command, args] = make(partition)
    await tool(command, [...args, device])
  }
  if (!hasNodes(partition)) return
  await mounted({ device, type: fsType }, join(scratch, `p${partition.number}`), async (root) => {
    for (const node of partition.directories ?? []) putDirectory(root, node)
    for (const node of partition.files ?? []) putFile(root, node)
    for (const node of partition.links ?? []) putLink(root, node)
  })
}

export const hasNodes = ({ files, directories, links, removedNodes }: CasePartition): boolean =>
  [files, directories, links, removedNodes].some((nodes) => (nodes?.length ?? 0) > 0)

/** Mounts a partition while `use` runs; a device with several signatures needs the type. */
export async function mounted(
  { device, type }: { device: string; type?: string | undefined },
  point: string,
  use: (root: string) => Promise<void>,
): Promise<void> {
  mkdirSync(point, { recursive: true })
  await tool('mount', [...(type && type !== 'image' ? ['-t', type] : []), device, point])
  try {
    await use(point)
  } finally {
    await tool('umount', [point])
  }
}

function putFile(root: string, node: CaseNode): void {
  const path = join(root, node.dir, node.name)
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, node.contents ?? '')
  lchownSync(path, node.uid, node.gid)
  chmodSync(path, node.mode || 0o644)
}

function putDirectory(root: string, node: CaseNode): void {
  const path = join(root, node.dir, node.name)
  mkdirSync(path, { recursive: true })
  lchownSync(path, node.uid, node.gid)
  chmodSync(path, node.mode || 0o755)
}

function putLink(root: string, node: CaseNode): void {
  const path = join(root, node.dir, node.name)
  mkdirSync(dirname(path), { recursive: true })
  if (node.hard) linkSync(join(root, node.target ?? ''), path)
  else symlinkSync(node.target ?? '', path)
  if (!node.hard) lchownSync(path, node.uid, node.gid)
}

/** Damages both copies of the table, as a torn write would. */
function corrupt(file: string, sectors: number): void {
  const descriptor = openSync(file, 'r+')
  const noise = Buffer.alloc(16 * sectorBytes, 0x5a)
  writeSync(descriptor, noise, 0, noise.length, sectorBytes + 16)
  writeSync(descriptor, noise, 0, noise.length, (sectors - 20) * sectorBytes)
  closeSync(descriptor)
}

/** Takes the loop device away. */
export async function removeDisk({ device, file }: LoopDisk): Promise<void> {
  await tool('partx', ['--delete', device]).catch(() => undefined)
  await tool('losetup', ['--detach', device]).catch(() => undefined)
  if (existsSync(file)) rmSync(file)
}

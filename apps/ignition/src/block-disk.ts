import { closeSync, constants, existsSync, openSync, readdirSync, readFileSync, realpathSync } from 'node:fs'
import { basename } from 'node:path'
import { type FoundDisk, type GptTable, parseTable, sfdiskScript } from '@kiln/gpt'
import { assert, type Clock, Fault } from '@kiln/service'
import type { RunCommand } from './commands.ts'
import type { DiskPort } from './disk-port.ts'
import { readerOf } from './file-disk.ts'
import type { DiskCandidate } from './install-layout.ts'

const sysfs = '/sys/class/block'
const deviceWaitMs = 30_000
const pollMs = 50
const kernelWaitMs = 2_000
/** `blockdev` says so when the kernel refuses, or has no parser for GPT. */
const notReread = 1
/** Sizes in sysfs are in sectors of 512 bytes, whatever the disk's own are. */
const sysfsSectorBytes = 512
/** Kernel names of block devices that are no disks. */
const virtualNames = /^(loop|ram|zram|dm-|md|sr|fd|nbd|mtdblock)/

/** A disk of the machine. Reading is ours, writing is sfdisk's; the kernel is told by blockdev and partx. */
export function blockDisk(device: string, run: RunCommand, clock: Clock): DiskPort {
  const name = basename(device)
  return {
    name: device,
    find: async () => {
      refuseHeldDisk(device)
      return findDisk(device)
    },
    write: async (table, { wipe, busy }) => {
      const flags = [
        '--quiet',
        '--wipe',
        wipe ? 'always' : 'never',
        '--wipe-partitions',
        'never',
        '--lock=no',
        // It would wait a quarter of a second for udev before it asks the kernel to read the table, and sync all disks.
        '--no-reread',
        '--no-tell-kernel',
      ]
      const live = busy.length > 0 ? ['--force'] : []
      await run('sfdisk', [...flags, ...live, device], { input: sfdiskScript(table) })
      if (busy.length === 0) await run('blockdev', ['--rereadpt', device], { accepted: [0, notReread] })
      await tellKernelPatiently(device, table, run, clock)
      await appeared(device, table, clock)
      const after = findDisk(device).reading
      assert(after.kind === 'table', 'sfdisk wrote a table that can be read')
      assert(after.table.partitions.length === table.partitions.length, 'sfdisk wrote every partition')
    },
    locate: async (number, table) => {
      const partition = table.partitions.find((each) => each.number === number)
      assert(partition, `partition ${number} is in the table`)
      const path = `/dev/${partitionName(name, number)}`
      const sizeBytes = (partition.endLba - partition.startLba + 1) * table.sectorBytes
      return { path, offset: 0, sizeBytes, device: true }
    },
  }
}

/** The partition's kernel name: vda4, nvme0n1p4. */
export const partitionName = (disk: string, number: number): string =>
  /\d$/.test(disk) ? `${disk}p${number}` : `${disk}${number}`

function findDisk(device: string): FoundDisk {
  const name = basename(device)
  const sectorBytes = Number(readLine(`${sysfs}/${name}/queue/logical_block_size`) ?? 512)
  const sizeBytes = Number(readLine(`${sysfs}/${name}/size`) ?? 0) * sysfsSectorBytes
  const disk = { sectorBytes, sectors: sizeBytes / sectorBytes }
  const descriptor = openSync(device, 'r')
  try {
    return { ...disk, reading: parseTable(disk, readerOf(descriptor)), busy: busyPartitions(name) }
  } finally {
    closeSync(descriptor)
  }
}

/** Where udev runs it has a look at every partition that appears, and the kernel lets none go while it is open. */
async function tellKernelPatiently(
  device: string,
  table: GptTable,
  run: RunCommand,
  clock: Clock,
): Promise<void> {
  const until = clock.now() + kernelWaitMs
  for (;;) {
    try {
      return await tellKernel(device, table, run)
    } catch (error) {
      if (clock.now() > until) throw error
      await new Promise<void>((resolve) => clock.after(pollMs, resolve))
    }
  }
}

/**
 * The kernel is asked to read the table again, which it refuses while a partition is in use, and cannot do without a
 * parser for GPT: what it does not have as it should be is told to it partition by partition.
 */
async function tellKernel(device: string, table: GptTable, run: RunCommand): Promise<void> {
  const name = basename(device)
  const known = new Map(partitionsOf(name).map((each) => [partitionNumber(each), extentOf(each)]))
  const inSysfs = table.sectorBytes / sysfsSectorBytes
  const wanted = new Map(
    table.partitions.map(({ number, startLba, endLba }) => [
      number,
      `${startLba * inSysfs}+${(endLba - startLba + 1) * inSysfs}`,
    ]),
  )
  const stale = [...known].filter(([number, extent]) => wanted.get(number) !== extent)
  const unknown = [...wanted].filter(([number, extent]) => known.get(number) !== extent)
  const each = async (
    flag: '--delete' | '--add',
    entries: [number, string][],
    all: boolean,
  ): Promise<void> => {
    if (entries.length > 0 && all) await run('partx', [flag, device])
    else for (const [number] of entries) await run('partx', [flag, '--nr', `${number}`, device])
  }
  await each('--delete', stale, stale.length === known.size)
  await each('--add', unknown, unknown.length === wanted.size)
}

const partitionNumber = (name: string): number => Number(readLine(`${sysfs}/${name}/partition`))
const extentOf = (name: string): string =>
  `${readLine(`${sysfs}/${name}/start`)}+${readLine(`${sysfs}/${name}/size`)}`

/** A whole disk that is mounted or held by device mapper or md is nobody's to partition. */
function refuseHeldDisk(device: string): void {
  const name = basename(device)
  if (!holders(name) && !mountedDevices().has(device)) return
  throw new Fault('DEVICE_IN_USE', `${device} is mounted or held by another device`, {
    remedy: 'name another disk',
  })
}

const holders = (name: string): boolean =>
  existsSync(`${sysfs}/${name}/holders`) && readdirSync(`${sysfs}/${name}/holders`).length > 0

const mountedDevices = (): Set<string | undefined> =>
  new Set(
    readFileSync('/proc/self/mounts', 'utf8')
      .split('\n')
      .map((line) => line.split(' ')[0]),
  )

/** Numbers of partitions that are mounted, swapped to, or have a holder (device mapper, md). */
function busyPartitions(disk: string): number[] {
  return partitionsOf(disk).flatMap((name) =>
    holders(name) || isBusy(`/dev/${name}`) ? [partitionNumber(name)] : [],
  )
}

/** Whether the kernel lets nobody have the device alone: it is mounted somewhere, swap space, or part of another. */
export function isBusy(device: string): boolean {
  try {
    closeSync(openSync(device, constants.O_RDONLY | constants.O_EXCL))
    return false
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EBUSY') return true
    if (code === 'ENOENT' || code === 'ENXIO') return false
    throw error
  }
}

const partitionsOf = (disk: string): string[] =>
  existsSync(`${sysfs}/${disk}`)
    ? readdirSync(`${sysfs}/${disk}`).filter((name) => existsSync(`${sysfs}/${disk}/${name}/partition`))
    : []

/** All disks of the machine, for choosing one. */
export function listDisks(): DiskCandidate[] {
  if (!existsSync(sysfs)) return []
  return readdirSync(sysfs)
    .filter((name) => !virtualNames.test(name) && !existsSync(`${sysfs}/${name}/partition`))
    .filter((name) => existsSync(`/dev/${name}`) && readLine(`${sysfs}/${name}/ro`) !== '1')
    .map((name) => ({
      device: `/dev/${name}`,
      sizeBytes: Number(readLine(`${sysfs}/${name}/size`)) * sysfsSectorBytes,
      removable: readLine(`${sysfs}/${name}/removable`) === '1',
      reading: findDisk(`/dev/${name}`).reading,
    }))
}

/**
 * Waits for a device and gives its kernel name's path. Names below /dev/disk/by-partlabel and by-partuuid work without
 * udev, which does not run in the initramfs.
 */
export async function resolveDevice(device: string, run: RunCommand, clock: Clock): Promise<string> {
  const until = clock.now() + deviceWaitMs
  do {
    const found = await lookUp(device, run)
    if (found !== undefined) return found
    await new Promise<void>((resolve) => clock.after(pollMs, resolve))
  } while (clock.now() < until)
  throw new Fault('DEVICE_MISSING', `${device} did not appear within ${deviceWaitMs / 1000} s`, {
    remedy: 'check the name and that the disk is attached',
  })
}

async function lookUp(device: string, run: RunCommand): Promise<string | undefined> {
  if (existsSync(device)) return realpathSync(device)
  const match = /^\/dev\/disk\/by-(partlabel|partuuid|label|uuid)\/(.+)$/.exec(device)
  if (!match) return undefined
  const [, kind, value] = match
  if (kind === 'partlabel' || kind === 'partuuid') return partitionNamed(kind, value!)
  const flag = kind === 'label' ? '--label' : '--uuid'
  const { code, stdout } = await run('blkid', [flag, value!], { accepted: [0, 2] })
  return code === 0 ? stdout.trim() : undefined
}

/** Looked up in what the kernel says of its partitions, then in the tables: not every kernel reads those itself. */
function partitionNamed(kind: 'partlabel' | 'partuuid', value: string): string | undefined {
  const names = existsSync(sysfs) ? readdirSync(sysfs) : []
  const key = `${kind === 'partlabel' ? 'PARTNAME' : 'PARTUUID'}=${value}`.toLowerCase()
  for (const name of names) {
    const lines = readFileSync(`${sysfs}/${name}/uevent`, 'utf8').split('\n')
    if (lines.some((line) => line.toLowerCase() === key)) return `/dev/${name}`
  }
  for (const disk of names) {
    const parts = existsSync(`/dev/${disk}`) ? partitionsOf(disk) : []
    if (parts.length === 0) continue
    const { reading } = findDisk(`/dev/${disk}`)
    if (reading.kind !== 'table') continue
    const found = reading.table.partitions.find(({ label, guid }) =>
      kind === 'partlabel' ? label === value : guid.toLowerCase() === value.toLowerCase(),
    )
    const name = found && parts.find((each) => partitionNumber(each) === found.number)
    if (name !== undefined) return `/dev/${name}`
  }
  return undefined
}

async function appeared(device: string, table: GptTable, clock: Clock): Promise<void> {
  const name = basename(device)
  const until = clock.now() + deviceWaitMs
  for (const { number } of table.partitions) {
    while (!existsSync(`/dev/${partitionName(name, number)}`)) {
      if (clock.now() > until) {
        throw new Fault('DEVICE_MISSING', `partition ${number} of ${device} did not appear`)
      }
      await new Promise<void>((resolve) => clock.after(pollMs, resolve))
    }
  }
}

function readLine(path: string): string | undefined {
  return existsSync(path) ? readFileSync(path, 'utf8').trim() : undefined
}

import { closeSync, existsSync, openSync, readdirSync, readFileSync, realpathSync } from 'node:fs'
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
/** Sizes in sysfs are in sectors of 512 bytes, whatever the disk's own are. */
const sysfsSectorBytes = 512
/** Kernel names of block devices that are no disks. */
const virtualNames = /^(loop|ram|zram|dm-|md|sr|fd|nbd|mtdblock)/

/** A disk of the machine. Reading is ours, writing is sfdisk's, which also tells the kernel. */
export function blockDisk(device: string, run: RunCommand, clock: Clock): DiskPort {
  const name = basename(device)
  return {
    name: device,
    find: async () => findDisk(device),
    write: async (table, { wipe, busy }) => {
      const flags = [
        '--quiet',
        '--wipe',
        wipe ? 'always' : 'never',
        '--wipe-partitions',
        'never',
        '--lock=no',
      ]
      const live = busy.length > 0 ? ['--force', '--no-reread', '--no-tell-kernel'] : []
      await run('sfdisk', [...flags, ...live, device], { input: sfdiskScript(table) })
      // sfdisk asks the kernel to read the table again, which it refuses while a partition is in use.
      const missing = table.partitions.some(
        ({ number }) => !existsSync(`/dev/${partitionName(name, number)}`),
      )
      if (busy.length > 0 || missing) await run('partx', ['--update', device])
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

/** Numbers of partitions that are mounted or have a holder (device mapper, md). */
function busyPartitions(disk: string): number[] {
  const mounted = new Set(
    readFileSync('/proc/self/mounts', 'utf8')
      .split('\n')
      .map((line) => line.split(' ')[0]),
  )
  return partitionsOf(disk).flatMap((name) => {
    const held = existsSync(`${sysfs}/${name}/holders`) && readdirSync(`${sysfs}/${name}/holders`).length > 0
    return held || mounted.has(`/dev/${name}`) ? [Number(readLine(`${sysfs}/${name}/partition`))] : []
  })
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
  if (kind === 'partlabel' || kind === 'partuuid') {
    const key = kind === 'partlabel' ? 'PARTNAME' : 'PARTUUID'
    for (const name of existsSync(sysfs) ? readdirSync(sysfs) : []) {
      const lines = readFileSync(`${sysfs}/${name}/uevent`, 'utf8').split('\n')
      if (lines.some((line) => line.toLowerCase() === `${key}=${value}`.toLowerCase())) return `/dev/${name}`
    }
    return undefined
  }
  const flag = kind === 'label' ? '--label' : '--uuid'
  const { code, stdout } = await run('blkid', [flag, value!], { accepted: [0, 2] })
  return code === 0 ? stdout.trim() : undefined
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

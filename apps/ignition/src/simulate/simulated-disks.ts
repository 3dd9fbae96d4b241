import {
  closeSync,
  createReadStream,
  createWriteStream,
  existsSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { describePartitionAction, type GptTable } from '@kiln/gpt'
import { Fault } from '@kiln/service'
import type { RunCommand } from '../commands.ts'
import type { Devices } from '../devices.ts'
import type { DiskPort } from '../disk-port.ts'
import { fileDisk } from '../file-disk.ts'
import { markerPaths } from '../markers.ts'
import { mountRoot } from '../mount-stage.ts'

/** A disk of the config and the copy of the image that stands for it. */
export type SimulatedDisk = { device: string; copy: string; before: GptTable | undefined }

type Partition = { disk: SimulatedDisk; number: number; path: string; offset: number; sizeBytes: number }

/** Programs that would work on the machine's kernel; here there is nothing for them to do. */
const ofTheKernel = ['mount', 'umount', 'partx', 'sync', 'udevadm', mountRoot]

/**
 * The devices of a simulated run, and the commands that work on them. A partition is looked at within the copy of its
 * disk; the first program that writes to it gets a sparse file of the same size instead.
 */
export function simulatedDisks(disks: SimulatedDisk[], folder: string, real: RunCommand, root?: string) {
  const partitionPath = (index: number, number: number): string =>
    join(folder, `disk${index}-partition${number}`)
  const ports = new Map(
    disks.map((disk, index) => [disk.device, namedPort(disk, (number) => partitionPath(index, number))]),
  )
  const partitions = async (): Promise<Partition[]> => {
    const found: Partition[] = []
    for (const [index, disk] of disks.entries()) {
      const { reading } = await ports.get(disk.device)!.find()
      if (reading.kind !== 'table') continue
      for (const { number, startLba, endLba } of reading.table.partitions) {
        const { sectorBytes } = reading.table
        const path = partitionPath(index, number)
        const sizeBytes = (endLba - startLba + 1) * sectorBytes
        found.push({ disk, number, path, offset: startLba * sectorBytes, sizeBytes })
      }
    }
    return found
  }

  const resolve = async (device: string): Promise<string> => {
    const all = await partitions()
    const match = /^\/dev\/disk\/by-(partlabel|partuuid|label|uuid)\/(.+)$/.exec(device)
    for (const each of all) {
      const { disk, number, path } = each
      if (device === path) return path
      if (device === `${disk.device}${/\d$/.test(disk.device) ? 'p' : ''}${number}`) return each.path
      if (match && (await isNamed(each, match[1]!, match[2]!))) return each.path
    }
    if (ports.has(device)) return disks.find((disk) => disk.device === device)!.copy
    throw new Fault('DEVICE_MISSING', `the disks given hold no ${device}`, {
      remedy: 'give its disk with --disk DEVICE=IMAGE',
    })
  }

  const isNamed = async (each: Partition, kind: string, value: string): Promise<boolean> => {
    const { reading } = await ports.get(each.disk.device)!.find()
    const entry =
      reading.kind === 'table' && reading.table.partitions.find(({ number }) => number === each.number)
    if (!entry) return false
    if (kind === 'partlabel') return entry.label === value
    if (kind === 'partuuid') return entry.guid.toLowerCase() === value.toLowerCase()
    const { stdout } = await command('blkid', ['-p', '-o', 'export', each.path], { accepted: [0, 2, 8] })
    return stdout.split('\n').includes(`${kind === 'label' ? 'LABEL' : 'UUID'}=${value}`)
  }

  const command: RunCommand = async (name, args, options) => {
    if (ofTheKernel.includes(name)) {
      if (root !== undefined && args.at(-1) === root) await lookAtRoot(name, args.at(-2), root)
      return { code: 0, stdout: '' }
    }
    const partition = (await partitions()).find(({ path }) => args.includes(path))
    if (!partition || existsSync(partition.path)) return real(name, args, options)
    const { path, disk, offset, sizeBytes } = partition
    if (name === 'blkid') {
      const within = args.map((arg) => (arg === path ? disk.copy : arg))
      return real(name, ['-O', `${offset}`, '-S', `${sizeBytes}`, ...within], options)
    }
    if (name === 'wipefs' && !args.includes('-a')) {
      await pipeline(
        createReadStream(disk.copy, { start: offset, end: offset + sizeBytes - 1 }),
        createWriteStream(path),
      )
      return real(name, args, options)
    }
    const descriptor = openSync(path, 'w')
    ftruncateSync(descriptor, sizeBytes)
    closeSync(descriptor)
    return real(name, args, options)
  }

  /** The one look into a file system: the markers of Kiln on a ROOT are in the empty root while it counts as mounted. */
  const lookAtRoot = async (name: string, device: string | undefined, root: string): Promise<void> => {
    if (name === 'umount') rmSync(join(root, 'var'), { recursive: true, force: true })
    const partition = name === 'mount' && (await partitions()).find(({ path }) => path === device)
    if (!partition) return
    const { path, disk, offset } = partition
    const image = existsSync(path) ? path : `${disk.copy}?offset=${offset}`
    for (const marker of Object.values(markerPaths)) {
      const { stdout } = await real('debugfs', ['-R', `stat ${marker}`, image])
      if (!/^Inode: /m.test(stdout)) continue
      mkdirSync(dirname(join(root, marker)), { recursive: true })
      writeFileSync(join(root, marker), '')
    }
  }

  const devices: Devices = {
    list: async () =>
      Promise.all(
        disks.map(async ({ device, copy }) => {
          const { reading } = await ports.get(device)!.find()
          return { device, sizeBytes: statSync(copy).size, removable: false, reading }
        }),
      ),
    resolve,
    disk: async (device) => {
      const port = ports.get(device)
      if (port) return port
      throw new Fault('DEVICE_MISSING', `no image stands for ${device}`, {
        remedy: 'give one with --disk DEVICE=IMAGE',
      })
    },
  }
  return { devices, command }
}

/** The port of the copy, under the name the config has for the disk; its partitions count as devices. */
function namedPort({ device, copy }: SimulatedDisk, pathOf: (number: number) => string): DiskPort {
  const port = fileDisk(copy, 0)
  return {
    ...port,
    name: device,
    locate: async (number, table) => ({
      ...(await port.locate(number, table)),
      path: pathOf(number),
      offset: 0,
      device: true,
    }),
  }
}

/** The table of a disk as lines. */
export function tableLines(table: GptTable | undefined): string[] {
  if (!table) return ['no partition table']
  return table.partitions.map((partition) =>
    describePartitionAction({ kind: 'keep', partition }, table.sectorBytes).replace(/^keep /, ''),
  )
}

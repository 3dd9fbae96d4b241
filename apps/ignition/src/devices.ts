import type { Clock } from '@kiln/service'
import { blockDisk, listDisks, resolveDevice } from './block-disk.ts'
import type { RunCommand } from './commands.ts'
import type { DiskPort } from './disk-port.ts'
import { fileDisk } from './file-disk.ts'
import type { DiskCandidate } from './install-layout.ts'
import type { Options } from './options.ts'

/** Where the devices that a config names are: the machine's own, or a simulation's. */
export type Devices = {
  /** All disks there are, to choose one for the system. */
  list(): Promise<DiskCandidate[]>
  /** A whole disk, waited for. */
  disk(device: string): Promise<DiskPort>
  /** The path to work on for a device, waited for. */
  resolve(device: string): Promise<string>
}

/** The machine's devices; with a disk image every disk is that file. */
export function machineDevices(
  { diskImage, diskSizeMiB }: Options,
  command: RunCommand,
  clock: Clock,
): Devices {
  const resolve = (device: string): Promise<string> => resolveDevice(device, command, clock)
  return {
    list: async () => {
      if (diskImage === undefined) return listDisks()
      const { reading, sectors, sectorBytes } = await fileDisk(diskImage, diskSizeMiB).find()
      return [{ device: diskImage, sizeBytes: sectors * sectorBytes, removable: false, reading }]
    },
    resolve,
    disk: async (device) =>
      diskImage !== undefined
        ? fileDisk(diskImage, diskSizeMiB)
        : blockDisk(await resolve(device), command, clock),
  }
}

import { randomUUID } from 'node:crypto'
import {
  describePartitionAction,
  type FoundDisk,
  type GptTable,
  lostPartitions,
  type PartitionPlan,
  planAround,
  planPartitions,
} from '@kiln/gpt'
import { type IgnitionDisk, type IgnitionFilesystem, installLabels } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import type { DiskPort, PartitionPlace } from './disk-port.ts'
import type { Fetched } from './fetch-stage.ts'
import { applyFilesystems } from './filesystems.ts'
import {
  chooseDisk,
  definesInstallLayout,
  hasInstallLayout,
  installLayout,
  mayInstall,
} from './install-layout.ts'
import { findKept, type Kept, pathsOfKept, refused } from './kept-partitions.ts'
import { applyLuks, closeLuks, type LuksVolume } from './luks.ts'
import { applyRaid, stopRaid } from './raid.ts'
import type { Run } from './run.ts'
import { keepUnfinishedRoot, refuseInstalledRoot, takeUpFolder } from './unfinished-root.ts'

/** The partitions of the system, when this run installs one. */
export type InstallDisk = Record<(typeof installLabels)[number], PartitionPlace>

/** What the disks stage leaves: the places of the system's partitions if an image is to be installed, LUKS volumes. */
export type Disks = { install: InstallDisk | undefined; volumes: LuksVolume[] }

/** Partitions and formats the disks: partitions, RAID, LUKS, file systems. */
export async function runDisks({ config, configHash }: Fetched, plain: Run): Promise<Disks> {
  const kept = await findKept(config, plain)
  const run = { ...plain, kept: await pathsOfKept(kept, plain) }
  const tables = new Map<string, { port: DiskPort; table: GptTable }>()
  for (const disk of config.storage?.disks ?? []) {
    const port = await run.devices.disk(disk.device)
    tables.set(port.name, { port, table: await applyPartitions(disk, port, kept, run) })
  }
  let install: InstallDisk | undefined
  const filesystems = [...(config.storage?.filesystems ?? [])]
  if (run.options.image !== undefined || run.options.diskImage !== undefined) {
    const own = definesInstallLayout(config)
    if (!own) {
      const port = await run.devices.disk(await installDevice(run))
      if (tables.has(port.name)) {
        throw new Fault(
          'LAYOUT_INCOMPLETE',
          `the config partitions ${port.name} without a place for the system`,
          {
            remedy: `give it partitions labelled ${installLabels.join(', ')}, or name another disk with kiln.disk=`,
          },
        )
      }
      tables.set(port.name, { port, table: await applyInstallLayout(port, kept, run) })
    }
    install = await placesOf([...tables.values()])
  }
  await applyRaid(config, configHash, run)
  const volumes = await applyLuks(config, configHash, run)
  if (install) await formatInstall(install, filesystems, run)
  await applyFilesystems(filesystems, run)
  return { install, volumes }
}

/**
 * Lets go of volumes and arrays after an install. The booting system opens them itself, as at every later boot: what it
 * finds open was never announced to its udev, and nothing would wait for it.
 */
export async function releaseDisks(
  { config }: Pick<Fetched, 'config'>,
  { install, volumes }: Disks,
  run: Run,
): Promise<void> {
  if (!install) return
  await closeLuks(volumes, run)
  await stopRaid(config, run)
}

/** Places of the partitions on a disk that an earlier process has partitioned. */
export async function findInstallDisk(run: Run): Promise<InstallDisk | undefined> {
  if (run.options.diskImage === undefined && run.options.image === undefined) return undefined
  const port = await run.devices.disk(await installDevice(run))
  const { reading } = await port.find()
  return hasInstallLayout(reading) && reading.kind === 'table'
    ? placesOf([{ port, table: reading.table }])
    : undefined
}

async function installDevice(run: Run): Promise<string> {
  if (run.options.diskImage !== undefined) return run.options.diskImage
  const named = run.options.disk === 'auto' ? run.kernel.disk : run.options.disk
  const choice = chooseDisk(named === undefined ? await run.devices.list() : [], named)
  if (!choice.ok) throw new Fault('DISK_UNCLEAR', choice.reason, { remedy: choice.remedy })
  return choice.device
}

async function applyInstallLayout(port: DiskPort, kept: Kept[], run: Run): Promise<GptTable> {
  const found = await port.find()
  if (!mayInstall(found.reading, run.kernel.reinstall)) {
    throw new Fault('DISK_NOT_EMPTY', `${port.name} has partitions that are not Kiln's`, {
      remedy: 'empty the disk, set the machine to reinstall, or partition it in the config with wipeTable',
    })
  }
  const layout = installLayout(port.name)
  const stay = keptOn(port, kept)
  if (stay.length === 0) return applyPartitions({ ...layout, wipeTable: run.kernel.reinstall }, port, [], run)
  return writePlan(planAround(layout.partitions ?? [], stay, found, newGuid), found, { port, stay }, run)
}

const newGuid = (): string => randomUUID().toUpperCase()
const keptOn = (port: DiskPort, kept: Kept[]) =>
  kept.filter(({ disk }) => disk === port.name).map(({ partition }) => partition)

async function applyPartitions(
  disk: IgnitionDisk,
  port: DiskPort,
  kept: Kept[],
  run: Run,
): Promise<GptTable> {
  const found = await port.find()
  const spec = { wipeTable: disk.wipeTable, partitions: disk.partitions ?? [] }
  if (!disk.wipeTable && spec.partitions.length === 0 && found.reading.kind === 'table')
    return found.reading.table
  return writePlan(planPartitions(spec, found, newGuid), found, { port, stay: keptOn(port, kept) }, run)
}

/** Says what a plan does, and does it, if every partition that is to stay stays. */
async function writePlan(
  plan: PartitionPlan,
  found: FoundDisk,
  { port, stay }: { port: DiskPort; stay: ReturnType<typeof keptOn> },
  run: Run,
): Promise<GptTable> {
  if (!plan.ok) {
    throw new Fault('PARTITIONS_REFUSED', `${port.name}: ${plan.refusals.join('; ')}`)
  }
  const lost = lostPartitions(stay, plan.table)
  if (lost.length > 0) throw refused(`${port.name}: ${lost.join('; ')}, and is to be kept`)
  for (const action of plan.actions) {
    run.reporter.say(`disks: ${port.name}: ${describePartitionAction(action, found.sectorBytes)}`)
  }
  if (plan.changes) {
    const wipe = plan.actions.some(({ kind }) => kind === 'wipe-table')
    await port.write(plan.table, { wipe, busy: found.busy })
    run.acted(`table of ${port.name}`)
  }
  return plan.table
}

async function placesOf(disks: { port: DiskPort; table: GptTable }[]): Promise<InstallDisk> {
  const place = async (label: string): Promise<PartitionPlace> => {
    for (const { port, table } of disks) {
      const partition = table.partitions.find((each) => each.label === label)
      if (partition) return port.locate(partition.number, table)
    }
    throw new Fault('LAYOUT_INCOMPLETE', `no disk has a partition labelled ${label}`, {
      remedy: `give the disks partitions labelled ${installLabels.join(', ')}`,
    })
  }
  return {
    EFI: await place('EFI'),
    'USR-A': await place('USR-A'),
    'USR-B': await place('USR-B'),
    ROOT: await place('ROOT'),
  }
}

/**
 * Formats the ESP first (of a disk that holds no installed system): from then on the firmware finds nothing to boot here until the install is complete. A ROOT of
 * an unfinished install is taken up; what the config says of EFI and ROOT is left in `filesystems`.
 */
export async function formatInstall(
  install: InstallDisk,
  filesystems: IgnitionFilesystem[],
  run: Run,
): Promise<void> {
  if (!install.ROOT.device) {
    run.reporter.say(
      'disks: a disk image has no devices: EFI and ROOT are not formatted, their files go to folders',
    )
    takeUpFolder(run)
    return
  }
  await refuseInstalledRoot(install.ROOT.path, run)
  const own = (label: 'EFI' | 'ROOT'): number =>
    filesystems.findIndex(
      ({ device }) => device === install[label].path || device.endsWith(`/by-partlabel/${label}`),
    )
  if (own('EFI') < 0) {
    // Firmware reads FAT32 everywhere; mkfs alone would choose FAT16 for this size.
    const options = ['-F', '32']
    const esp = { device: install.EFI.path, format: 'vfat', label: 'EFI', wipeFilesystem: true, options }
    await applyFilesystems([esp], run)
  }
  if (await keepUnfinishedRoot(install.ROOT.path, run)) {
    if (own('ROOT') >= 0) filesystems.splice(own('ROOT'), 1)
  } else if (own('ROOT') < 0) {
    const options = ['-E', 'lazy_itable_init=1,lazy_journal_init=1']
    const root = { device: install.ROOT.path, format: 'ext4', label: 'ROOT', wipeFilesystem: true, options }
    await applyFilesystems([root], run)
  }
}

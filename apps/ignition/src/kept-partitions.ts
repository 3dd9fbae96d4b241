import type { GptPartition } from '@kiln/gpt'
import type { IgnitionConfig, IgnitionDisk } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import type { Run } from './run.ts'

/** A partition that must come out of this run as it is, and the disk it is on, by its port's name. */
export type Kept = { disk: string; partition: GptPartition }

type ConfigDisk = { disk: IgnitionDisk; name: string; index: number }

/**
 * The partitions that an operator wants to keep (kernel argument kiln.keep): each label must be on one disk, and what
 * the config says of it must fit to what is there. Everything is looked at before anything is changed.
 */
export async function findKept(config: IgnitionConfig, run: Run): Promise<Kept[]> {
  if (run.kernel.keep.length === 0) return []
  const disks: ConfigDisk[] = []
  for (const [index, disk] of (config.storage?.disks ?? []).entries()) {
    disks.push({ disk, name: (await run.devices.disk(disk.device)).name, index })
  }
  const candidates = (await run.devices.list()).flatMap(({ device, reading }) =>
    reading.kind === 'table'
      ? reading.table.partitions.map((partition): Kept => ({ disk: device, partition }))
      : [],
  )
  const kept = run.kernel.keep.map((label) => findLabel(label, candidates, disks))
  for (const each of kept) {
    refuseWiping(each, disks)
    refuseMaking(each, config)
  }
  return kept
}

/** The paths of kept partitions, for those that write to devices to look at. */
export async function pathsOfKept(kept: Kept[], run: Run): Promise<ReadonlySet<string>> {
  const paths = new Set<string>()
  for (const { disk, partition } of kept) {
    const port = await run.devices.disk(disk)
    const { reading } = await port.find()
    const place = reading.kind === 'table' ? await port.locate(partition.number, reading.table) : undefined
    if (place?.device) paths.add(place.path)
  }
  return paths
}

/** Refuses to write to a partition that is kept. */
export function refuseKept(device: string, what: string, run: Run): void {
  if (run.kept?.has(device)) throw refused(`${device} is kept, but ${what}`)
}

export const refused = (reason: string, path?: string): Fault =>
  Object.assign(
    new Fault('KEEP_REFUSED', reason, {
      remedy: 'change the config, or reprovision the machine without keeping the partition',
    }),
    path === undefined ? {} : { path },
  )

function findLabel(label: string, candidates: Kept[], disks: ConfigDisk[]): Kept {
  const wanted = disks.flatMap(({ disk, name, index }) =>
    (disk.partitions ?? []).flatMap((spec, at) =>
      spec.label === label ? [{ spec, name, path: `$.storage.disks.${index}.partitions.${at}` }] : [],
    ),
  )
  const labelled = candidates.filter(({ partition }) => partition.label === label)
  const found = labelled.filter(({ disk }) => wanted.length === 0 || wanted.some(({ name }) => name === disk))
  const [kept, another] = found
  if (!kept) {
    const [elsewhere] = labelled
    if (!elsewhere) throw refused(`no disk has a partition labelled ${label}`)
    const names = wanted.map(({ name }) => name).join(' and ')
    throw refused(
      `partition ${label} is on ${elsewhere.disk}, the config has it on ${names}`,
      wanted[0]?.path,
    )
  }
  if (another) throw refused(`${kept.disk} and ${another.disk} have a partition labelled ${label}`)
  for (const { spec, name, path } of wanted) {
    if (name !== kept.disk)
      throw refused(`partition ${label} is on ${kept.disk}, not only there in the config`, path)
    const { typeGuid } = kept.partition
    if (spec.typeGuid && spec.typeGuid.toUpperCase() !== typeGuid)
      throw refused(`partition ${label} has type ${typeGuid}, in the config ${spec.typeGuid}`, path)
  }
  return kept
}

function refuseWiping({ disk, partition }: Kept, disks: ConfigDisk[]): void {
  const wiped = disks.find((each) => each.name === disk && each.disk.wipeTable === true)
  if (!wiped) return
  throw refused(
    `wipeTable is set for ${disk}, which has partition ${partition.label} to keep`,
    `$.storage.disks.${wiped.index}`,
  )
}

/** What the config says outright; whatever else would write to the partition is refused when it comes to it. */
function refuseMaking({ disk, partition }: Kept, config: IgnitionConfig): void {
  const names = [
    `${disk}${/\d$/.test(disk) ? 'p' : ''}${partition.number}`,
    `/dev/disk/by-partlabel/${partition.label}`,
    `/dev/disk/by-partuuid/${partition.guid}`,
  ].map((name) => name.toLowerCase())
  const isKept = (device: string | undefined): boolean => names.includes(device?.toLowerCase() ?? '')
  const { filesystems = [], luks = [] } = config.storage ?? {}
  for (const [index, { device, wipeFilesystem }] of filesystems.entries()) {
    if (wipeFilesystem === true && isKept(device))
      throw refused(
        `wipeFilesystem is set for partition ${partition.label}, which is kept`,
        `$.storage.filesystems.${index}`,
      )
  }
  for (const [index, { device, wipeVolume }] of luks.entries()) {
    if (wipeVolume === true && isKept(device))
      throw refused(
        `wipeVolume is set for partition ${partition.label}, which is kept`,
        `$.storage.luks.${index}`,
      )
  }
}

import { posix } from 'node:path'
import { attachBits as attach, type PlanRecord } from '@kiln/linux'
import { type CgroupLayout, folderIn } from './cgroup-layout.ts'
import { type Config, type ConfigMount, type IdMapping, refuse } from './config.ts'
import { ms, parseMountOptions } from './mount-options.ts'

export type MountContext = {
  config: Config
  bundle: string
  layout: CgroupLayout
  place: { absolute: boolean; path: string }
  ownCgroupNamespace: boolean
}

/** One mount by its parts, with the record's many fields in order. */
type Attach = {
  source: string
  target: string
  type?: string
  how?: number
  flags?: number
  data?: string
  set?: number
  clear?: number
  setBelow?: number
  clearBelow?: number
  propagation?: number
  map?: number
}

function record(one: Attach): PlanRecord {
  return [
    'attach',
    one.source,
    one.target,
    one.type ?? '',
    one.how ?? 0,
    one.flags ?? 0,
    one.data ?? '',
    BigInt(one.set ?? 0),
    BigInt(one.clear ?? 0),
    BigInt(one.setBelow ?? 0),
    BigInt(one.clearBelow ?? 0),
    one.propagation ?? 0,
    one.map ?? 0,
  ]
}

export function idMapRecords(map: number, uids: IdMapping[], gids: IdMapping[]): PlanRecord[] {
  const line =
    (kind: number) =>
    (one: IdMapping): PlanRecord => ['idMap', map, kind, one.containerID, one.hostID, one.size]
  return [...uids.map(line(0)), ...gids.map(line(1))]
}

/** The mounts in the document's order (config.md, Mounts). */
export function mountRecords(context: MountContext): PlanRecord[] {
  const records: PlanRecord[] = []
  let maps = 0
  for (const [at, mount] of (context.config.mounts ?? []).entries()) {
    const where = `config.mounts.${at}`
    const options = parseMountOptions(mount.options ?? [])
    const target = posix.resolve('/', mount.destination)
    const bind = options.bind || mount.type === 'bind'
    if (!bind && (mount.type === 'cgroup' || mount.type === 'cgroup2')) {
      records.push(...cgroupMounts(context, mount, target))
      continue
    }
    if (!bind && !options.remount && !mount.type) refuse([`${where}.type: missing`])
    if (bind && !options.remount && !mount.source) refuse([`${where}.source: missing for a bind mount`])
    if (options.copyUp && mount.type !== 'tmpfs') refuse([`${where}: tmpcopyup is for tmpfs`])
    const map = idMapOf(context, mount, where, options.idMap)
    if (map && !bind) refuse([`${where}: ids are mapped on bind mounts only`])
    if (map) records.push(...idMapRecords(++maps, map.uids, map.gids))
    const system = mount.type === 'proc' || mount.type === 'sysfs'
    const how =
      (bind ? attach.bind : 0) |
      (options.recursive ? attach.recursive : 0) |
      (options.copyUp ? attach.copyUp : 0) |
      (options.remount ? attach.remount : 0) |
      (system && !bind ? attach.noSymlinks : 0) |
      (map && options.idMap === 'ridmap' ? attach.mapRecursive : 0)
    records.push(
      record({
        source: bind ? posix.resolve(context.bundle, mount.source ?? '') : (mount.source ?? mount.type ?? ''),
        target,
        type: bind ? '' : (mount.type ?? ''),
        how,
        flags: bind && !options.remount ? 0 : options.flags,
        data: bind ? '' : [...options.data, ...labelOf(context.config, mount)].join(','),
        set: options.set,
        clear: options.clear,
        setBelow: options.setBelow,
        clearBelow: options.clearBelow,
        propagation: options.propagation,
        map: map ? maps : 0,
      }),
    )
  }
  return records
}

/** `linux.mountLabel`: the SELinux context of file systems that keep none of their own; what the kernel has inside keeps its own. */
function labelOf({ linux }: Config, { type = '' }: ConfigMount): string[] {
  if (!linux.mountLabel || ['proc', 'sysfs', 'mqueue'].includes(type)) return []
  if (linux.mountLabel.includes('"')) refuse(['config.linux.mountLabel: holds a quote'])
  return [`context="${linux.mountLabel}"`]
}

/** The mount's own map, or with `idmap` alone the container's. */
function idMapOf(
  { config }: MountContext,
  mount: ConfigMount,
  where: string,
  option: 'none' | 'idmap' | 'ridmap',
): { uids: IdMapping[]; gids: IdMapping[] } | undefined {
  const own = { uids: mount.uidMappings ?? [], gids: mount.gidMappings ?? [] }
  if (own.uids.length > 0 !== own.gids.length > 0)
    refuse([`${where}: uidMappings and gidMappings go together`])
  if (own.uids.length > 0) return own
  if (option === 'none') return undefined
  const container = { uids: config.linux.uidMappings ?? [], gids: config.linux.gidMappings ?? [] }
  if (container.uids.length === 0) refuse([`${where}: ${option} needs mappings, its own or the container's`])
  return container
}

/** The container's own groups, and none but those: v2 one mount, v1 a folder of hierarchies with the usual links. */
function cgroupMounts({ layout, place }: MountContext, mount: ConfigMount, target: string): PlanRecord[] {
  const options = parseMountOptions(mount.options ?? [])
  const bindOf = (source: string, at: string): PlanRecord =>
    record({
      source,
      target: at,
      how: attach.bind,
      set: options.set,
      clear: options.clear,
      propagation: options.propagation,
    })
  const first = layout.hierarchies[0]
  if (layout.kind === 'v2' && first) return [bindOf(folderIn(first, place), target)]
  const records: PlanRecord[] = [
    record({ source: 'tmpfs', target, type: 'tmpfs', flags: options.flags & ~ms.ro, data: 'mode=755' }),
  ]
  for (const hierarchy of layout.hierarchies) {
    const name = posix.basename(hierarchy.mountPoint)
    records.push(bindOf(folderIn(hierarchy, place), `${target}/${name}`))
    for (const controller of hierarchy.controllers) {
      if (controller !== name && !controller.startsWith('name='))
        records.push(['symlink', name, `${target}/${controller}`])
    }
  }
  if (options.flags & ms.ro)
    records.push(record({ source: '', target, how: attach.remount | attach.bind, flags: options.flags }))
  return records
}

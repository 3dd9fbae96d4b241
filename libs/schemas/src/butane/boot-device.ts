import { addCommonOrigin, addOrigin, type ConfigPath, camel } from './config-path.ts'
import type { Decoded } from './decode.ts'
import { mergeTraced, type Traced } from './merge-traced.ts'

/** Types and sizes of the partitions of the boot disk, which a mirror must not make smaller than the image has them. */
const reserved = { sizeMiB: 1, typeGuid: '8DA63339-0007-60C0-C436-083AC8230908' }
const bios = { sizeMiB: 1, typeGuid: '21686148-6449-6E6F-744E-656564454649' }
const prep = { sizeMiB: 4, typeGuid: '9E1A2D38-C612-4316-AA26-8B49521E5A8B' }
const esp = { sizeMiB: 127, typeGuid: 'C12A7328-F81F-11D2-BA4B-00A0C93EC93B' }
const bootSizeMiB = 384

/** The first two partitions of each layout. */
const layouts: Record<string, readonly [[string, object], [string, object]]> = {
  x86_64: [
    ['bios', bios],
    ['esp', esp],
  ],
  aarch64: [
    ['reserved', reserved],
    ['esp', esp],
  ],
  ppc64le: [
    ['prep', prep],
    ['reserved', reserved],
  ],
}
export const knownLayouts = Object.keys(layouts)
/** Layouts without a mirror; the number is that of the root partition on the named device. */
export const mainframeLayouts: Record<string, string | undefined> = {
  's390x-eckd': '2',
  's390x-virt': undefined,
  's390x-zfcp': '4',
}

/** `boot_device`: a mirrored or encrypted root, as disks, arrays and filesystems below what the user wrote. */
export function addBootDevice(source: Decoded, child: Traced): Traced {
  const boot = (source['boot_device'] ?? {}) as Decoded
  const luks = (boot['luks'] ?? {}) as Decoded
  const devices = (boot['mirror']?.devices ?? []) as string[]
  const tang = (luks['tang'] ?? []) as Decoded[]
  const encrypted = luks['tpm2'] === true || tang.length > 0 || luks['cex']?.enabled === true
  const mirrored = devices.length > 0
  if (!encrypted && !mirrored) return child
  const made = new Made()
  if (mirrored) addMirror(made, devices, (boot['layout'] as string | undefined) ?? 'x86_64')
  if (encrypted) addEncryption(made, luks, rootDevice(boot, mirrored))
  const device = encrypted ? '/dev/mapper/root' : '/dev/md/md-root'
  const root = { device, format: 'xfs', label: 'root', wipeFilesystem: true }
  made.add('filesystems', root, ['boot_device'])
  addOrigin(made.origins, ['boot_device'], ['storage', 'filesystems'])
  addOrigin(made.origins, ['boot_device'], ['storage'])
  return mergeTraced({ config: { storage: made.storage }, origins: made.origins }, child)
}

function rootDevice(boot: Decoded, mirrored: boolean): string {
  const partition = mainframeLayouts[boot['layout'] ?? '']
  if (partition !== undefined) return `${boot['luks']?.device ?? ''}${partition}`
  return mirrored ? '/dev/md/md-root' : '/dev/disk/by-partlabel/root'
}

class Made {
  readonly storage: Record<string, Decoded[]> = {}
  readonly origins: Traced['origins'] = new Map()

  add(list: string, entry: Decoded, from: ConfigPath): void {
    this.storage[list] ??= []
    const entries = this.storage[list]
    addCommonOrigin(this.origins, from, ['storage', list, entries.length], entry)
    entries.push(entry)
  }
}

function addMirror(made: Made, devices: string[], layout: string): void {
  const from: ConfigPath = ['boot_device', 'mirror']
  const firmware = layouts[layout] ?? []
  for (const [index, device] of devices.entries()) {
    const number = index + 1
    const partitions = [
      ...firmware.map(([name, size]) => ({ label: `${name}-${number}`, ...size })),
      { label: `boot-${number}`, sizeMiB: bootSizeMiB },
      { label: `root-${number}` },
    ]
    const at = [...from, 'devices', index]
    made.add('disks', { device, wipeTable: true, partitions }, at)
    if (!firmware.some(([name]) => name === 'esp')) continue
    const label = `esp-${number}`
    const format = { format: 'vfat', label, wipeFilesystem: true }
    made.add('filesystems', { device: `/dev/disk/by-partlabel/${label}`, ...format }, at)
  }
  addOrigin(made.origins, [...from, 'devices'], ['storage', 'disks'])
  const parts = (name: string): string[] =>
    devices.map((_, index) => `/dev/disk/by-partlabel/${name}-${index + 1}`)
  // The superblock is at the end, so that firmware that knows nothing of arrays can read the boot partition.
  const options = ['--metadata=1.0']
  made.add('raid', { name: 'md-boot', level: 'raid1', devices: parts('boot'), options }, from)
  made.add('raid', { name: 'md-root', level: 'raid1', devices: parts('root') }, from)
  addOrigin(made.origins, from, ['storage', 'raid'])
  const boot = { device: '/dev/md/md-boot', format: 'ext4', label: 'boot', wipeFilesystem: true }
  made.add('filesystems', boot, from)
}

function addEncryption(made: Made, luks: Decoded, device: string): void {
  const from: ConfigPath = ['boot_device', 'luks']
  const to: ConfigPath = ['storage', 'luks', 0]
  const volume: Decoded = { name: 'root', label: 'luks-root', device, wipeVolume: true }
  if (luks['discard'] !== undefined) volume['discard'] = luks['discard']
  const cex = luks['cex']?.enabled === true
  const key = cex ? 'cex' : 'clevis'
  volume[key] = cex ? { enabled: true } : {}
  made.add('luks', volume, from)
  addOrigin(made.origins, from, ['storage', 'luks'])
  addOrigin(made.origins, [...from, 'discard'], [...to, 'discard'])
  if (cex) {
    addOrigin(made.origins, [...from, 'enabled'], [...to, 'cex', 'enabled'])
    return
  }
  const clevis = volume['clevis'] as Decoded
  const tang = (luks['tang'] ?? []) as Decoded[]
  for (const field of ['tang', 'threshold', 'tpm2']) {
    if (luks[field] === undefined) continue
    // A server without an address is told by the rules of Ignition, which know it by its empty address.
    clevis[field] = field === 'tang' ? tang.map((server) => ({ url: '', ...server })) : luks[field]
    addSameOrigins(made, clevis[field], [...from, field], [...to, 'clevis', field])
  }
}

/** The values keep their shape, so each comes from its own place. */
function addSameOrigins(made: Made, value: unknown, from: ConfigPath, to: ConfigPath): void {
  addOrigin(made.origins, from, to)
  if (typeof value !== 'object' || value === null) return
  for (const [name, child] of Object.entries(value)) {
    const part = Array.isArray(value) ? Number(name) : name
    const target = typeof part === 'string' ? camel(part) : part
    addSameOrigins(made, child, [...from, part], [...to, target])
  }
}

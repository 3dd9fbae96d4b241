/** `MS_*` of mount(2). */
export const ms = {
  ro: 1,
  nosuid: 2,
  nodev: 4,
  noexec: 8,
  sync: 16,
  remount: 32,
  mand: 64,
  dirsync: 128,
  nosymfollow: 256,
  noatime: 1024,
  nodiratime: 2048,
  bind: 4096,
  rec: 16384,
  silent: 32768,
  unbindable: 1 << 17,
  private: 1 << 18,
  slave: 1 << 19,
  shared: 1 << 20,
  relatime: 1 << 21,
  iversion: 1 << 23,
  strictatime: 1 << 24,
  lazytime: 1 << 25,
} as const

/** `MOUNT_ATTR_*` of mount_setattr(2). */
const attributes = {
  ro: 1,
  nosuid: 2,
  nodev: 4,
  noexec: 8,
  noatime: 0x10,
  strictatime: 0x20,
  nodiratime: 0x80,
  nosymfollow: 0x200000,
}
const atimeMask = 0x70

/** Options that set or clear a flag; with an `r` before it, of this mount and all below it. */
const flagOptions: Readonly<
  Record<string, { flag: number; clear?: true; attribute?: number; mask?: number }>
> = {
  async: { flag: ms.sync, clear: true },
  atime: { flag: ms.noatime, clear: true, attribute: attributes.noatime, mask: atimeMask },
  dev: { flag: ms.nodev, clear: true, attribute: attributes.nodev },
  diratime: { flag: ms.nodiratime, clear: true, attribute: attributes.nodiratime },
  dirsync: { flag: ms.dirsync },
  exec: { flag: ms.noexec, clear: true, attribute: attributes.noexec },
  iversion: { flag: ms.iversion },
  lazytime: { flag: ms.lazytime },
  loud: { flag: ms.silent, clear: true },
  mand: { flag: ms.mand },
  noatime: { flag: ms.noatime, attribute: attributes.noatime, mask: atimeMask },
  nodev: { flag: ms.nodev, attribute: attributes.nodev },
  nodiratime: { flag: ms.nodiratime, attribute: attributes.nodiratime },
  noexec: { flag: ms.noexec, attribute: attributes.noexec },
  noiversion: { flag: ms.iversion, clear: true },
  nolazytime: { flag: ms.lazytime, clear: true },
  nomand: { flag: ms.mand, clear: true },
  norelatime: { flag: ms.relatime, clear: true, attribute: 0, mask: atimeMask },
  nostrictatime: { flag: ms.strictatime, clear: true, attribute: attributes.strictatime, mask: atimeMask },
  nosuid: { flag: ms.nosuid, attribute: attributes.nosuid },
  nosymfollow: { flag: ms.nosymfollow, attribute: attributes.nosymfollow },
  relatime: { flag: ms.relatime, attribute: 0, mask: atimeMask },
  ro: { flag: ms.ro, attribute: attributes.ro },
  rw: { flag: ms.ro, clear: true, attribute: attributes.ro },
  silent: { flag: ms.silent },
  strictatime: { flag: ms.strictatime, attribute: attributes.strictatime, mask: atimeMask },
  suid: { flag: ms.nosuid, clear: true, attribute: attributes.nosuid },
  symfollow: { flag: ms.nosymfollow, clear: true, attribute: attributes.nosymfollow },
  sync: { flag: ms.sync },
}

const propagations: Readonly<Record<string, number>> = {
  private: ms.private,
  rprivate: ms.private | ms.rec,
  rshared: ms.shared | ms.rec,
  rslave: ms.slave | ms.rec,
  runbindable: ms.unbindable | ms.rec,
  shared: ms.shared,
  slave: ms.slave,
  unbindable: ms.unbindable,
}

export const rootPropagations: Readonly<Record<string, number>> = propagations

/** What `features` announces: every word that `parseMountOptions` understands. */
export const mountOptionNames = [
  ...Object.keys(flagOptions),
  ...Object.entries(flagOptions).flatMap(([name, { attribute }]) =>
    attribute === undefined ? [] : [`r${name}`],
  ),
  ...Object.keys(propagations),
  ...['acl', 'bind', 'rbind', 'defaults', 'remount', 'idmap', 'ridmap', 'tmpcopyup', 'noacl'],
].sort()

export type MountOptions = {
  flags: number
  bind: boolean
  recursive: boolean
  remount: boolean
  copyUp: boolean
  idMap: 'none' | 'idmap' | 'ridmap'
  propagation: number
  /** `MOUNT_ATTR_*` to set and to clear: of this mount, and of all below. */
  set: number
  clear: number
  setBelow: number
  clearBelow: number
  data: string[]
}

/** config.md, Linux mount options: flags by name, the rest is the file system's own data. */
export function parseMountOptions(options: readonly string[]): MountOptions {
  const result: MountOptions = {
    flags: 0,
    bind: false,
    recursive: false,
    remount: false,
    copyUp: false,
    idMap: 'none',
    propagation: 0,
    set: 0,
    clear: 0,
    setBelow: 0,
    clearBelow: 0,
    data: [],
  }
  for (const option of options) {
    if (option === 'bind' || option === 'rbind') {
      result.bind = true
      result.recursive ||= option === 'rbind'
    } else if (option === 'remount') result.remount = true
    else if (option === 'tmpcopyup') result.copyUp = true
    else if (option === 'idmap' || option === 'ridmap') result.idMap = option
    else if (option === 'defaults' || option === 'acl' || option === 'noacl' || option === '') continue
    else if (Object.hasOwn(propagations, option)) result.propagation = propagations[option]!
    else if (Object.hasOwn(flagOptions, option)) applyFlag(result, flagOptions[option]!)
    else if (option.startsWith('r') && flagOptions[option.slice(1)]?.attribute !== undefined)
      applyRecursive(result, flagOptions[option.slice(1)]!)
    else result.data.push(option)
  }
  return result
}

function applyFlag(
  result: MountOptions,
  { flag, clear, attribute, mask }: (typeof flagOptions)[string],
): void {
  result.flags = clear ? result.flags & ~flag : result.flags | flag
  if (attribute === undefined) return
  const bits = mask ?? attribute
  result.set &= ~bits
  result.clear |= bits
  if (!clear) result.set |= attribute
  // A single bit that is set needs no clearing; the atime modes are one field.
  if (!clear && mask === undefined) result.clear &= ~bits
}

function applyRecursive(
  result: MountOptions,
  { clear, attribute, mask }: (typeof flagOptions)[string],
): void {
  const bits = mask ?? attribute!
  result.setBelow &= ~bits
  result.clearBelow |= bits
  if (!clear) result.setBelow |= attribute!
  if (!clear && mask === undefined) result.clearBelow &= ~bits
}

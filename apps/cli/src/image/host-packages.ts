import { access } from 'node:fs/promises'

type HostPackage = { why: string; file: string }

/** Debian packages that building and booting the image needs on this host: what for, and a file that shows it is there. */
const needed: Readonly<Record<string, HostPackage>> = {
  binutils: { why: 'strip and readelf for the programs of the image', file: '/usr/bin/readelf' },
  'cryptsetup-bin': { why: 'veritysetup: the hash tree of the image', file: '/usr/sbin/veritysetup' },
  dosfstools: { why: 'mkfs.vfat: the EFI system partition', file: '/usr/sbin/mkfs.vfat' },
  'erofs-utils': { why: 'mkfs.erofs: the image itself', file: '/usr/bin/mkfs.erofs' },
  fdisk: { why: 'sfdisk: partition tables', file: '/usr/sbin/sfdisk' },
  gcc: { why: 'cc: kiln-init, the only native program', file: '/usr/bin/cc' },
  'ipxe-qemu': { why: 'network boot ROM of the virtual machines', file: '/usr/lib/ipxe/qemu/efi-virtio.rom' },
  kmod: { why: 'depmod: tables of the kernel modules', file: '/usr/sbin/depmod' },
  'libc6-dev': { why: 'headers and static C library for kiln-init', file: '/usr/include/stdio.h' },
  mtools: { why: 'files in an EFI system partition without mounting it', file: '/usr/bin/mcopy' },
  ovmf: { why: 'UEFI firmware of the virtual machines', file: '/usr/share/OVMF/OVMF_CODE_4M.fd' },
  'qemu-system-x86': { why: 'the virtual machines', file: '/usr/bin/qemu-system-x86_64' },
  'qemu-utils': { why: 'qemu-img: disks of the virtual machines', file: '/usr/bin/qemu-img' },
}

/** Debian packages that only tests use: without them cases are skipped. */
const neededByTests: Readonly<Record<string, HostPackage>> = {
  'bind9-dnsutils': { why: 'dig: another make of resolver', file: '/usr/bin/dig' },
  'btrfs-progs': { why: 'mkfs.btrfs: cases of Ignition', file: '/usr/sbin/mkfs.btrfs' },
  bzip2: { why: 'disk images of the cases of Ignition', file: '/usr/bin/bunzip2' },
  'busybox-static': { why: 'root of the containers in tests', file: '/usr/bin/busybox' },
  'containernetworking-plugins': { why: 'networks of pods', file: '/usr/lib/cni/bridge' },
  cpio: { why: 'reads what we wrote', file: '/usr/bin/cpio' },
  iptables: { why: 'what CNI plug-ins run', file: '/usr/sbin/iptables' },
  jq: { why: 'cases of the OCI runtime', file: '/usr/bin/jq' },
  python3: { why: 'cases of the OCI runtime', file: '/usr/bin/python3' },
  xfsprogs: { why: 'mkfs.xfs: cases of Ignition', file: '/usr/sbin/mkfs.xfs' },
}

/** Name of each Debian package the image needs on the host, and why. */
export const hostPackages: ReadonlyMap<string, string> = new Map(
  Object.entries(needed).map(([name, { why }]) => [name, why]),
)

/** Those of {@link hostPackages} that are not installed, and with `tests` those that only tests use. */
export async function missingHostPackages(options: { tests?: boolean } = {}): Promise<string[]> {
  const missing: string[] = []
  for (const [name, { file }] of Object.entries(options.tests ? { ...needed, ...neededByTests } : needed)) {
    await access(file).catch(() => missing.push(name))
  }
  return missing
}

import { keepArgument, keptText, type MachineRecord, type Profile, type ReleaseManifest } from '@kiln/schemas'
import { type BootImages, ipxeSetting } from './ipxe-script.ts'

/** Kernel, initramfs and arguments of a matchbox profile, as they are; undefined when it boots nothing. */
export function profileImages(profile: Profile): BootImages | undefined {
  if (!profile.boot?.kernel) return undefined
  return {
    kernel: profile.boot.kernel,
    initrd: profile.boot.initrd ?? [],
    args: profile.boot.args ?? [],
  }
}

/** Kernel, initramfs and arguments of a release below the assets: `base/assets/releases/VERSION/`. */
export function releaseImages(at: {
  manifest: ReleaseManifest
  base: string
  args: readonly string[]
}): BootImages {
  const folder = `${at.base}/assets/releases/${at.manifest.version}`
  const usr = at.manifest.parts.find((part) => part.name === 'usr.img')
  return {
    kernel: `${folder}/vmlinuz`,
    initrd: [`--name initrd ${folder}/initrd`],
    args: [
      'initrd=initrd',
      ...at.manifest.kernelArguments,
      `kiln.usr.url=${folder}/usr.img`,
      `kiln.usr.size=${usr?.sizeBytes ?? 0}`,
      `kiln.usr.hash=${at.manifest.usrRootHash}`,
      `kiln.usr.offset=${at.manifest.usrHashOffset}`,
      ...at.args,
    ],
  }
}

/**
 * The images with the arguments every Kiln machine gets (docs/reference/seams.md, Kernel arguments); what the
 * profile sets itself stays. `${...}` is filled in by iPXE.
 */
export function withMachineArguments(
  images: BootImages,
  at: { record: MachineRecord; base: string; reinstall: boolean },
): BootImages {
  const [ip, gateway, netmask, dns] = ['ip', 'gateway', 'netmask', 'dns'].map(ipxeSetting)
  const wanted: [string, string][] = [
    ['ip', `${ip}::${gateway}:${netmask}::eth0:off:${dns}`],
    ['BOOTIF', `01-${ipxeSetting('mac:hexhyp')}`],
    ['kiln.boot', at.base],
    ['kiln.machine', at.record.id],
    [
      'ignition.config.url',
      `${at.base}/ignition?mac=${ipxeSetting('mac:hexhyp')}&uuid=${ipxeSetting('uuid')}`,
    ],
    ['ignition.platform.id', 'metal'],
  ]
  if (at.reinstall) wanted.push(['kiln.reinstall', '1'])
  if (at.record.keep?.length) wanted.push([keepArgument, keptText(at.record.keep)])
  const present = new Set(images.args.map((arg) => arg.split('=', 1)[0]))
  const added = wanted.filter(([key]) => !present.has(key)).map(([key, value]) => `${key}=${value}`)
  return { ...images, args: [...images.args, ...added] }
}

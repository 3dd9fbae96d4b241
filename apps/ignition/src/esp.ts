import { mkdirSync, readdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import {
  changedArguments,
  type IgnitionConfig,
  type KernelArgumentChanges,
  kernelArgumentsFile,
  type ReleaseManifest,
} from '@kiln/schemas'
import { atomicWrite, Fault } from '@kiln/service'
import type { InstallDisk } from './disks-stage.ts'
import { fetchReleasePart, type Release } from './release.ts'
import type { Run } from './run.ts'

/** Generation of a first install; updates count up from here. */
export const firstGeneration = 1
const bootLoaderPath = 'EFI/BOOT/BOOTX64.EFI'
const mountPoint = '/run/kiln/esp'
/** Tells the initramfs to restart the machine after the install: it runs with other arguments than the disk's entry has. */
const restartMark = '/run/kiln/restart'

/** The boot entry of a first install: uncounted, for slot a (docs/reference/seams.md, "ESP"). */
export function firstEntry(
  manifest: ReleaseManifest,
  changes: KernelArgumentChanges | undefined,
): { name: string; contents: string } {
  const { version, kernelArguments, usrRootHash, usrHashOffset } = manifest
  const options = [
    ...(changes ? changedArguments(kernelArguments, changes) : kernelArguments),
    `kiln.usr.hash=${usrRootHash}`,
    `kiln.usr.offset=${usrHashOffset}`,
    'kiln.slot=a',
    `kiln.generation=${firstGeneration}`,
    `kiln.version=${version}`,
  ]
  const lines = [
    `title Kiln ${version}`,
    'sort-key kiln',
    `version ${firstGeneration}`,
    `linux /kiln/${version}/vmlinuz`,
    `initrd /kiln/${version}/initrd`,
    `options ${options.join(' ')}`,
  ]
  return { name: `kiln-${firstGeneration}-${version}.conf`, contents: `${lines.join('\n')}\n` }
}

const loaderConfig = 'timeout 0\neditor no\n'

/**
 * Kernel, initramfs, loader.conf, entry, and what the config changes of the kernel's arguments, for later updates; without the boot
 * loader itself the firmware does not start them.
 */
export async function writeBootFiles(
  install: InstallDisk,
  release: Release,
  config: Pick<IgnitionConfig, 'kernelArguments'>,
  run: Run,
): Promise<void> {
  const { version } = release.manifest
  const changes = changesOf(config)
  await withEsp(install, run, async (esp) => {
    rmSync(join(esp, 'loader/entries'), { recursive: true, force: true })
    const needed = release.manifest.parts
      .filter(({ name }) => name !== 'usr.img')
      .reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
    requireSpace(esp, needed)
    for (const name of ['vmlinuz', 'initrd']) {
      await put(esp, `kiln/${version}/${name}`, await fetchReleasePart(release, name, run))
    }
    const entry = firstEntry(release.manifest, changes)
    const changesPath = join(esp, kernelArgumentsFile)
    if (changes) await atomicWrite(changesPath, `${JSON.stringify(changes)}\n`)
    else rmSync(changesPath, { force: true })
    await put(esp, 'loader/loader.conf', loaderConfig)
    await put(esp, `loader/entries/${entry.name}`, entry.contents)
    for (const name of readdirSync(join(esp, 'kiln'))) {
      if (name !== version) rmSync(join(esp, 'kiln', name), { recursive: true, force: true })
    }
  })
  run.reporter.say(`image: boot files of ${version} on the ESP`)
  if (changes && install.EFI.device) {
    run.reporter.say('image: the machine restarts after the install, for its kernel arguments')
    writeFileSync(restartMark, '')
  }
}

function changesOf({
  kernelArguments,
}: Pick<IgnitionConfig, 'kernelArguments'>): KernelArgumentChanges | undefined {
  const { shouldExist = [], shouldNotExist = [] } = kernelArguments ?? {}
  if (shouldExist.length === 0 && shouldNotExist.length === 0) return undefined
  return { formatVersion: 1, shouldExist, shouldNotExist }
}

/** Puts the boot loader where the firmware looks: the step that makes the disk bootable. */
export async function enableBoot(install: InstallDisk, release: Release, run: Run): Promise<void> {
  const loader = await fetchReleasePart(release, 'systemd-bootx64.efi', run)
  await withEsp(install, run, (esp) => put(esp, bootLoaderPath, loader))
}

/** Calls `use` with the folder of the ESP: its mount, or `boot` in the root when the disk is a file. */
async function withEsp(install: InstallDisk, run: Run, use: (esp: string) => Promise<void>): Promise<void> {
  if (!install.EFI.device) {
    const folder = join(run.options.root, 'boot')
    mkdirSync(folder, { recursive: true })
    return use(folder)
  }
  mkdirSync(mountPoint, { recursive: true })
  await run.command('mount', ['-t', 'vfat', '-o', 'umask=0077', install.EFI.path, mountPoint])
  try {
    await use(mountPoint)
  } finally {
    await run.command('umount', [mountPoint])
  }
}

async function put(esp: string, path: string, content: string | Uint8Array): Promise<void> {
  const full = join(esp, path)
  mkdirSync(dirname(full), { recursive: true })
  await atomicWrite(full, content)
}

function requireSpace(folder: string, neededBytes: number): void {
  const { bavail, bsize } = statfsSync(folder)
  if (bavail * bsize < neededBytes) {
    throw new Fault(
      'ESP_FULL',
      `the ESP has ${bavail * bsize} bytes free, the release needs ${neededBytes}`,
      {
        remedy: 'give the EFI partition more space in the config',
      },
    )
  }
}

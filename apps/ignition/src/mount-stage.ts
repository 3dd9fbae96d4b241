import { existsSync, lstatSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { IgnitionConfig } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import { resolveDevice } from './block-disk.ts'
import type { InstallDisk } from './disks-stage.ts'
import { insideRoot } from './root-path.ts'
import type { Run } from './run.ts'

const mountable = ['ext4', 'xfs', 'btrfs', 'vfat']
/** Lays out ROOT, /usr and the /etc overlay; the initramfs uses the same script (infra/image/mount-root.sh). */
const mountRoot = '/usr/lib/kiln/mount-root'
/** `umount` says so when there is nothing mounted. */
const notMounted = 32

/** Mounts the system's root and the config's own filesystems. Returns the mount points, outermost first. */
export async function runMount(
  config: IgnitionConfig,
  install: InstallDisk | undefined,
  run: Run,
): Promise<string[]> {
  const mounts: string[] = []
  try {
    if (install?.ROOT.device) {
      const root = run.options.root
      mounts.push(root, join(root, 'usr'), join(root, 'etc'))
      await run.command(mountRoot, [install.ROOT.path, '/usr', root])
    }
    await mountOwn(config, run, mounts)
  } catch (error) {
    for (const point of mounts.reverse()) await run.command('umount', [point], { accepted: [0, notMounted] })
    throw error
  }
  return mounts
}

/** Unmounts what `runMount` mounted, innermost first. */
export async function runUmount(mounts: string[], run: Run): Promise<void> {
  while (mounts.length > 0) await run.command('umount', [mounts.pop()!])
}

async function mountOwn(config: IgnitionConfig, run: Run, mounts: string[]): Promise<void> {
  if (run.options.diskImage !== undefined) return
  const filesystems = (config.storage?.filesystems ?? []).filter(
    ({ path, format }) => path && path !== '/' && mountable.includes(format ?? ''),
  )
  const depth = (path: string): number => path.split('/').length
  for (const spec of filesystems.sort((a, b) => depth(a.path!) - depth(b.path!))) {
    const point = insideRoot(run.options.root, spec.path!)
    const there = lstatSync(point, { throwIfNoEntry: false })
    if (there && !there.isDirectory()) {
      throw new Fault('MOUNT_POINT_INVALID', `mount point ${spec.path} is not a directory`)
    }
    if (!existsSync(point)) mkdirSync(point, { recursive: true, mode: 0o755 })
    const device = await resolveDevice(spec.device, run.command, run.clock)
    const options = spec.mountOptions?.length ? ['-o', spec.mountOptions.join(',')] : []
    await run.command('mount', ['-t', spec.format!, ...options, device, point])
    mounts.push(point)
  }
}

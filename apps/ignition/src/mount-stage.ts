import { chmodSync, lstatSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { Fault } from '@kiln/service'
import { madeDirectories, rememberMade } from './apply-journal.ts'
import type { InstallDisk } from './disks-stage.ts'
import type { Fetched } from './fetch-stage.ts'
import { installs } from './options.ts'
import type { Run } from './run.ts'
import { openTargetRoot } from './target-root.ts'

const mountable = ['ext4', 'xfs', 'btrfs', 'vfat']
/** Lays out ROOT, /usr and the /etc overlay; the initramfs uses the same script (infra/image/mount-root.sh). */
export const mountRoot = '/usr/lib/kiln/mount-root'
/** `umount` says so when there is nothing mounted. */
const notMounted = 32

/** What `runMount` did: mount points, outermost first, and directories (of the machine) that it made for them. */
export type Mounted = { points: string[]; made: string[] }

/** Mounts the system's root and the config's own filesystems. */
export async function runMount(
  fetched: Pick<Fetched, 'config' | 'configHash'>,
  install: InstallDisk | undefined,
  run: Run,
): Promise<Mounted> {
  const mounted: Mounted = { points: [], made: [] }
  const { points } = mounted
  try {
    if (install?.ROOT.device) {
      const root = run.options.root
      points.push(root, join(root, 'usr'), join(root, 'etc'))
      await run.command(mountRoot, [install.ROOT.path, '/usr', root])
    }
    await mountOwn(fetched, run, mounted)
  } catch (error) {
    for (const point of points.reverse()) await run.command('umount', [point], { accepted: [0, notMounted] })
    throw error
  }
  return mounted
}

/** Unmounts what `runMount` mounted, innermost first. */
export async function runUmount({ points }: Mounted, run: Run): Promise<void> {
  while (points.length > 0) await run.command('umount', [points.pop()!])
}

async function mountOwn(
  { config, configHash }: Pick<Fetched, 'config' | 'configHash'>,
  run: Run,
  { points, made }: Mounted,
): Promise<void> {
  if (run.options.diskImage !== undefined) return
  const target = openTargetRoot(run)
  made.push(...madeDirectories(configHash, target))
  const { root } = run.options
  const filesystems = (config.storage?.filesystems ?? [])
    .map((spec, index) => ({ ...spec, path: spec.path ?? '', index }))
    // The root of a system that is being installed is mounted already.
    .filter(
      ({ path, format }) =>
        path && mountable.includes(format ?? '') && !(path === '/' && installs(run.options)),
    )
  const depth = (path: string): number => path.split('/').filter((part) => part !== '').length
  for (const { path, index, ...spec } of filesystems.sort((a, b) => depth(a.path) - depth(b.path))) {
    try {
      const missing = missingDirectories(root, path)
      if (missing.length > 0) {
        made.push(...missing.filter((each) => !made.includes(each)))
        rememberMade(configHash, made, target)
        for (const each of missing) makeDirectory(join(root, each))
      }
      const point = join(root, path)
      const device = await run.devices.resolve(spec.device)
      const options = spec.mountOptions?.length ? ['-o', spec.mountOptions.join(',')] : []
      await run.command('mount', ['-t', spec.format!, ...options, device, point])
      points.push(point)
      run.reporter.say(`mount: ${device} at ${path}`)
    } catch (error) {
      throw error instanceof Fault
        ? Object.assign(error, { path: `$.storage.filesystems.${index}.path` })
        : error
    }
  }
}

/** Directories to make for a mount point; every part that is there must be a directory of its own, not a link to one. */
function missingDirectories(root: string, path: string): string[] {
  const missing: string[] = []
  let at = ''
  for (const part of path.split('/').filter((each) => each !== '')) {
    at += `/${part}`
    const there = lstatSync(join(root, at), { throwIfNoEntry: false })
    if (there?.isSymbolicLink()) {
      throw new Fault('MOUNT_POINT_INVALID', `mount point ${path} goes through the link ${at}`, {
        remedy: 'name the place the link points to',
      })
    }
    if (there && !there.isDirectory()) {
      throw new Fault('MOUNT_POINT_INVALID', `mount point ${path}: ${at} is not a directory`)
    }
    if (!there) missing.push(at)
  }
  return missing
}

function makeDirectory(path: string): void {
  mkdirSync(path)
  chmodSync(path, 0o755)
}

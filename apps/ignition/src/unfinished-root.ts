import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { Fault } from '@kiln/service'
import { parseBlkid } from './filesystem-plan.ts'
import { markerPaths } from './markers.ts'
import type { Run } from './run.ts'

/**
 * Stays when an unfinished ROOT is emptied: the key whose request may have been answered already, and what was on the
 * config's other file systems before.
 */
const kept = [
  'etc',
  'etc/.ignition-journal',
  'etc/.ignition-made',
  'etc/kiln',
  'etc/kiln/pki',
  'etc/kiln/pki/machine.key',
  'lost+found',
]

/**
 * Refuses a ROOT whose install is complete, unless the machine is set to reinstall. The initramfs looks too, but at the
 * one moment it starts, when a slow disk may not be there yet.
 */
export async function refuseInstalledRoot(device: string, run: Run): Promise<void> {
  if (run.kernel.reinstall) return
  const installed = await withRoot(device, run, (root) => existsSync(join(root, markerPaths.installed)))
  if (installed !== true) return
  throw new Fault('INSTALLED_ALREADY', `${device} holds an installed system`, {
    remedy: 'set the machine to reinstall to lose it',
  })
}

/**
 * Keeps the ROOT of an install that a power cut ended, emptied but for the machine's key, so that enrolment can be
 * repeated with the same key. False when there is no such ROOT: it is then formatted.
 */
export async function keepUnfinishedRoot(device: string, run: Run): Promise<boolean> {
  const kept = await withRoot(device, run, (root) => {
    const unfinished =
      existsSync(join(root, markerPaths.installing)) && !existsSync(join(root, markerPaths.installed))
    if (unfinished) {
      empty(root, '')
      run.reporter.say(`disks: ${device} holds an install that did not finish; it is taken up again`)
    }
    return unfinished
  })
  return kept === true
}

/** Mounts a ROOT of ours for a look; undefined when the device holds none that can be mounted. */
async function withRoot<T>(device: string, run: Run, look: (root: string) => T): Promise<T | undefined> {
  const probe = await run.command('blkid', ['-p', '-o', 'export', device], { accepted: [0, 2] })
  const found = parseBlkid(probe.stdout)
  if (found?.type !== 'ext4' || found.label !== 'ROOT') return undefined
  const root = run.options.root
  mkdirSync(root, { recursive: true })
  const mounted = await run.command('mount', ['-t', 'ext4', device, root], { accepted: [0, 32] })
  if (mounted.code !== 0) return undefined
  try {
    return look(root)
  } finally {
    await run.command('umount', [root])
  }
}

/**
 * The same for a plain folder: refused when it is installed, unless the machine is set to reinstall, which removes all
 * of it; emptied when an install did not finish.
 */
export function takeUpFolder(run: Run): void {
  const root = run.options.root
  if (existsSync(join(root, markerPaths.installed))) {
    if (!run.kernel.reinstall) {
      throw new Fault('INSTALLED_ALREADY', `${root} is installed`, {
        remedy: 'set the machine to reinstall to lose it',
      })
    }
    // The marker is below var: it goes last, so that a removal that was cut short begins again.
    const names = readdirSync(root).filter((name) => name !== 'var')
    for (const name of [...names, 'var']) rmSync(join(root, name), { recursive: true, force: true })
    run.reporter.say(`files: ${root} was installed; it is emptied to install it again`)
    return
  }
  if (!existsSync(join(root, markerPaths.installing))) return
  empty(root, '')
  run.reporter.say(`files: ${root} holds an install that did not finish; it is taken up again`)
}

/** Removes everything below a folder but what is kept. */
export function empty(root: string, below: string): void {
  for (const name of readdirSync(join(root, below))) {
    const path = below === '' ? name : `${below}/${name}`
    if (!kept.includes(path)) rmSync(join(root, path), { recursive: true, force: true })
    else if (kept.some((other) => other.startsWith(`${path}/`))) empty(root, path)
  }
}

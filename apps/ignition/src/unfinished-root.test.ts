import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { formatInstall, type InstallDisk } from './disks-stage.ts'
import type { Run } from './run.ts'
import { simulatedRun } from './simulated-run.ts'
import { finishInstall } from './stages.ts'

const place = { offset: 0, sizeBytes: 1, device: true, path: '/dev/null' }
const disk: InstallDisk = { EFI: place, 'USR-A': place, 'USR-B': place, ROOT: place }

/** A machine whose ROOT holds the given files: `mount` shows them in the target folder. */
function machine(files: string[], cmdline = '') {
  const { run, root } = simulatedRun({ cmdline })
  const commands: string[] = []
  const command: Run['command'] = async (name, args) => {
    commands.push(name)
    if (name === 'mount')
      for (const file of files) {
        mkdirSync(join(root, file, '..'), { recursive: true })
        writeFileSync(join(root, file), '{}')
      }
    return { code: 0, stdout: name === 'blkid' && args.includes('export') ? 'TYPE=ext4\nLABEL=ROOT\n' : '' }
  }
  return { commands, root, format: () => formatInstall(disk, [], { ...run, command }) }
}

test('a disk with an installed system is refused before anything on it is formatted', async () => {
  const one = machine(['var/lib/kiln/installed', 'var/lib/kiln/data'])
  await expect(one.format()).rejects.toMatchObject({ code: 'INSTALLED_ALREADY' })
  expect(one.commands).toEqual(['blkid', 'mount', 'umount'])
  expect(existsSync(join(one.root, 'var/lib/kiln/data'))).toBe(true)
})

test('a machine set to reinstall formats an installed disk', async () => {
  const one = machine(['var/lib/kiln/installed'], 'kiln.reinstall=1')
  await one.format()
  expect(one.commands.filter((name) => name.startsWith('mkfs'))).toEqual(['mkfs.vfat', 'mkfs.ext4'])
})

test('an install that did not finish is emptied but for the key, and ROOT is not formatted', async () => {
  const one = machine(['var/lib/kiln/installing', 'etc/kiln/pki/machine.key', 'etc/hostname'])
  await one.format()
  expect(one.commands.filter((name) => name.startsWith('mkfs'))).toEqual(['mkfs.vfat'])
  expect(existsSync(join(one.root, 'etc/kiln/pki/machine.key'))).toBe(true)
  expect(existsSync(join(one.root, 'etc/hostname'))).toBe(false)
})

test('every filesystem is synced before the marker says that the install is complete', async () => {
  const { run, root } = simulatedRun()
  const seen: string[] = []
  const command: Run['command'] = async (name, args) => {
    seen.push([name, ...args, existsSync(join(root, 'var/lib/kiln/installed'))].join(' '))
    return { code: 0, stdout: '' }
  }
  const fetched = { config: { ignition: { version: '3.4.0' } }, userConfigProvided: true, configHash: 'x' }
  await finishInstall(fetched, disk, undefined, { ...run, command })
  expect(seen).toEqual(['sync false'])
  expect(existsSync(join(root, 'var/lib/kiln/installed'))).toBe(true)
})

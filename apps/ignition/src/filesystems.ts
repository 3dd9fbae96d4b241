import type { IgnitionFilesystem } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import { isBusy } from './block-disk.ts'
import {
  type FilesystemAction,
  type FoundFilesystem,
  parseBlkid,
  parseWipefs,
  planFilesystem,
} from './filesystem-plan.ts'
import { refuseKept } from './kept-partitions.ts'
import type { Run } from './run.ts'

/** `blkid -p` finds nothing, and finds more than one thing. */
const nothingFound = 2
const ambivalent = 8

type Planned = { index: number; device: string; found: FoundFilesystem[]; action: FilesystemAction }

/**
 * Makes the file systems of a config. All are looked at first, so that one that is refused leaves the others as they
 * are; then all are made at the same time.
 */
export async function applyFilesystems(specs: IgnitionFilesystem[], run: Run): Promise<void> {
  if (run.options.diskImage !== undefined) {
    for (const { device } of specs) {
      run.warn(`disks: ${device} is not formatted: a disk image has no devices`)
    }
    return
  }
  const looked = await Promise.allSettled(specs.map((spec, index) => plan(spec, index, run)))
  const planned = looked.map((each) => {
    if (each.status === 'rejected') throw each.reason
    return each.value
  })
  const results = await Promise.allSettled(
    planned.map(async (each) => {
      await apply(each, run)
      run.acted(`file system on ${each.device}`)
    }),
  )
  for (const [index, result] of results.entries()) {
    if (result.status === 'rejected') throw placed(result.reason, planned[index]!.index)
  }
}

async function plan(spec: IgnitionFilesystem, index: number, run: Run): Promise<Planned> {
  try {
    const device = await run.devices.resolve(spec.device)
    const found = await signaturesOf(device, run)
    if (found.length > 1) {
      run.warn(
        `disks: ${device} holds ${found.map(({ type }) => type).join(' and ')}; the first that fits counts`,
      )
    }
    const action = planFilesystem(spec, device, found)
    if (action.kind === 'refuse') {
      throw new Fault('FILESYSTEM_REFUSED', action.reason, { remedy: 'set wipeFilesystem to replace it' })
    }
    if (action.kind !== 'keep') refuseKept(device, 'the config would make a file system there', run)
    if (action.kind !== 'keep' && isBusy(device)) {
      throw new Fault('DEVICE_IN_USE', `${device} is in use and cannot be formatted`, {
        remedy: 'unmount it, or take it out of the config',
      })
    }
    return { index, device, found, action }
  } catch (error) {
    throw placed(error, index)
  }
}

/** What is on a device; wipefs lists all of it where blkid will not choose. */
export async function signaturesOf(device: string, run: Run): Promise<FoundFilesystem[]> {
  const accepted = [0, nothingFound, ambivalent]
  const { code, stdout } = await run.command('blkid', ['-p', '-o', 'export', device], { accepted })
  if (code === ambivalent) {
    const all = await run.command('wipefs', ['--json', '--output', 'TYPE,LABEL,UUID', device])
    return parseWipefs(all.stdout)
  }
  const found = parseBlkid(stdout)
  return found ? [found] : []
}

async function apply({ device, found, action }: Planned, run: Run): Promise<void> {
  switch (action.kind) {
    case 'refuse':
    case 'keep':
      run.reporter.say(`disks: ${device} stays as it is`)
      return
    case 'wipe':
      await run.command('wipefs', ['-a', device])
      run.reporter.say(`disks: ${device} is wiped`)
      return
    case 'create':
      if (found.length > 0) await run.command('wipefs', ['-a', device])
      await run.command(action.command, action.args)
      run.reporter.say(`disks: ${action.command} ${action.args.join(' ')}`)
  }
}

function placed(error: unknown, index: number): unknown {
  return error instanceof Fault ? Object.assign(error, { path: `$.storage.filesystems.${index}` }) : error
}

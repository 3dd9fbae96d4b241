import { createHash } from 'node:crypto'
import type { IgnitionConfig } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import { refuseKept } from './kept-partitions.ts'
import type { Run } from './run.ts'

type Raid = NonNullable<NonNullable<IgnitionConfig['storage']>['raid']>[number]

/** Arguments of mdadm(8) that make an array. */
export function mdadmCreate(raid: Raid, devices: string[], uuid: string): string[] {
  const spares = raid.spares ?? 0
  return [
    ...['--create', raid.name, '--force', '--run', '--homehost', 'any', '--uuid', uuid],
    ...['--level', raid.level ?? '', '--raid-devices', `${devices.length - spares}`],
    ...(spares > 0 ? ['--spare-devices', `${spares}`] : []),
    ...(raid.options ?? []),
    ...devices,
  ]
}

/**
 * Makes the arrays of a config. An array's UUID follows from the config, so that after a power cut it is known on the
 * disks themselves which array this very config has made already: that one is assembled, not made again.
 */
export async function applyRaid(config: IgnitionConfig, configHash: string, run: Run): Promise<void> {
  for (const [index, raid] of (config.storage?.raid ?? []).entries()) {
    try {
      await applyArray(raid, arrayUuid(configHash, raid.name), run)
    } catch (error) {
      throw error instanceof Fault ? Object.assign(error, { path: `$.storage.raid.${index}` }) : error
    }
  }
}

async function applyArray(raid: Raid, uuid: string, run: Run): Promise<void> {
  const devices: string[] = []
  for (const device of raid.devices ?? []) devices.push(await run.devices.resolve(device))
  const members = await Promise.all(devices.map((device) => memberOf(device, run)))
  if (members.every((each) => each === uuid)) {
    run.reporter.say(`disks: array ${raid.name} was made before; it is assembled`)
    // 1: it runs already.
    await run.command('mdadm', ['--assemble', `/dev/md/${raid.name}`, '--run', ...devices], {
      accepted: [0, 1],
    })
  } else {
    for (const device of devices) refuseKept(device, `the config would make array ${raid.name} of it`, run)
    await run.command('mdadm', mdadmCreate(raid, devices, uuid))
    run.reporter.say(`disks: array ${raid.name} of ${devices.join(' ')}`)
  }
  await run.devices.resolve(`/dev/md/${raid.name}`)
}

/** Stops the arrays of a config; the system assembles them at every boot. */
export async function stopRaid(config: IgnitionConfig, run: Run): Promise<void> {
  for (const { name } of (config.storage?.raid ?? []).toReversed()) {
    await run.command('mdadm', ['--stop', `/dev/md/${name}`])
  }
}

/** UUID of the array a device belongs to, as mdadm writes it. */
async function memberOf(device: string, run: Run): Promise<string | undefined> {
  const { code, stdout } = await run.command('mdadm', ['--examine', '--export', device], { accepted: [0, 1] })
  return code === 0 ? /^MD_UUID=(.*)$/m.exec(stdout)?.[1] : undefined
}

/** Four groups of eight hex digits, as mdadm writes UUIDs. */
function arrayUuid(configHash: string, name: string): string {
  const digits = createHash('sha256').update(`${configHash} ${name}`).digest('hex').slice(0, 32)
  return digits.match(/.{8}/g)!.join(':')
}

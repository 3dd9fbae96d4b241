import { createHash, randomBytes } from 'node:crypto'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { IgnitionConfig } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import { isBusy } from './block-disk.ts'
import { fetchResource } from './fetch-resource.ts'
import { signaturesOf } from './filesystems.ts'
import { refuseKept } from './kept-partitions.ts'
import {
  type CrypttabEntry,
  clevisBind,
  type Luks,
  luksFormat,
  luksOpen,
  needsNetworkAtBoot,
  withCrypttabEntries,
} from './luks-plan.ts'
import { settingsOfRendered } from './render-config.ts'
import type { Run } from './run.ts'
import type { TargetRoot } from './target-root.ts'

const keyBytes = 4096
const keyFolder = '/etc/luks'
/** cryptsetup(8): no permission, which is a wrong key. */
const wrongKey = 2

/** What the files stage must know of a volume: its line in crypttab and, when it stays, its key (base64). */
export type LuksVolume = { name: string; uuid: string; key: string | undefined; netdev: boolean }

/**
 * Formats or reuses the volumes of a config and opens them below /dev/mapper. Key files are fetched as the config says:
 * with its authorities, timeouts and proxies.
 */
export async function applyLuks(
  config: IgnitionConfig,
  configHash: string,
  plain: Run,
): Promise<LuksVolume[]> {
  const volumes: LuksVolume[] = []
  const run = { ...plain, settings: await settingsOfRendered(config, plain.fetcher, plain.settings) }
  for (const [index, luks] of (config.storage?.luks ?? []).entries()) {
    try {
      volumes.push(await applyVolume(luks, volumeUuid(configHash, luks.name), run))
    } catch (error) {
      throw error instanceof Fault ? Object.assign(error, { path: `$.storage.luks.${index}` }) : error
    }
  }
  return volumes
}

async function applyVolume(luks: Luks, uuid: string, run: Run): Promise<LuksVolume> {
  const device = await run.devices.resolve(luks.device ?? '')
  const given = luks.keyFile?.source
    ? await fetchResource(luks.keyFile, run.fetcher, run.settings)
    : undefined
  const key = given ?? Buffer.from(randomBytes(keyBytes).toString('hex'))
  const keyPath = join(
    dirname(run.options.stateFile),
    `luks-${createHash('sha256').update(luks.name).digest('hex')}`,
  )
  mkdirSync(dirname(keyPath), { recursive: true })
  writeFileSync(keyPath, key, { mode: 0o600 })
  try {
    const [found] = await signaturesOf(device, run)
    if (!(await reusable(luks, device, { keyPath, given: given !== undefined, uuid }, run))) {
      refuseKept(device, 'the config would make a LUKS volume there', run)
      if (isBusy(device)) throw new Fault('DEVICE_IN_USE', `${device} is in use and cannot be formatted`)
      if (found) await run.command('wipefs', ['-a', device])
      await run.command('cryptsetup', luksFormat(luks, device, keyPath, uuid))
      run.reporter.say(`disks: LUKS volume ${luks.name} on ${device}`)
    }
    await run.command('cryptsetup', luksOpen(luks, device, keyPath))
    const bind = clevisBind(luks, device, keyPath)
    if (bind) {
      await run.command('clevis', bind)
      // A key that nobody was given opens nothing any more once the pin does.
      if (!given) await run.command('cryptsetup', ['luksRemoveKey', device, keyPath])
    }
    const { stdout } = await run.command('cryptsetup', ['luksUUID', device])
    const kept = bind && !given ? undefined : key.toString('base64')
    return { name: luks.name, uuid: stdout.trim(), key: kept, netdev: needsNetworkAtBoot(luks) }
  } finally {
    rmSync(keyPath, { force: true })
  }
}

/**
 * Whether the volume that is there is used: the given key opens it and label and UUID are the config's. Anything else
 * on the device is refused without wipeVolume, but for a volume that this very config began to make before a power cut:
 * its UUID follows from the config, and nothing is in it yet.
 */
async function reusable(
  luks: Luks,
  device: string,
  { keyPath, given, uuid }: { keyPath: string; given: boolean; uuid: string },
  run: Run,
): Promise<boolean> {
  if (luks.wipeVolume === true) return false
  const [found] = await signaturesOf(device, run)
  if (!found || (found.type === 'crypto_LUKS' && found.uuid === uuid && !given)) return false
  const refuse = (why: string): Fault =>
    new Fault('FILESYSTEM_REFUSED', `${device} holds ${found.type} already: ${why}`, {
      remedy: 'set wipeVolume to replace it',
    })
  if (found.type !== 'crypto_LUKS') throw refuse('it is no LUKS volume')
  if (luks.label && luks.label !== found.label) throw refuse(`its label is ${found.label ?? 'empty'}`)
  if (luks.uuid && luks.uuid.toLowerCase() !== found.uuid?.toLowerCase())
    throw refuse(`its uuid is ${found.uuid}`)
  if (!given) throw refuse('the config has no key that opens it')
  const test = ['luksOpen', '--test-passphrase', '--key-file', keyPath, device]
  const { code } = await run.command('cryptsetup', test, { accepted: [0, wrongKey] })
  if (code !== 0) throw refuse('the key does not open it')
  run.reporter.say(`disks: LUKS volume ${luks.name} stays as it is`)
  return true
}

/** Closes what `applyLuks` opened, last first: volumes may lie in each other. */
export async function closeLuks(volumes: readonly LuksVolume[], run: Run): Promise<void> {
  for (const { name } of volumes.toReversed()) await run.command('cryptsetup', ['luksClose', name])
}

/** Keys that stay and crypttab(5), for the system to open the volumes at every boot. */
export function writeCrypttab(volumes: LuksVolume[], target: TargetRoot): void {
  if (volumes.length === 0) return
  const entries = volumes.map(({ name, uuid, key, netdev }): CrypttabEntry => {
    if (key === undefined) return { name, uuid, keyFile: undefined, netdev }
    const keyFile = `${keyFolder}/${name}`
    target.folder(keyFolder, 0o700, { uid: 0, gid: 0 })
    target.write(keyFile, Buffer.from(key, 'base64'), 0o600, { uid: 0, gid: 0 })
    return { name, uuid, keyFile, netdev }
  })
  const text = withCrypttabEntries(target.read('/etc/crypttab') ?? '', entries)
  target.write('/etc/crypttab', text, 0o600, { uid: 0, gid: 0 })
}

function volumeUuid(configHash: string, name: string): string {
  const digits = createHash('sha256').update(`${configHash} ${name}`).digest('hex')
  const parts = [
    digits.slice(0, 8),
    digits.slice(8, 12),
    `4${digits.slice(13, 16)}`,
    `8${digits.slice(17, 20)}`,
  ]
  return [...parts, digits.slice(20, 32)].join('-')
}

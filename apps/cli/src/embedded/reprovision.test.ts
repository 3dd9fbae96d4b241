import { existsSync, mkdtempSync, openSync, readFileSync, readSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createLog } from '@kiln/service'
import { expect, test } from 'vitest'
import { reprovision } from '../commands/machine-reprovision.ts'
import { planEmbedded, prepareEmbedded } from '../commands/up-embedded.ts'
import { BootClient } from '../lab/boot-client.ts'
import { bootServer } from '../lab/boot-server.ts'
import { createStateFolder, stateFolder } from '../lab/state-folder.ts'
import { runSimulatedMachine } from './simulated-machine.ts'

const sizes = { EFI: 64, 'USR-A': 64, 'USR-B': 64, ROOT: 512, DATA: 32 }
const dataAt = (1 + 64 * 3 + 512) * 1024 * 1024
const config = {
  ignition: { version: '3.4.0' },
  storage: {
    disks: [
      {
        device: '/dev/vda',
        partitions: Object.entries(sizes).map(([label, sizeMiB], index) => ({
          number: index + 1,
          label,
          sizeMiB,
        })),
      },
    ],
  },
}
const patience = { timeout: 90_000, interval: 250 }

test('a machine that is set to reprovision installs itself again at its next boot and keeps what it was told to', async () => {
  const state = stateFolder(mkdtempSync(join(tmpdir(), 'kiln-reprovision-')), {})
  createStateFolder(state)
  const lab = await planEmbedded(1)
  await prepareEmbedded(state, lab)
  writeFileSync(join(state.bootData, 'ignition/kiln.ign'), JSON.stringify(config))
  const log = createLog('test', 'silent')
  const server = bootServer(state, lab, log, () => undefined)
  const boot = new BootClient(state, lab)
  const [machine] = lab.machines
  const { folder, disk } = state.machine(machine!.name)
  const loader = join(folder, 'root/boot/EFI/BOOT/BOOTX64.EFI')
  const stop = new AbortController()
  const record = async () => (await boot.machines().catch(() => []))[0]
  server.start()
  await expect.poll(() => boot.isServing(), patience).toBe(true)
  const running = runSimulatedMachine(
    {
      ...{ folder, mac: machine!.bootMac, uuid: machine!.uuid },
      bootUrl: `http://127.0.0.1:${lab.bootPort}`,
    },
    log,
    stop.signal,
  )
  try {
    await expect.poll(async () => (await record())?.stage, patience).toBe('units')
    expect(await record()).toMatchObject({ state: 'installed', installs: 1 })
    const written = Buffer.from('what must survive')
    writeSync(openSync(disk, 'r+'), written, 0, written.length, dataAt)
    const key = readFileSync(join(folder, 'root/etc/kiln/pki/machine.key'), 'utf8')
    writeFileSync(join(folder, 'root/etc/left-behind'), '')

    const context = {
      environment: process.env,
      signal: stop.signal,
      live: false,
      print: () => undefined,
      note: () => undefined,
    }
    const asked = { machine: machine!.name, keep: ['DATA'], state: state.root }
    await reprovision(asked, context)
    await expect.poll(() => existsSync(loader), patience).toBe(false)
    await reprovision({ ...asked, keep: [], cancel: true }, context)
    await expect.poll(() => existsSync(loader), patience).toBe(true)
    expect((await record())?.keep).toBeUndefined()

    await reprovision(asked, context)
    await expect.poll(() => existsSync(loader), patience).toBe(false)
    expect(await record()).toMatchObject({ installs: 1, keep: ['DATA'] })

    writeFileSync(join(folder, 'reboot-wanted'), '')
    await expect.poll(record, patience).toMatchObject({ installs: 2, state: 'installed', stage: 'units' })
    const after = await record()
    expect([after?.reinstall, after?.keep]).toEqual([undefined, undefined])
    expect(existsSync(loader)).toBe(true)
    expect(existsSync(join(folder, 'root/etc/left-behind'))).toBe(false)
    expect(readFileSync(join(folder, 'root/etc/kiln/pki/machine.key'), 'utf8')).not.toBe(key)
    const found = Buffer.alloc(written.length)
    readSync(openSync(disk, 'r'), found, 0, found.length, dataAt)
    expect(found).toEqual(written)
  } finally {
    stop.abort()
    await running
    await server.stop()
  }
}, 240_000)

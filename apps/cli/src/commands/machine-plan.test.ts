import { existsSync, mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createLog } from '@kiln/service'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { BootClient } from '../lab/boot-client.ts'
import { bootServer } from '../lab/boot-server.ts'
import type { ServiceProcess } from '../lab/service-process.ts'
import { createStateFolder, type LabRecord, stateFolder } from '../lab/state-folder.ts'
import { machinePlan } from './machine-plan.ts'
import { reprovision } from './machine-reprovision.ts'
import { planEmbedded, prepareEmbedded } from './up-embedded.ts'

const state = stateFolder(mkdtempSync(join(tmpdir(), 'kiln-plan-test-')), {})
let lab: LabRecord
let boot: BootClient
let server: ServiceProcess

/** A boot server with one machine that has asked how to boot. */
beforeAll(async () => {
  createStateFolder(state)
  lab = await planEmbedded(1)
  await prepareEmbedded(state, lab)
  server = bootServer(state, lab, createLog('test', 'silent'), () => undefined)
  server.start()
  boot = new BootClient(state, lab)
  await vi.waitUntil(() => boot.isServing(), { timeout: 60_000 })
  await fetch(`http://127.0.0.1:${lab.bootPort}/ipxe?mac=${lab.machines[0]!.bootMac}`)
}, 90_000)
afterAll(async () => server.stop())

/** A command's surroundings, and what it prints there. */
function listening() {
  const lines: string[] = []
  const context = {
    environment: process.env,
    signal: new AbortController().signal,
    live: false,
    print: (text: string) => void lines.push(text),
    note: () => undefined,
  }
  return { lines, context }
}

async function planned(machine: string, more: object = {}): Promise<{ code: number; text: string }> {
  const { lines, context } = listening()
  const options = { machine, disk: [], keep: [], offline: false, json: false, state: state.root, ...more }
  const code = await machinePlan(options, context)
  return { code, text: lines.join('\n') }
}

test('a plan shows the files that the boot server adds and those of the config', async () => {
  const { code, text } = await planned('node1')
  expect(text).toMatch(/^node1 installs itself when it asks the network next:/)
  for (const label of ['EFI', 'USR-A', 'USR-B', 'ROOT']) expect(text).toContain(` "${label}" at `)
  expect(text).toMatch(/mkfs\.ext4 .*-L ROOT \/dev\/vda4/)
  expect(text).toContain('create file /etc/kiln/machine.json (0644)')
  expect(text).toContain('create file /etc/hostname (0644)')
  expect(text).toMatch(/create file \/etc\/kiln\/pods.d\//)
  expect(text).not.toContain('enrol.json')
  expect(code).toBe(0)
  expect(existsSync(state.machine('node1').disk)).toBe(false)
}, 60_000)

test('as JSON a plan is the report of the simulation, with what the machine would do', async () => {
  const { code, text } = await planned('node1', { json: true, offline: true })
  expect(code).toBe(0)
  expect(JSON.parse(text)).toMatchObject({
    machine: 'node1',
    next: { kind: 'install', reinstall: false },
    outcome: 'applies',
    files: expect.arrayContaining([expect.objectContaining({ path: '/etc/hostname', change: 'create' })]),
  })
}, 60_000)

test('a reprovision with partitions to keep is shown, then asked for, and is in the record until it is done', async () => {
  const shown = await planned('node1', { keep: ['DATA'] })
  expect(shown.code).toBe(1)
  expect(shown.text).toContain('no disk has a partition labelled DATA')
  const { lines, context } = listening()
  await reprovision({ machine: 'node1', keep: ['DATA', 'a b'], state: state.root }, context)
  expect(lines).toEqual([
    'node1: the next boot installs it again; it keeps DATA, a b',
    expect.stringContaining('the store is on this machine alone'),
  ])
  const [record] = await boot.machines()
  expect(record).toMatchObject({ reinstall: true, keep: ['DATA', 'a b'] })
  expect((await boot.plan('node1')).kernelArguments).toContain('kiln.keep=DATA,a%20b')
  for (const keep of [['ROOT'], ['A', 'A'], ['x'.repeat(37)]]) {
    await expect(reprovision({ machine: 'node1', keep, state: state.root }, context)).rejects.toMatchObject({
      code: 'USAGE',
    })
  }
  await reprovision({ machine: 'node1', keep: [], state: state.root }, context)
  expect((await boot.machines())[0]?.keep).toBeUndefined()
}, 60_000)

test('a config that would fail or is invalid gives the codes of the simulation', async () => {
  const path = join(state.bootData, 'ignition/kiln.ign')
  const serve = async (config: object): Promise<void> => {
    writeFileSync(path, JSON.stringify({ ignition: { version: '3.4.0' }, ...config }))
    await expect
      .poll(async () => atob(sourceOf((await boot.plan('node1')).config)), { timeout: 20_000 })
      .toContain(JSON.stringify(config).slice(1, -1))
  }
  const disk = { device: '/dev/vda', partitions: [{ number: 1, sizeMiB: 100_000 }] }
  await serve({ storage: { disks: [disk] } })
  const failing = await planned('node1')
  expect(failing.text).toMatch(/It would fail at stage disks: .*\/dev\/vda: partition 1 needs 100000 MiB/)
  expect(failing.code).toBe(1)
  await serve({ storage: { disks: [{ ...disk, partitions: [disk.partitions[0], disk.partitions[0]] }] } })
  const invalid = await planned('node1', { json: true })
  expect(JSON.parse(invalid.text)).toMatchObject({ outcome: 'invalid' })
  expect(invalid.code).toBe(7)
}, 90_000)

test('a machine that is not there is told by its code', async () => {
  await expect(planned('node9')).rejects.toMatchObject({ code: 'MACHINE_UNKNOWN' })
})

/** Base64 of the config that a plan merges. */
function sourceOf(config: object): string {
  const { ignition } = config as { ignition: { config: { merge: { source: string }[] } } }
  return ignition.config.merge[0]!.source.replace(/^.*base64,/, '')
}

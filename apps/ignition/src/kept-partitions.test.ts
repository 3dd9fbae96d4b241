import { spawnSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { IgnitionConfig } from '@kiln/schemas'
import { expect, test } from 'vitest'
import { runCommand } from './commands.ts'
import { runDisks } from './disks-stage.ts'
import { fileDisk } from './file-disk.ts'
import { simulatedDisks } from './simulate/simulated-disks.ts'
import { simulatedRun } from './simulated-run.ts'

const mebibyte = 1024 * 1024
const dataAt = 833 + 1500
const dataType = '933AC7E1-2EB4-4F13-B844-0E14E2AEF915'
const content = Buffer.from('what must survive')

/** A disk with Kiln's partitions, and DATA behind them, which holds some bytes that no program knows. */
function place(name = 'vda') {
  const folder = mkdtempSync(join(tmpdir(), 'kiln-kept-'))
  const copy = join(folder, `${name}.img`)
  writeFileSync(copy, '')
  truncateSync(copy, 3072 * mebibyte)
  const table = [
    'label: gpt',
    'start=1MiB,size=192MiB,name=EFI,type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B',
    'size=320MiB,name=USR-A,type=8484680C-9521-48C6-9C11-B0720656F69E',
    'size=320MiB,name=USR-B,type=8484680C-9521-48C6-9C11-B0720656F69E',
    'size=1400MiB,name=ROOT,type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709',
    `start=${dataAt}MiB,size=200MiB,name=DATA,type=${dataType}`,
  ].join('\n')
  expect(spawnSync('sfdisk', ['--quiet', copy], { input: table }).status).toBe(0)
  writeSync(openSync(copy, 'r+'), content, 0, content.length, dataAt * mebibyte)
  return { folder, copy, device: `/dev/${name}`, before: undefined }
}

type Place = ReturnType<typeof place>

async function disksOf(
  disks: Place[],
  storage: IgnitionConfig['storage'],
  cmdline = 'kiln.reinstall=1 kiln.keep=DATA',
  cut?: string,
) {
  const { folder } = disks[0]!
  const given = simulatedRun({ folder, cmdline: `kiln.disk=/dev/vda ${cmdline}` })
  mkdirSync(given.root, { recursive: true })
  const { devices, command } = simulatedDisks(disks, folder, runCommand, given.root)
  const options = { ...given.run.options, image: '/run/image/usr.img' }
  const acted = (what: string): void => {
    if (cut !== undefined && what.startsWith(cut)) throw new Error('the power is gone')
  }
  const run = { ...given.run, options, devices, command, acted, hasProgram: () => true }
  const config: IgnitionConfig = { ignition: { version: '3.4.0' }, ...(storage ? { storage } : {}) }
  const fetched = { config, userConfigProvided: true, configHash: 'a'.repeat(64) }
  const failure = await runDisks(fetched, run).then(
    () => undefined,
    (error: Error & { code?: string; path?: string }) => error,
  )
  return { failure, said: given.said }
}

async function labelsOf({ copy }: Place): Promise<string[]> {
  const { reading } = await fileDisk(copy, 0).find()
  return reading.kind === 'table'
    ? reading.table.partitions.map(({ number, label }) => `${number} ${label}`)
    : []
}

function bytesOf({ copy }: Place): string {
  const bytes = Buffer.alloc(content.length)
  readSync(openSync(copy, 'r'), bytes, 0, bytes.length, dataAt * mebibyte)
  return bytes.toString()
}

/** Everything that a refusal must not have done: the table is the same, no partition was written to. */
function untouched(disk: Place, labels: string[], before: string[]): void {
  expect(labels).toEqual(before)
  expect(bytesOf(disk)).toBe(content.toString())
  for (const number of [1, 4, 5])
    expect(existsSync(join(disk.folder, `disk0-partition${number}`))).toBe(false)
}

test("with Kiln's own layout everything but what is kept is made anew, and a run after a power cut is the same", async () => {
  const disk = place()
  const table = await disksOf([disk], undefined, undefined, 'table of')
  expect(table.failure?.message).toBe('the power is gone')
  expect(table.said).toContain(`disks: /dev/vda: keep partition 5 "DATA" at ${dataAt} MiB, 200 MiB`)
  expect(table.said.join()).toMatch(/delete partition 4 "ROOT".*create partition 4 "ROOT"/)
  const formatted = await disksOf([disk], undefined, undefined, 'file system on')
  expect(formatted.failure?.message).toBe('the power is gone')
  const { failure, said } = await disksOf([disk], undefined)
  expect(failure).toBeUndefined()
  expect(said).toContain(`disks: /dev/vda: keep partition 5 "DATA" at ${dataAt} MiB, 200 MiB`)
  expect(await labelsOf(disk)).toEqual(['1 EFI', '2 USR-A', '3 USR-B', '4 ROOT', '5 DATA'])
  expect(bytesOf(disk)).toBe(content.toString())
  // The permission is used up once the machine has enrolled; what is kept is not.
  const again = await disksOf([disk], undefined, 'kiln.keep=DATA')
  expect(again.failure).toBeUndefined()
  expect(again.said.filter((line) => /disks: \/dev\/vda: (create|delete|wipe)/.test(line))).toEqual([])
})

test('without keeping it the same install removes it', async () => {
  const disk = place()
  expect((await disksOf([disk], undefined, 'kiln.reinstall=1')).failure).toBeUndefined()
  expect(await labelsOf(disk)).toEqual(['1 EFI', '2 USR-A', '3 USR-B', '4 ROOT'])
})

const device = '/dev/vda'
const system = [
  { number: 1, label: 'EFI', sizeMiB: 192 },
  { number: 2, label: 'USR-A', sizeMiB: 320 },
  { number: 3, label: 'USR-B', sizeMiB: 320 },
  { number: 4, label: 'ROOT', sizeMiB: 1400 },
]
const own = (data: object, disk: object = {}) => ({
  disks: [{ device, partitions: [...system, { number: 5, label: 'DATA', ...data }], ...disk }],
})

test("a config with a layout of its own keeps it by Ignition's rules", async () => {
  const disk = place()
  expect(
    (await disksOf([disk], own({ sizeMiB: 200, typeGuid: dataType.toLowerCase() }))).failure,
  ).toBeUndefined()
  expect(bytesOf(disk)).toBe(content.toString())
})

test.each([
  ['wipeTable', own({}, { wipeTable: true }), /wipeTable is set for \/dev\/vda/, '$.storage.disks.0'],
  [
    'another type',
    own({ typeGuid: '0FC63DAF-8483-4772-8E79-3D69D8477DE4' }),
    /has type 933AC7E1/,
    '$.storage.disks.0.partitions.4',
  ],
  [
    'another place',
    own({ sizeMiB: 300, wipePartitionEntry: true }),
    /"DATA" would be replaced, and is to be kept/,
    undefined,
  ],
  ['its removal', own({ shouldExist: false, wipePartitionEntry: true }), /would be replaced/, undefined],
  [
    'wipeFilesystem',
    { ...own({}), filesystems: [{ device: '/dev/vda5', format: 'ext4', wipeFilesystem: true }] },
    /wipeFilesystem is set for partition DATA/,
    '$.storage.filesystems.0',
  ],
  [
    'wipeVolume',
    { ...own({}), luks: [{ name: 'd', device: '/dev/disk/by-partlabel/DATA', wipeVolume: true }] },
    /wipeVolume is set for partition DATA/,
    '$.storage.luks.0',
  ],
])('%s is refused for a kept partition before anything is touched', async (_, storage, message, path) => {
  const disk = place()
  const before = await labelsOf(disk)
  const { failure } = await disksOf([disk], storage)
  expect(failure).toMatchObject({ code: 'KEEP_REFUSED', message: expect.stringMatching(message) })
  expect(failure?.path).toBe(path)
  untouched(disk, await labelsOf(disk), before)
})

test('a file system is not made over bytes that nobody knows, where they are kept', async () => {
  const disk = place()
  const filesystems = [{ device: '/dev/disk/by-partlabel/DATA', format: 'ext4' }]
  const { failure } = await disksOf([disk], { ...own({}), filesystems })
  expect(failure).toMatchObject({ code: 'KEEP_REFUSED', path: '$.storage.filesystems.0' })
  expect(bytesOf(disk)).toBe(content.toString())
  expect(existsSync(join(disk.folder, 'disk0-partition5'))).toBe(false)
})

test('the label must be on one disk, and on that of the config', async () => {
  const missing = await disksOf([place()], undefined, 'kiln.reinstall=1 kiln.keep=OTHER')
  expect(missing.failure).toMatchObject({ message: 'no disk has a partition labelled OTHER' })
  const [first, second] = [place(), place('vdb')]
  const twice = await disksOf([first, second], undefined)
  expect(twice.failure?.message).toBe('/dev/vda and /dev/vdb have a partition labelled DATA')
  const named = { disks: [{ device: '/dev/vdb', partitions: [{ number: 5, label: 'DATA' }] }] }
  expect((await disksOf([first, second], named)).failure).toBeUndefined()
  expect([bytesOf(second), await labelsOf(first)]).toEqual([
    content.toString(),
    ['1 EFI', '2 USR-A', '3 USR-B', '4 ROOT'],
  ])
  const elsewhere = await disksOf([first, second], { disks: [{ device, partitions: [{ label: 'DATA' }] }] })
  expect(elsewhere.failure?.message).toBe('partition DATA is on /dev/vdb, the config has it on /dev/vda')
})

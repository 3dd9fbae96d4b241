import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import { simulateCommand } from './command.ts'
import type { SimulationReport } from './simulation.ts'

const mebibyte = 1024 * 1024
const folder = mkdtempSync(join(tmpdir(), 'kiln-simulate-install-'))
let count = 0
const path = (name: string): string => join(folder, `${count++}-${name}`)

function written(name: string, text: string): string {
  const at = path(name)
  writeFileSync(at, text)
  return at
}

const configOf = (rest: object = {}): string =>
  written('config.ign', JSON.stringify({ ignition: { version: '3.4.0' }, ...rest }))

/** A sparse disk with partitions, and a ROOT that holds one file. */
function disk(table?: string, rootFile?: string): string {
  const image = path('disk.img')
  writeFileSync(image, '')
  truncateSync(image, 3072 * mebibyte)
  if (table === undefined) return image
  expect(spawnSync('sfdisk', ['--quiet', image], { input: `label: gpt\n${table}` }).status).toBe(0)
  if (rootFile === undefined) return image
  const content = path('content')
  mkdirSync(dirname(join(content, rootFile)), { recursive: true })
  writeFileSync(join(content, rootFile), '')
  const flags = ['-q', '-F', '-L', 'ROOT', '-d', content, '-E', `offset=${833 * mebibyte}`, image, '64M']
  expect(spawnSync('mkfs.ext4', flags).status).toBe(0)
  return image
}

const installTable = [
  'start=2048,size=393216,name=EFI,type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B',
  'size=655360,name=USR-A,type=8484680C-9521-48C6-9C11-B0720656F69E',
  'size=655360,name=USR-B,type=8484680C-9521-48C6-9C11-B0720656F69E',
  'name=ROOT,type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709',
].join('\n')
const systemPartitions = ['EFI', 'USR-A', 'USR-B', 'ROOT'].map((name, index) =>
  expect.stringMatching(new RegExp(`^partition ${index + 1} "${name}"`)),
)

async function install(args: string[], cmdline = ''): Promise<{ code: number; report: SimulationReport }> {
  let text = ''
  const flags = ['--install', '--json', '--cmdline', written('cmdline', cmdline)]
  const code = await simulateCommand([...args, ...flags], { PATH: process.env['PATH'] }, (_, more) => {
    text += more
  })
  return { code, report: JSON.parse(text) as SimulationReport }
}

test("an install on an empty disk shows Kiln's partitions, file systems and the links of units", async () => {
  const units = [{ name: 'a.service', enabled: true, contents: '[Install]\nWantedBy=multi-user.target\n' }]
  const { code, report } = await install([configOf({ systemd: { units } }), '--disk', disk()])
  expect(report.failure).toBeUndefined()
  expect(code).toBe(0)
  expect(report.disks).toEqual([
    { device: '/dev/vda', before: ['no partition table'], after: systemPartitions },
  ])
  expect(report.steps).toContainEqual(expect.stringMatching(/^disks: mkfs\.vfat .*-n EFI \/dev\/vda1$/))
  expect(report.steps).toContainEqual(expect.stringMatching(/^disks: mkfs\.ext4 .*-L ROOT .*\/dev\/vda4$/))
  const paths = report.files.map((file) => file.path)
  expect(paths).toContain('/etc/systemd/system/multi-user.target.wants/a.service')
  expect(paths).toContain('/etc/machine-id')
})

test('an installed disk is refused until a reinstall is allowed, one that did not finish is taken up', async () => {
  const installed = disk(installTable, 'var/lib/kiln/installed')
  const refused = await install([configOf(), '--disk', installed])
  expect(refused.code).toBe(1)
  expect(refused.report.failure).toMatchObject({
    stage: 'disks',
    message: expect.stringContaining('/dev/vda4 holds an installed system'),
  })
  const allowed = await install([configOf(), '--disk', installed], 'quiet kiln.reinstall=1')
  expect(allowed.report.failure).toBeUndefined()
  expect(allowed.report.steps).toContain('disks: /dev/vda: wipe the partition table')
  const unfinished = await install([configOf(), '--disk', disk(installTable, 'var/lib/kiln/installing')])
  expect(unfinished.report.failure).toBeUndefined()
  expect(unfinished.report.steps).toContain(
    'disks: /dev/vda4 holds an install that did not finish; it is taken up again',
  )
  expect(unfinished.report.files.map((file) => file.path)).not.toContain('/var/lib/kiln/installing')
})

test("other people's partitions are refused, as they are on the machine", async () => {
  const { code, report } = await install([configOf(), '--disk', disk('size=2048,name=windows\n')])
  expect(code).toBe(1)
  expect(report.failure?.message).toContain("/dev/vda has partitions that are not Kiln's")
})

test('of several disks one must be named, and the config partitions the others', async () => {
  const data = { storage: { disks: [{ device: '/dev/vda', partitions: [{ number: 1, label: 'DATA' }] }] } }
  const args = [configOf(data), '--disk', `/dev/vda=${disk()}`, '--disk', `/dev/vdb=${disk()}`]
  const unclear = await install(args)
  expect(unclear.report.failure?.message).toContain('the machine has 2 disks (/dev/vda, /dev/vdb)')
  const named = await install(args, 'kiln.disk=/dev/vdb')
  expect(named.report.failure).toBeUndefined()
  expect(named.report.disks[0]?.after).toEqual([expect.stringContaining('"DATA"')])
  expect(named.report.disks[1]?.after).toEqual(systemPartitions)
})

test('a ticket is not used up by a simulation', async () => {
  const ticket = { url: 'https://127.0.0.1:9/v1/enrol', token: 't'.repeat(43), caHash: 'a'.repeat(64) }
  const source = `data:,${encodeURIComponent(JSON.stringify(ticket))}`
  const files = [{ path: '/etc/kiln/enrol.json', mode: 0o600, contents: { source } }]
  const { code, report } = await install([configOf({ storage: { files } }), '--disk', disk()])
  expect(code).toBe(0)
  expect(report.files.map((file) => file.path)).not.toContain('/etc/kiln/enrol.json')
  expect(report.notes.join()).toContain('that is not simulated')
})

test('flags that contradict each other are a wrong command line', async () => {
  const said: string[] = []
  const say = (_: 1 | 2, text: string): void => void said.push(text)
  const args = [configOf(), '--disk', disk()]
  expect(await simulateCommand([...args, '--install', '--root', folder], {}, say)).toBe(2)
  expect(await simulateCommand([...args, '--cmdline', configOf()], {}, say)).toBe(2)
  expect(said.join()).toMatch(/makes a new root[\s\S]*--cmdline is for --install/)
})

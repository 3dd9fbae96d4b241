import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { simulateCommand } from './command.ts'
import type { SimulationReport } from './simulation.ts'

const mebibyte = 1024 * 1024
const device = '/dev/vda'
const partitions = [
  { number: 1, label: 'DATA', sizeMiB: 32 },
  { number: 2, label: 'REST', sizeMiB: 0 },
]
const config = {
  ignition: { version: '3.4.0' },
  storage: {
    disks: [{ device, partitions }],
    filesystems: [{ device: '/dev/disk/by-partlabel/DATA', format: 'ext4', label: 'data', path: '/srv' }],
    files: [
      { path: '/etc/motd', overwrite: true, contents: { source: 'data:,new%0A' } },
      { path: '/etc/secret', mode: 0o600, contents: { source: 'data:,hidden' } },
    ],
  },
  passwd: { users: [{ name: 'core' }] },
  systemd: {
    units: [{ name: 'a.service', enabled: true, contents: '[Install]\nWantedBy=multi-user.target\n' }],
  },
}

function place() {
  const folder = mkdtempSync(join(tmpdir(), 'kiln-simulate-test-'))
  const image = join(folder, 'disk.img')
  writeFileSync(image, '')
  truncateSync(image, 80 * mebibyte)
  const write = (value: object): string => {
    const path = join(folder, 'config.ign')
    writeFileSync(path, JSON.stringify(value))
    return path
  }
  return { folder, image, write }
}

async function simulated(args: string[]): Promise<{ code: number; report: SimulationReport }> {
  let text = ''
  const code = await simulateCommand([...args, '--json'], { PATH: process.env['PATH'] }, (_, written) => {
    text += written
  })
  return { code, report: JSON.parse(text) as SimulationReport }
}

const sum = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex')

test('it shows tables, file systems, files and units, and leaves the image as it is', async () => {
  const { image, write } = place()
  const before = sum(image)
  const { code, report } = await simulated([write(config), '--disk', image])
  expect(code).toBe(0)
  expect(sum(image)).toBe(before)
  expect(report.disks).toEqual([
    {
      device,
      before: ['no partition table'],
      after: ['partition 1 "DATA" at 1 MiB, 32 MiB', 'partition 2 "REST" at 33 MiB, 46 MiB'],
    },
  ])
  expect(report.steps).toContain('disks: mkfs.ext4 -F -q -L data /dev/vda1')
  expect(report.files.map(({ change, path }) => `${change} ${path}`)).toContain('create /etc/motd')
  expect(report.files.find(({ path }) => path === '/etc/secret')?.diff).not.toContain('hidden')
  expect(report.units.enabled).toEqual(['a.service'])
})

test('what is on the image already counts: a file system that does not fit ends at its step, with 1', async () => {
  const { folder, image, write } = place()
  const table = `label: gpt\nstart=2048,size=${32 * 2048},name=DATA\n`
  expect(spawnSync('sfdisk', ['--quiet', image], { input: table }).status).toBe(0)
  const part = join(folder, 'part')
  writeFileSync(part, '')
  truncateSync(part, 32 * mebibyte)
  expect(spawnSync('mkfs.ext4', ['-q', '-F', '-L', 'other', part]).status).toBe(0)
  expect(spawnSync('dd', [`if=${part}`, `of=${image}`, 'bs=1M', 'seek=1', 'conv=notrunc']).status).toBe(0)
  const { code, report } = await simulated([write(config), '--disk', image])
  expect(code).toBe(1)
  expect(report).toMatchObject({
    outcome: 'fails',
    failure: { stage: 'disks', path: '$.storage.filesystems.0' },
  })
  expect(report.failure?.message).toContain('/dev/vda1 holds ext4 already: its label is other, not data')
})

test('an invalid config is told apart, with 7 and all of its problems', async () => {
  const { image, write } = place()
  const twice = { ...config, storage: { disks: [{ device, partitions: [partitions[0], partitions[0]] }] } }
  const { code, report } = await simulated([write(twice), '--disk', image])
  expect(code).toBe(7)
  expect(report.outcome).toBe('invalid')
  expect(report.steps.join('\n')).toContain('$.storage.disks.0.partitions.1')
})

test('a config that is missing is told of before anything is copied', async () => {
  const { folder, image } = place()
  const simulate = (config: string) => simulateCommand([config, '--disk', image], {}, () => undefined)
  await expect(simulate(join(folder, 'missing.ign'))).rejects.toMatchObject({
    code: 'CONFIG_UNREADABLE',
    message: expect.stringMatching(/there is no config .*missing\.ign/),
  })
  await expect(simulate(folder)).rejects.toMatchObject({ code: 'CONFIG_UNREADABLE' })
})

test('RAID and LUKS are said to need device mapper, and the rest is shown', async () => {
  const { image, write } = place()
  const storage = {
    ...config.storage,
    raid: [{ name: 'fast', level: 'raid0', devices: ['/dev/vda2', '/dev/vdb'] }],
    luks: [{ name: 'safe', device: '/dev/vda2' }],
    filesystems: [{ device: '/dev/mapper/safe', format: 'ext4' }, ...config.storage.filesystems],
  }
  const { code, report } = await simulated([write({ ...config, storage }), '--disk', image])
  expect(code).toBe(0)
  expect(report.notes).toEqual(
    expect.arrayContaining([
      'array fast needs md: it is not simulated',
      'LUKS volume safe needs device mapper: it is not simulated',
      'the file system on /dev/mapper/safe is not simulated',
    ]),
  )
})

test('offline, a config that needs the network fails where it does', async () => {
  const { image, write } = place()
  const files = [{ path: '/etc/far', contents: { source: 'http://127.0.0.1:9/far' } }]
  const far = { ...config, storage: { ...config.storage, files } }
  const { code, report } = await simulated([write(far), '--disk', image, '--offline'])
  expect(code).toBe(1)
  expect(report.failure).toMatchObject({ stage: 'files', path: '$.storage.files.0' })
  expect(report.fetched).toEqual([])
})

test('two disks of a config must be named', async () => {
  const { image, write } = place()
  const both = { ...config, storage: { disks: [{ device }, { device: '/dev/vdb' }] } }
  expect((await simulated([write(both), '--disk', image])).report.failure?.message).toMatch(
    /say which one the image is/i,
  )
  const named = ['--disk', `/dev/vda=${image}`, '--disk', `/dev/vdb=${image}`]
  expect((await simulated([write(both), ...named])).code).toBe(0)
})

test('a root is shown with its changes and stays as it is', () => {
  const { folder, image, write } = place()
  const root = join(folder, 'root')
  mkdirSync(join(root, 'etc'), { recursive: true })
  writeFileSync(join(root, 'etc/motd'), 'old\n')
  const main = join(import.meta.dirname, '../main.ts')
  const args = ['--disable-warning=ExperimentalWarning', main, 'simulate', write(config)]
  const { status, stdout } = spawnSync(
    process.execPath,
    [...args, '--disk', image, '--root', root, '--json'],
    { encoding: 'utf8' },
  )
  expect(status).toBe(0)
  const { files } = JSON.parse(stdout) as SimulationReport
  expect(files.find(({ path }) => path === '/etc/motd')).toMatchObject({
    change: 'change',
    diff: '--- /etc/motd\n+++ /etc/motd\n@@ -1 +1 @@\n-old\n+new\n',
  })
  expect(readFileSync(join(root, 'etc/motd'), 'utf8')).toBe('old\n')
})

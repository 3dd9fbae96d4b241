import { spawnSync } from 'node:child_process'
import {
  appendFileSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { IgnitionConfig } from '@kiln/schemas'
import { expect, test } from 'vitest'
import { journalPath } from './apply-journal.ts'
import { runCommand } from './commands.ts'
import { runDisks } from './disks-stage.ts'
import { fileDisk } from './file-disk.ts'
import { runFiles } from './files-stage.ts'
import { runMount } from './mount-stage.ts'
import type { Run } from './run.ts'
import { simulatedDisks } from './simulate/simulated-disks.ts'
import { simulatedRun } from './simulated-run.ts'

const device = '/dev/vda'
const guid = (digit: number): string => `${digit}`.repeat(8) + '-1111-4111-8111-111111111111'
const uuid = '22222222-2222-4222-8222-222222222222'
const owner = { user: { id: process.getuid!() }, group: { id: process.getgid!() } }

/** Everything that Ignition's own rules refuse or do again when it is done twice. */
const config: IgnitionConfig = {
  ignition: { version: '3.6.0' },
  storage: {
    disks: [
      {
        device,
        wipeTable: true,
        partitions: [
          { number: 1, label: 'A', guid: guid(1), sizeMiB: 8 },
          { number: 2, label: 'B', guid: guid(2), sizeMiB: 0 },
        ],
      },
    ],
    filesystems: [{ device: '/dev/disk/by-partlabel/A', format: 'ext4', uuid, path: '/home/core/data' }],
    directories: [{ path: '/srv/folder', mode: 0o750, ...owner }],
    files: [
      { path: '/srv/new', contents: { source: 'data:,new' }, ...owner },
      {
        path: '/srv/new-and-more',
        contents: { source: 'data:,one' },
        append: [{ source: 'data:,two' }],
        ...owner,
      },
      { path: '/etc/grows', append: [{ source: 'data:,three' }, { source: 'data:,four' }], ...owner },
      { path: '/etc/replaced', overwrite: true, contents: { source: 'data:,after' }, ...owner },
      { path: '/srv/empty', ...owner },
    ],
    links: [
      { path: '/srv/soft', target: '/srv/new' },
      { path: '/srv/hard', target: '/etc/replaced', hard: true },
    ],
  },
  passwd: {
    groups: [{ name: 'ops' }],
    users: [
      { name: 'core', groups: ['ops'], passwordHash: '$y$x', sshAuthorizedKeys: ['key'] },
      { name: 'gone', shouldExist: false },
    ],
  },
  systemd: {
    units: [
      {
        name: 'a.service',
        enabled: true,
        contents: '[Install]\nWantedBy=multi-user.target\n',
        dropins: [{ name: 'b.conf', contents: '[Unit]\n' }],
      },
      { name: 'c.service', mask: true },
    ],
  },
}

type Machine = { folder: string; root: string; image: string; run: Run }

/** A machine with an empty disk and a root that has a past. */
function machine(): Machine {
  const folder = mkdtempSync(join(tmpdir(), 'kiln-power-cut-'))
  const { run, root } = simulatedRun({ folder })
  const image = join(folder, 'image')
  writeFileSync(image, '')
  truncateSync(image, 32 * 1024 * 1024)
  mkdirSync(join(root, 'etc/skel'), { recursive: true })
  writeFileSync(join(root, 'etc/skel/.profile'), 'p')
  writeFileSync(join(root, 'etc/grows'), 'before ')
  writeFileSync(join(root, 'etc/replaced'), 'before')
  linkSync(join(root, 'etc/replaced'), join(root, 'etc/other'))
  writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0::/root:/bin/sh\ngone:x:7:7::/nowhere:/bin/sh\n')
  writeFileSync(join(root, 'etc/group'), 'root:x:0:\ngone:x:7:\n')
  return { folder, root, image, run }
}

class PowerCut extends Error {}

/** Runs every stage, and cuts the power after that many actions. Answers how many there were. */
async function boot(at: Machine, actionsMax: number, configHash = 'hash'): Promise<number> {
  const disk = { device, copy: at.image, before: undefined }
  const { devices, command } = simulatedDisks([disk], at.folder, runCommand)
  let actions = 0
  const run: Run = {
    ...at.run,
    devices,
    command,
    acted() {
      if (++actions > actionsMax) throw new PowerCut()
    },
  }
  const fetched = { config, userConfigProvided: true, configHash }
  const { volumes } = await runDisks(fetched, run)
  const mounted = await runMount(fetched, undefined, run)
  await runFiles(fetched, { mounted, volumes }, run)
  return actions
}

/** The table, and every path of the root with what it is. */
async function stateOf({ root, image, folder }: Machine): Promise<string[]> {
  const { reading } = await fileDisk(image, 0).find()
  const table = reading.kind === 'table' ? reading.table.partitions : reading.kind
  const lines = [JSON.stringify(table, (_, value) => (typeof value === 'bigint' ? `${value}` : value))]
  const probe = spawnSync('blkid', ['-p', '-o', 'export', join(folder, 'disk0-partition1')], {
    encoding: 'utf8',
  })
  lines.push(probe.stdout.replaceAll(folder, ''))
  for (const name of readdirSync(root, { recursive: true, encoding: 'utf8' }).sort()) {
    if (name.endsWith('.ignition-result.json')) continue
    const stats = lstatSync(join(root, name))
    const content = stats.isFile() ? readFileSync(join(root, name), 'utf8') : ''
    const target = stats.isSymbolicLink() ? readlinkSync(join(root, name)) : ''
    lines.push([name, stats.mode.toString(8), stats.isFile() ? stats.nlink : 0, content, target].join(' '))
  }
  return lines
}

test('power may go after any action: the next boot ends with the same disk and root', async () => {
  const whole = machine()
  const actions = await boot(whole, Number.POSITIVE_INFINITY)
  const expected = await stateOf(whole)
  expect(actions).toBeGreaterThan(20)
  expect(readFileSync(join(whole.root, 'etc/grows'), 'utf8')).toBe('before threefour')
  expect(existsSync(join(whole.root, journalPath))).toBe(false)
  for (let cut = 0; cut < actions; cut++) {
    const one = machine()
    await expect(boot(one, cut)).rejects.toBeInstanceOf(PowerCut)
    await boot(one, Number.POSITIVE_INFINITY)
    expect(await stateOf(one), `after ${cut} actions`).toEqual(expected)
  }
}, 120_000)

test('power may go twice', async () => {
  const whole = machine()
  const actions = await boot(whole, Number.POSITIVE_INFINITY)
  const one = machine()
  for (const cut of [actions - 1, Math.floor(actions / 2)]) {
    await expect(boot(one, cut)).rejects.toBeInstanceOf(PowerCut)
  }
  await boot(one, Number.POSITIVE_INFINITY)
  expect(await stateOf(one)).toEqual(await stateOf(whole))
})

test('a config that changed in between stops with the remedy', async () => {
  const one = machine()
  const actions = await boot(machine(), Number.POSITIVE_INFINITY)
  await expect(boot(one, actions - 6)).rejects.toBeInstanceOf(PowerCut)
  await expect(boot(one, Number.POSITIVE_INFINITY, 'another')).rejects.toMatchObject({
    code: 'CONFIG_CHANGED',
    remedy: expect.stringContaining(journalPath),
  })
})

test('what was there before the first run is refused as ever, after a power cut too', async () => {
  const one = machine()
  mkdirSync(join(one.root, 'srv'))
  appendFileSync(join(one.root, 'srv/new'), 'mine')
  for (let boots = 0; boots < 2; boots++) {
    await expect(boot(one, Number.POSITIVE_INFINITY)).rejects.toMatchObject({ code: 'PATH_EXISTS' })
  }
  expect(readFileSync(join(one.root, 'srv/new'), 'utf8')).toBe('mine')
})

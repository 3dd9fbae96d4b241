import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { butaneBudgetMs, butaneRounds } from './butane-translation.ts'
import { type Measured, measured } from './measured-process.ts'
import { standInForSystemd } from './systemd-stand-in.ts'

const usage = `kiln bench ignition: the stages beside Debian's ignition 2.14, alternately in one run, on this machine; then
kiln butane on a config of 200 lines.

  --rounds N   runs of each (default 5)
  --check      exit 1 when the sum takes more than 0.7 of the peer's, or kiln butane longer than 150 ms
  --json       print JSON

Needs root, loop devices, and Debian's ignition, gdisk and e2fsprogs. ./kiln build first: dist/bin is what is measured.
`

const peer = '/usr/lib/dracut/modules.d/30ignition/ignition'
const own = join(import.meta.dirname, '../../../../dist/bin/kiln-ignition')
const stages = ['fetch', 'disks', 'mount', 'files', 'umount'] as const
const ratioMax = 0.7
const mebibyte = 1024 * 1024
const diskMiB = 2048

type Round = Record<string, Measured>

/** Four partitions, two ext4, a hundred files, five units. */
function typicalConfig(disk: string): string {
  const data = (text: string): { source: string } => ({ source: `data:,${encodeURIComponent(text)}` })
  const partitions = [64, 256, 512, 0].map((sizeMiB, index) => ({
    number: index + 1,
    label: `P${index}`,
    sizeMiB,
  }))
  return JSON.stringify({
    ignition: { version: '3.3.0' },
    storage: {
      disks: [{ device: disk, wipeTable: true, partitions }],
      filesystems: [
        { device: `${disk}p2`, format: 'ext4', path: '/var/one', label: 'one' },
        { device: `${disk}p3`, format: 'ext4', path: '/var/two', label: 'two' },
      ],
      files: Array.from({ length: 100 }, (_, index) => ({
        path: `/${index % 3 === 0 ? 'var/one' : 'etc'}/file${index}`,
        contents: data(`file ${index}\n`.repeat(20)),
      })),
    },
    systemd: {
      units: Array.from({ length: 5 }, (_, index) => ({
        name: `bench${index}.service`,
        enabled: true,
        contents: '[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n',
      })),
    },
  })
}

type Place = { folder: string; root: string; disk: string; env: NodeJS.ProcessEnv }

async function peerRound({ folder, root, env }: Place): Promise<Round> {
  const round: Round = {}
  for (const stage of ['fetch-offline', ...stages.slice(1)]) {
    const files = [
      '-config-cache',
      join(folder, 'cache'),
      '-neednet',
      join(folder, 'neednet'),
      '-state-file',
      join(folder, 'state'),
    ]
    round[stage.replace('-offline', '')] = await measured(
      peer,
      ['-root', root, '-platform', 'file', '-stage', stage, ...files],
      env,
    )
  }
  return round
}

async function ownRound({ folder, root, env }: Place): Promise<Round> {
  const args = ['-root', root, '-platform', 'file', '-stage', 'all', '-state-file', join(folder, 'state')]
  return { all: await measured(own, args, env) }
}

/** Both must leave a good table and good file systems. */
function check({ disk }: Place): void {
  for (const [command, args] of [
    ['sgdisk', ['--verify', disk]],
    ['fsck.ext4', ['-f', '-n', `${disk}p2`]],
    ['fsck.ext4', ['-f', '-n', `${disk}p3`]],
  ] as const) {
    const { status, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8' })
    if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${stdout} ${stderr}`)
  }
}

/** A fresh disk and root for one round, gone after it. */
async function withPlace<T>(
  scratch: string,
  use: (place: Place) => Promise<T>,
  at: { disk: string },
): Promise<T> {
  const folder = mkdtempSync(join(scratch, 'round-'))
  const [root, image, stubs] = ['root', 'disk.img', 'bin'].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ]
  for (const path of [root, join(root, 'etc/selinux'), join(folder, 'system'), stubs])
    mkdirSync(path, { recursive: true })
  writeFileSync(join(root, 'etc/selinux/config'), 'SELINUX=disabled\nSELINUXTYPE=targeted\n')
  for (const name of ['udevadm', 'setfiles']) {
    writeFileSync(join(stubs, name), '#!/bin/sh\nexit 0\n')
    chmodSync(join(stubs, name), 0o755)
  }
  writeFileSync(image, '')
  truncateSync(image, diskMiB * mebibyte)
  const disk = spawnSync('losetup', ['--find', '--show', image], { encoding: 'utf8' }).stdout.trim()
  at.disk = disk
  writeFileSync(join(folder, 'config.ign'), typicalConfig(disk))
  const env = {
    PATH: `${stubs}:/usr/sbin:/usr/bin:/sbin:/bin`,
    IGNITION_CONFIG_FILE: join(folder, 'config.ign'),
    IGNITION_SYSTEM_CONFIG_DIR: join(folder, 'system'),
  }
  try {
    return await use({ folder, root, disk, env })
  } finally {
    for (const args of [
      ['partx', '--delete', disk],
      ['losetup', '--detach', disk],
    ])
      spawnSync(args[0]!, args.slice(1))
    rmSync(folder, { recursive: true, force: true })
  }
}

const median = (values: number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!
const sum = (round: Round, of: keyof Measured): number =>
  Object.values(round).reduce((total, each) => total + each[of], 0)

type Found = { peer: Round[]; kiln: Round[]; butane: Measured[] }

async function compare(rounds: number): Promise<Found> {
  const scratch = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'kiln-bench-ignition-'))
  const at = { disk: '' }
  const systemd = await standInForSystemd('/run/systemd/private', () => at.disk)
  const found: Found = { peer: [], kiln: [], butane: [] }
  try {
    for (let round = 0; round < rounds; round++) {
      for (const [side, run] of [
        ['peer', peerRound],
        ['kiln', ownRound],
      ] as const) {
        const whole = async (place: Place): Promise<Round> => {
          const times = await run(place)
          check(place)
          return times
        }
        found[side].push(await withPlace(scratch, whole, at))
      }
    }
    found.butane = await butaneRounds(scratch, rounds)
    return found
  } finally {
    systemd.close()
    rmSync(scratch, { recursive: true, force: true })
  }
}

function table({ peer: theirs, kiln: ours, butane }: Found): string[] {
  const row = (name: string, rounds: Measured[]): string =>
    `${name.padEnd(24)} ${median(rounds.map(({ wallMs }) => wallMs))
      .toFixed(0)
      .padStart(6)} ms wall ${median(rounds.map(({ cpuMs }) => cpuMs))
      .toFixed(0)
      .padStart(6)} ms CPU`
  const whole = (rounds: Round[]): Measured[] =>
    rounds.map((round) => ({ wallMs: sum(round, 'wallMs'), cpuMs: sum(round, 'cpuMs') }))
  return [
    ...stages.map((stage) =>
      row(
        `ignition ${stage}`,
        theirs.map((round) => round[stage]!),
      ),
    ),
    row('ignition, sum', whole(theirs)),
    row('kiln-ignition, all', whole(ours)),
    row('kiln butane, 200 lines', butane),
  ]
}

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    check: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
    inside: { type: 'boolean', default: false },
  },
})
if (values.help) process.stdout.write(usage)
else if (!values.inside) {
  const missing = [peer, own, '/usr/sbin/sgdisk'].filter((path) => !existsSync(path))
  if (missing.length > 0 || process.getuid?.() !== 0) {
    process.stderr.write(`${usage}\nmissing: ${missing.join(', ') || 'root'}\n`)
    process.exitCode = 4
  } else {
    const again = [
      process.execPath,
      ...process.execArgv,
      import.meta.filename,
      ...process.argv.slice(2),
      '--inside',
    ]
    const inside = [
      '--mount',
      '--fork',
      '--kill-child=TERM',
      'sh',
      '-c',
      'mount -t tmpfs tmpfs /run && exec "$0" "$@"',
    ]
    process.exitCode = spawnSync('unshare', [...inside, ...again], { stdio: 'inherit' }).status ?? 1
  }
} else {
  const found = await compare(Math.max(1, Number(values.rounds) || 1))
  const butaneMs = median(found.butane.map(({ wallMs }) => wallMs))
  const ratio =
    median(found.kiln.map((round) => sum(round, 'wallMs'))) /
    median(found.peer.map((round) => sum(round, 'wallMs')))
  if (values.json) console.log(JSON.stringify({ ...found, ratio }, null, 2))
  else
    console.log(
      [
        ...table(found),
        `ratio of the sums, wall: ${ratio.toFixed(2)} (at most ${ratioMax})`,
        `kiln butane: ${butaneMs.toFixed(0)} ms (at most ${butaneBudgetMs})`,
      ].join('\n'),
    )
  if (values.check && (ratio > ratioMax || butaneMs > butaneBudgetMs)) process.exitCode = 1
}

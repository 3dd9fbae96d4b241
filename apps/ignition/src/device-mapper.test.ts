import type { IgnitionConfig } from '@kiln/schemas'
import { expect, test } from 'vitest'
import { impossibleParts } from './impossible-values.ts'
import { runKargs } from './kargs-stage.ts'
import { applyLuks } from './luks.ts'
import { clevisBind, luksFormat, luksOpen, withCrypttabEntries } from './luks-plan.ts'
import { applyRaid, mdadmCreate } from './raid.ts'
import { missingTools } from './required-tools.ts'
import type { Run } from './run.ts'
import { simulatedRun } from './simulated-run.ts'

const uuid = '0f0f0f0f-1111-4222-8333-444444444444'
const version = { ignition: { version: '3.6.0' } }

/** A run whose programs are recorded and answer what `answers` has for the start of their command line. */
function recorded(answers: Record<string, { code?: number; stdout?: string }> = {}): {
  run: Run
  lines: string[]
} {
  const { run } = simulatedRun({ flags: ['--state-file', '/tmp/kiln-device-mapper-test/state'] })
  const lines: string[] = []
  const command: Run['command'] = async (name, args, options = {}) => {
    const line = [name, ...args].join(' ').replaceAll(/\/tmp\S+luks-[0-9a-f]{64}/g, 'KEY')
    lines.push(line)
    const known = Object.entries(answers).find(([start]) => line.startsWith(start))?.[1]
    const { code = 0, stdout = '' } = known ?? {}
    if (!(options.accepted ?? [0]).includes(code)) throw new Error(`${line} ended with ${code}`)
    return { code, stdout }
  }
  const devices: Run['devices'] = {
    list: async () => [],
    resolve: async (device) => device.replace('/dev/disk/by-partlabel/', '/dev/null/'),
    disk: async () => {
      throw new Error('no disk is asked for')
    },
  }
  return { run: { ...run, command, devices }, lines }
}

test('mdadm gets the arguments Ignition gives it, and a UUID that tells our arrays', () => {
  const raid = {
    name: 'data',
    level: 'raid1',
    devices: ['a', 'b', 'c'],
    spares: 1,
    options: ['--assume-clean'],
  }
  expect(mdadmCreate(raid, ['/dev/a', '/dev/b', '/dev/c'], 'u').join(' ')).toBe(
    '--create data --force --run --homehost any --uuid u --level raid1 --raid-devices 2 --spare-devices 1 --assume-clean /dev/a /dev/b /dev/c',
  )
})

test('an array that this config has made is assembled, another is made anew', async () => {
  const config = {
    ...version,
    storage: { raid: [{ name: 'data', level: 'raid0', devices: ['/dev/a', '/dev/b'] }] },
  }
  const first = recorded({ 'mdadm --examine': { code: 1 } })
  await applyRaid(config, 'hash', first.run)
  const created = first.lines.find((line) => line.startsWith('mdadm --create'))!
  const own = / --uuid (\S+) /.exec(created)![1]!
  const again = recorded({ 'mdadm --examine': { stdout: `MD_LEVEL=raid0\nMD_UUID=${own}\n` } })
  await applyRaid(config, 'hash', again.run)
  expect(again.lines.at(-1)).toBe('mdadm --assemble /dev/md/data --run /dev/a /dev/b')
  const other = recorded({ 'mdadm --examine': { stdout: `MD_UUID=${own}\n` } })
  await applyRaid(config, 'another hash', other.run)
  expect(other.lines.some((line) => line.startsWith('mdadm --create'))).toBe(true)
})

test('cryptsetup and clevis get the arguments Ignition gives them', () => {
  const luks = {
    name: 'root',
    label: 'secret',
    options: ['--cipher', 'x'],
    discard: true,
    openOptions: ['--y'],
  }
  expect(luksFormat(luks, '/dev/a', 'KEY', uuid).join(' ')).toBe(
    `luksFormat --batch-mode --type luks2 --key-file KEY --label secret --uuid ${uuid} --cipher x /dev/a`,
  )
  expect(luksOpen(luks, '/dev/a', 'KEY').join(' ')).toBe(
    'luksOpen /dev/a root --key-file KEY --allow-discards --y --persistent',
  )
  const tang = [{ url: 'http://t', thumbprint: 'p', advertisement: '{"a":1}' }]
  expect(clevisBind({ name: 'root', clevis: { tang, tpm2: true, threshold: 2 } }, '/dev/a', 'KEY')).toEqual([
    ...['luks', 'bind', '-f', '-k', 'KEY', '-d', '/dev/a', 'sss'],
    '{"pins":{"tang":[{"url":"http://t","thp":"p","adv":{"a":1}}],"tpm2":{}},"t":2}',
  ])
  const custom = { pin: 'own', config: '{"k":1}', needsNetwork: true }
  expect(clevisBind({ name: 'root', clevis: { custom } }, '/dev/a', 'KEY')?.slice(-2)).toEqual([
    'own',
    '{"k":1}',
  ])
  expect(clevisBind({ name: 'root' }, '/dev/a', 'KEY')).toBeUndefined()
})

test('a key in a Crypto Express card is refused before anything is touched', () => {
  const luks = (enabled: boolean): object[] => [{ name: 'root', device: '/dev/a', cex: { enabled } }]
  const refused = impossibleParts({ ...version, storage: { luks: luks(true) } } as IgnitionConfig)
  expect(refused).toMatchObject([{ path: '$.storage.luks.0.cex', severity: 'error' }])
  expect(impossibleParts({ ...version, storage: { luks: luks(false) } } as IgnitionConfig)).toEqual([])
})

test('a volume with a pin is bound and its generated key removed', async () => {
  const luks = [{ name: 'root', device: '/dev/null', wipeVolume: true, clevis: { tpm2: true } }]
  const { run, lines } = recorded({ 'cryptsetup luksUUID': { stdout: `${uuid}\n` } })
  const volumes = await applyLuks({ ...version, storage: { luks } }, 'hash', run)
  expect(volumes).toEqual([{ name: 'root', uuid, key: undefined, netdev: false }])
  expect(lines.map((line) => line.replace(/--uuid \S+/, '--uuid U'))).toEqual([
    'blkid -p -o export /dev/null',
    'cryptsetup luksFormat --batch-mode --type luks2 --key-file KEY --uuid U /dev/null',
    'cryptsetup luksOpen /dev/null root --key-file KEY',
    'clevis luks bind -f -k KEY -d /dev/null sss {"pins":{"tpm2":{}},"t":1}',
    'cryptsetup luksRemoveKey /dev/null KEY',
    'cryptsetup luksUUID /dev/null',
  ])
})

test('a volume that is there is used when the given key opens it, and refused when it does not', async () => {
  const keyFile = { source: 'data:,open' }
  const luks = [{ name: 'root', device: '/dev/null', keyFile }]
  const found = { stdout: `TYPE=crypto_LUKS\nUUID=${uuid}\n` }
  const opens = recorded({ blkid: found, 'cryptsetup luksUUID': { stdout: uuid } })
  const [volume] = await applyLuks({ ...version, storage: { luks } }, 'hash', opens.run)
  expect(volume).toMatchObject({ key: Buffer.from('open').toString('base64') })
  expect(opens.lines.join('\n')).not.toContain('luksFormat')
  const wrong = recorded({ blkid: found, 'cryptsetup luksOpen --test-passphrase': { code: 2 } })
  await expect(applyLuks({ ...version, storage: { luks } }, 'hash', wrong.run)).rejects.toMatchObject({
    code: 'FILESYSTEM_REFUSED',
    path: '$.storage.luks.0',
  })
  const other = recorded({ blkid: { stdout: 'TYPE=ext4\n' } })
  await expect(applyLuks({ ...version, storage: { luks } }, 'hash', other.run)).rejects.toThrow(
    'no LUKS volume',
  )
})

test('a volume that this config began to make is made again, its key being lost', async () => {
  const luks = [{ name: 'root', device: '/dev/null', clevis: { tpm2: true } }]
  const first = recorded({ 'cryptsetup luksUUID': { stdout: uuid } })
  await applyLuks({ ...version, storage: { luks } }, 'hash', first.run)
  const own = / --uuid (\S+) /.exec(first.lines.join('\n'))![1]!
  const found = { stdout: `TYPE=crypto_LUKS\nUUID=${own}\n` }
  const again = recorded({ blkid: found, 'cryptsetup luksUUID': { stdout: own } })
  await applyLuks({ ...version, storage: { luks } }, 'hash', again.run)
  expect(again.lines).toContain('wipefs -a /dev/null')
  expect(again.lines.join('\n')).toContain('luksFormat')
  const changed = recorded({ blkid: found })
  await expect(applyLuks({ ...version, storage: { luks } }, 'another', changed.run)).rejects.toThrow('no key')
})

test('crypttab keeps the lines of others and replaces its own', () => {
  const before = 'swap /dev/vdb none swap\nroot UUID=old none luks\n'
  const entries = [
    { name: 'root', uuid, keyFile: undefined, netdev: true },
    { name: 'data', uuid, keyFile: '/etc/luks/data', netdev: false },
  ]
  expect(withCrypttabEntries(before, entries)).toBe(
    `swap /dev/vdb none swap\nroot UUID=${uuid} none luks,_netdev\ndata UUID=${uuid} /etc/luks/data luks\n`,
  )
})

test('kernel arguments go to the distribution, and nothing is called without any', async () => {
  const { run, lines } = recorded()
  await runKargs(version, run)
  expect(lines).toEqual([])
  await runKargs({ ...version, kernelArguments: { shouldExist: ['a=1', 'b'], shouldNotExist: ['c'] } }, run)
  expect(lines).toEqual(['ignition-kargs-helper --should-exist a=1 --should-exist b --should-not-exist c'])
})

test('programs that are missing are named with the place that needs them, before anything is touched', () => {
  const config = {
    ...version,
    kernelArguments: { shouldExist: ['a'] },
    storage: {
      raid: [{ name: 'a' }],
      luks: [{ name: 'b', clevis: { tpm2: true } }],
      filesystems: [
        { device: '/dev/a', format: 'xfs' },
        { device: '/dev/b', format: 'none' },
      ],
    },
  }
  expect(
    missingTools(config, () => false, { installs: false }).map(
      ({ path, message }) => `${path} ${message.split(',')[0]}`,
    ),
  ).toEqual([
    '$.storage.raid.0 RAID needs mdadm',
    '$.storage.luks.0 LUKS needs cryptsetup',
    '$.storage.luks.0.clevis a clevis pin needs clevis',
    '$.storage.filesystems.0.format a file system of format xfs needs mkfs.xfs',
    '$.kernelArguments a change of kernel arguments needs ignition-kargs-helper',
  ])
  expect(missingTools(config, () => true, { installs: false })).toEqual([])
  expect(
    missingTools({ ...version, kernelArguments: { shouldExist: ['a'] } }, () => false, { installs: true }),
  ).toEqual([])
})

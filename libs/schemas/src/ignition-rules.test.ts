import { expect, test } from 'vitest'
import { parseIgnition } from './ignition-parse.ts'

/** Level and path of each finding, sorted; `storage` is that section of a config of the version. */
const findings = (storage: object, version = '3.6.0'): string[] =>
  parseIgnition(JSON.stringify({ ignition: { version }, storage }))
    .problems.map(({ severity, path }) => `${severity} ${path.replace('$.storage.', '')}`)
    .toSorted()

const link = (more: object): object => ({ path: '/a/l', hard: true, ...more })
const directories = [{ path: '/a/d' }]

test.each<[string, object, string[]]>([
  ['itself', link({ target: '/a/d' }), ['error links.0']],
  ['with a slash at the end', link({ target: '/a/d/' }), ['error links.0']],
  ['on a detour', link({ target: '/a/x/../d' }), ['error links.0']],
  ['as seen from the link', link({ target: '../d' }), ['error links.0']],
  ['of a symbolic link', link({ target: '/a/d', hard: false }), []],
  ['beside it', link({ target: 'd' }), []],
])('a hard link to a directory, %s', (_, one, expected) => {
  expect(findings({ links: [one], directories })).toEqual(expected)
})

test('a hard link is warned about each part of an owner', () => {
  const owner = { user: { id: 0, name: 'a' }, group: { name: 'b' } }
  expect(findings({ links: [link({ target: '/f', ...owner })] })).toEqual([
    'error links.0.user',
    'warning links.0.group.name',
    'warning links.0.user.id',
    'warning links.0.user.name',
  ])
})

test('a hard link without target is told of that alone, from 3.3 on', () => {
  const links = [link({ user: { id: 0 } })]
  expect(findings({ links })).toEqual(['error links.0.target'])
  expect(findings({ links }, '3.2.0')).toEqual(['warning links.0.user.id'])
})

test('a disk without device is told of that alone, its partitions each of their own', () => {
  const partitions = [
    { number: 1, startMiB: 1, sizeMiB: 9 },
    { number: 2, startMiB: 2, sizeMiB: 9 },
    { number: 3, guid: 'x' },
  ]
  expect(findings({ disks: [{ partitions }] })).toEqual([
    'error disks.0.device',
    'error disks.0.partitions.2.guid',
  ])
})

test('a path below two links has a finding for each', () => {
  const links = [
    { path: '/a', target: '/x' },
    { path: '/a/b', target: '/y' },
  ]
  const files = [{ path: '/a/b/c' }, { path: '/ab' }]
  expect(findings({ links, files })).toEqual(['error files.0', 'error files.0', 'error links.1'])
})

test.each<[object, object, string[]]>([
  [{ wipeTable: true }, {}, ['warning filesystems.0.device']],
  [{ wipeTable: true }, { format: 'ext4', wipeFilesystem: true }, []],
  [{ wipeTable: false }, {}, []],
  [
    { partitions: [{ number: 1 }] },
    { format: 'ext4', wipeFilesystem: true },
    ['warning filesystems.0.device'],
  ],
])('on the disk %j the filesystem %j', (disk, filesystem, expected) => {
  const device = '/dev/a'
  const storage = { disks: [{ device, ...disk }], filesystems: [{ device, ...filesystem }] }
  expect(findings(storage)).toEqual(expected)
})

test.each<[object, string[]]>([
  [{ number: 1, shouldExist: false }, []],
  [{ number: 1, shouldExist: false, guid: '', typeGuid: '' }, []],
  [{ number: 1, shouldExist: false, label: '' }, ['']],
  [{ number: 1, shouldExist: false, startMiB: 0 }, ['']],
  [{ number: 0, label: '' }, []],
  [{ number: 1, label: 'ä'.repeat(19) }, ['.label']],
  [{ number: 1, label: 'a:b' }, ['.label']],
  [{ number: 1, guid: '01234567-89ab-cdef-edcb-a98765432101' }, []],
  [{ number: 1, guid: '0123456789abcdefedcba98765432101' }, ['.guid']],
])('the partition %j', (partition, expected) => {
  const disks = [{ device: '/dev/a', partitions: [partition] }]
  expect(findings({ disks })).toEqual(expected.map((part) => `error disks.0.partitions.0${part}`))
})

test.each<[object, string[]]>([
  [{ level: '0', spares: 0 }, []],
  [{ level: 'linear', spares: -1 }, ['level']],
  [{ level: '' }, ['level']],
  [{ level: 'mirror', spares: 1 }, []],
  [{ level: 'raid1', devices: ['a', '/dev/b/'] }, ['devices.0', 'devices.1']],
  [{ devices: [] }, ['devices', 'level']],
])('the array %j', (array, expected) => {
  const raid = [{ name: 'r', devices: ['/dev/a'], ...array }]
  expect(findings({ raid })).toEqual(expected.map((part) => `error raid.0.${part}`))
})

test.each<[object, string[]]>([
  [{ name: 'A', value: 'b' }, []],
  [{ name: 'A' }, []],
  [{ name: 'A', value: null }, []],
  [{ name: 'A', value: '' }, ['.0.value']],
  [{ name: '', value: '' }, ['.0.name', '.0.value']],
])('the header %j', (header, expected) => {
  const contents = { source: 'http://h/', httpHeaders: [header] }
  expect(findings({ files: [{ path: '/a', contents }] })).toEqual(
    expected.map((part) => `error files.0.contents.httpHeaders${part}`),
  )
})

test.each<[string, string[]]>([
  ['http://h/', []],
  ['HTTPS://h/', []],
  ['tftp://h/', ['httpHeaders']],
  ['', ['httpHeaders']],
  ['http://h:x/', ['httpHeaders', 'source']],
  ['http://h/#%zz', ['httpHeaders', 'source']],
  ['http://h/?%zz', []],
])('headers with the source %j', (source, expected) => {
  const contents = { source, httpHeaders: [{ name: 'A', value: 'b' }] }
  expect(findings({ files: [{ path: '/a', contents }] })).toEqual(
    expected.map((part) => `error files.0.contents.${part}`),
  )
})

test.each<[string, string[]]>([
  [`sha256-${'0'.repeat(64)}`, []],
  [`sha256-${'x'.repeat(64)}`, []],
  [`sha256-${'0'.repeat(63)}`, ['error files.0.contents.verification.hash']],
  [`SHA256-${'0'.repeat(64)}`, ['error files.0.contents.verification.hash']],
  ['sha256', ['error files.0.contents.verification.hash']],
])('of the hash %s the function and the length count', (hash, expected) => {
  expect(
    findings({ files: [{ path: '/a', contents: { source: 'data:,', verification: { hash } } }] }),
  ).toEqual(expected)
})

test.each<[string, object, string[]]>([
  ['a@b.service', { enabled: true }, ['1']],
  ['a@b.service', { enabled: false }, []],
  ['a@b.service', { enabled: true, contents: '[Install]\nAlias=x.service\n' }, ['1']],
  ['a@b.service', { enabled: true, contents: '[Unit]\nA=b\n' }, ['1', '1']],
  ['a@b@c.service', { enabled: true }, ['1']],
  ['a@b.socket', { enabled: true }, []],
  ['a@.service', { enabled: true }, []],
])('the instance %s, %j, of a template that installs nothing', (name, unit, expected) => {
  const contents = '[Service]\nExecStart=/x\n'
  const templates = ['service', 'socket'].map((extension) => ({ name: `a@.${extension}`, contents }))
  const units = [templates[0], { name, ...unit }, templates[1]]
  const text = JSON.stringify({ ignition: { version: '3.6.0' }, systemd: { units } })
  const warnings = parseIgnition(text).problems.filter(({ severity }) => severity === 'warning')
  expect(warnings.map(({ path }) => path)).toEqual(expected.map((at) => `$.systemd.units.${at}.contents`))
})

test.each<[string, object, string[]]>([
  [
    '3.5.0',
    { cex: { enabled: true }, clevis: { tpm2: true }, keyFile: { source: 'data:,' } },
    ['cex', 'cex'],
  ],
  ['3.5.0', { cex: { enabled: true }, keyFile: { source: 'data:,' } }, ['cex']],
  ['3.5.0', { cex: { enabled: false }, keyFile: { source: 'data:,' } }, []],
  ['3.2.0', { keyFile: { source: 'x:y' } }, ['keyFile.source', 'keys']],
  ['3.6.0', { keyFile: { source: 'http://h/k' } }, []],
  ['3.6.0', { name: 'a/b' }, ['name']],
  ['3.6.0', { label: 'x'.repeat(48) }, ['label']],
  ['3.6.0', { device: '' }, ['device']],
  ['3.6.0', { clevis: { custom: { needsNetwork: true } } }, ['clevis.custom.config', 'clevis.custom.pin']],
  ['3.5.0', { clevis: { custom: { pin: 'own', config: '{}' } } }, ['clevis.custom.pin']],
  ['3.6.0', { clevis: { custom: { pin: 'own', config: '{}' } } }, []],
  ['3.6.0', { clevis: { tang: [{ url: 'ftp://t' }] } }, ['clevis.tang.0.thumbprint', 'clevis.tang.0.url']],
])('in %s the volume %j', (version, volume, expected) => {
  const luks = [{ name: 'v', device: '/dev/a', ...volume }]
  expect(findings({ luks }, version)).toEqual(expected.map((part) => `error luks.0.${part}`))
})

test('a finding about what is not there is placed at the nearest parent', () => {
  const text = [
    '{"ignition": {"version": "3.6.0"}, "storage": {"luks": [',
    '  {"name": "v", "device": "/dev/a", "keyFile": {',
    '    "source": "x:y"}}]}}',
  ].join('\n')
  const places = parseIgnition(text).problems.map(({ path, line, column }) => ({ path, line, column }))
  expect(places).toContainEqual({ path: '$.storage.luks.0.keys', line: 2, column: 4 })
  expect(places).toContainEqual({ path: '$.storage.luks.0.keyFile.source', line: 3, column: 15 })
})

test.each<[string, string[]]>([
  ['420', []],
  ['420.0', ['error $']],
  ['4.2e2', ['error $']],
  ['420, "unknown": 1.5', ['warning $.storage.files.0.unknown']],
])('the mode %s', (mode, expected) => {
  const text = `{"ignition": {"version": "3.6.0"}, "storage": {"files": [{"path": "/a", "mode": ${mode}}]}}`
  const { problems } = parseIgnition(text)
  expect(problems.map(({ severity, path }) => `${severity} ${path}`)).toEqual(expected)
})

test('of two entries of a disk the last says whether a file system overwrites partitions', () => {
  const disks = [{ device: '/d', partitions: [{ number: 1 }] }, { device: '/d' }]
  const places = (list: object[]): string[] => {
    const storage = { disks: list, filesystems: [{ device: '/d' }] }
    const { problems } = parseIgnition(JSON.stringify({ ignition: { version: '3.6.0' }, storage }))
    return problems.map(({ path }) => path)
  }
  expect(places(disks)).toEqual(['$.storage.disks.1'])
  expect(places(disks.toReversed())).toEqual(['$.storage.disks.1', '$.storage.filesystems.0.device'])
})

test('before 3.3 a hard link without a target pointed to itself', () => {
  const storage = { links: [{ path: '/a', hard: true }], directories: [{ path: '/a' }] }
  const messages = (version: string): string[] =>
    parseIgnition(JSON.stringify({ ignition: { version }, storage })).problems.map(({ message }) => message)
  expect(messages('3.2.0')).toContain('hard link target is a directory')
  expect(messages('3.3.0')).not.toContain('hard link target is a directory')
})

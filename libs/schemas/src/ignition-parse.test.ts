import { expect, test } from 'vitest'
import { describeIgnitionProblem, parseIgnition } from './ignition-parse.ts'

const config = (rest: object, version = '3.4.0'): string =>
  JSON.stringify({ ignition: { version }, ...rest }, null, 2)
const lines = (text: string): string[] => parseIgnition(text).problems.map(describeIgnitionProblem)

test('a config of every released version is accepted', () => {
  for (const minor of [0, 1, 2, 3, 4, 5, 6]) {
    expect(parseIgnition(config({}, `3.${minor}.0`)).config?.ignition.version).toBe('3.6.0')
  }
})

test('texts that are no config are refused with the reason', () => {
  expect(lines('')).toEqual(["couldn't parse config: not a config (empty)"])
  expect(lines('{"ignition": {"version": "2.3.0"}}')[0]).toMatch(
    /^couldn't parse config: unsupported config version/,
  )
  expect(lines('{"ignition": {"version": "x"}}')[0]).toMatch(/invalid config version/)
  expect(lines('{}')[0]).toMatch(/invalid config version/)
  expect(lines('{\n "ignition": {]}')).toEqual([
    "error at line 2 col 16: invalid character ']' looking for beginning of object key string",
  ])
})

test('unknown keys are warnings with their place, and the config stays usable', () => {
  const text = config({ storage: { files: [{ path: '/a', color: 'red' }] }, extra: 1 })
  const { config: parsed, problems } = parseIgnition(text)
  expect(parsed?.storage?.files).toEqual([{ path: '/a' }])
  expect(problems.map(describeIgnitionProblem)).toEqual([
    'warning at $.extra, line 13 col 3: unused key extra',
    'warning at $.storage.files.0.color, line 9 col 9: unused key color',
  ])
})

test('null counts as absent, and is worth a warning where a structure belongs', () => {
  const text = config({ storage: { files: [{ path: '/a', mode: null, contents: null }] }, systemd: null })
  const { config: parsed, problems } = parseIgnition(text)
  expect(parsed?.storage).toEqual({ files: [{ path: '/a' }] })
  expect(problems.map(({ severity, path }) => `${severity} ${path}`)).toEqual([
    'warning $.storage.files.0.contents',
    'warning $.systemd',
  ])
})

test('a config is checked by its own spec and comes out as the newest', () => {
  const of = (version: string, parts: object): ReturnType<typeof parseIgnition> =>
    parseIgnition(JSON.stringify({ ignition: { version }, ...parts }))
  const argumentsOf = { kernelArguments: { shouldExist: ['a'] } }
  expect(of('3.2.0', argumentsOf).problems).toMatchObject([
    { path: '$.kernelArguments', severity: 'warning' },
  ])
  expect(of('3.2.0', argumentsOf).config).toEqual({ ignition: { version: '3.6.0' } })
  expect(of('3.3.0', argumentsOf).config).toEqual({ ignition: { version: '3.6.0' }, ...argumentsOf })
  const setuid = { storage: { files: [{ path: '/a', mode: 0o4755 }] } }
  expect(of('3.5.0', setuid).config?.storage?.files).toEqual([{ path: '/a', mode: 0o755 }])
  expect(of('3.6.0', setuid).config?.storage?.files).toEqual([{ path: '/a', mode: 0o4755 }])
})

test('columns count bytes', () => {
  const text =
    '{"ignition":{"version":"3.6.0"},"storage":{"files":[{"contents":{"source":"é😀"},"path":"x"}]}}'
  const column = Buffer.byteLength(text.slice(0, text.indexOf('"x"'))) + 1
  expect(parseIgnition(text).problems).toContainEqual(
    expect.objectContaining({ path: '$.storage.files.0.path', line: 1, column }),
  )
})

test.each<[string, string | undefined]>([
  ['data:,a%20b', undefined],
  ['data:text/plain;charset=utf-8;base64,YQ==', undefined],
  ['data:;base64,YQ', 'unable to parse data URL'],
  ['data:,a b', 'unable to parse data URL'],
  ['DATA:,x', 'unable to parse data URL'],
  ['data:a/b,x', 'unable to parse data URL'],
  ['http://x:abc/', 'unable to parse url'],
  ['http://[::1]/', undefined],
  ['http://[::1]a', 'unable to parse url'],
  ['gs://bucket/key', undefined],
  ['arn:aws:s3:::bucket', 'invalid S3 ARN format'],
  ['arn:aws:s3:::bucket/key?versionId=', 'invalid S3 object VersionId'],
])('the source %s', (source, expected) => {
  const { problems } = parseIgnition(config({ storage: { files: [{ path: '/a', contents: { source } }] } }))
  expect(problems.map(({ message }) => message)).toEqual(expected ? [expected] : [])
})

test.each<[string, string | undefined]>([
  ['text before\n[Unit]\nA=b', undefined],
  ['[Unit]\nA=b\\\n[not a section', undefined],
  ['[Unit]\nA', 'invalid unit content: unexpected newline encountered while parsing option name'],
  ['[Unit]x', 'invalid unit content: found garbage after section name Unit: x'],
])('the unit %j', (contents, expected) => {
  const { problems } = parseIgnition(config({ systemd: { units: [{ name: 'a.service', contents }] } }))
  expect(problems.map(({ message }) => message)).toEqual(expected ? [expected] : [])
})

test.each<[string, object[], string[]]>([
  [
    'apart',
    [
      { number: 1, startMiB: 1, sizeMiB: 9 },
      { number: 2, startMiB: 10, sizeMiB: 5 },
    ],
    [],
  ],
  [
    'overlapping',
    [
      { number: 1, startMiB: 1, sizeMiB: 10 },
      { number: 2, startMiB: 10, sizeMiB: 5 },
    ],
    ['.1'],
  ],
  ['of one label', [{ number: 1, label: 'a' }, { label: 'a' }], ['.1']],
  ['of one number', [{ number: 1 }, { number: 1 }], ['.1', '.1']],
  ['absent and unnumbered', [{ number: 1, shouldExist: false }, { label: 'a' }], ['']],
  ['absent with a size', [{ number: 1, shouldExist: false, sizeMiB: 0 }], ['.0']],
])('partitions %s', (_, partitions, paths) => {
  const { problems } = parseIgnition(config({ storage: { disks: [{ device: '/d', partitions }] } }))
  expect(problems.map(({ path }) => path)).toEqual(paths.map((path) => `$.storage.disks.0.partitions${path}`))
})

test('all problems come at once, each with path, line and column', () => {
  const text = config({
    storage: {
      files: [{ path: 'relative', mode: 99999 }, { contents: { source: 'x:y' } }],
      links: [{ path: '/etc//x' }],
    },
    systemd: { units: [{ name: 'a.blah' }, { name: 'b.service', contents: '[Unit' }] },
  })
  expect(lines(text)).toMatchInlineSnapshot(`
    [
      "error at $.storage.files.0.path, line 8 col 17: path not absolute",
      "error at $.storage.files.0.mode, line 9 col 17: illegal file mode",
      "warning at $.storage.files.0.mode, line 9 col 17: setuid/setgid/sticky bits are not supported or functional in spec versions older than 3.6.0",
      "error at $.storage.files.1.path, line 11 col 8: path not specified",
      "error at $.storage.links.0.path, line 19 col 17: path not fully simplified",
      "error at $.storage.files.1.contents.source, line 13 col 21: invalid url scheme",
      "error at $.storage.links.0.target, line 18 col 8: link target is required",
      "error at $.systemd.units.0.name, line 26 col 17: invalid systemd unit extension",
      "error at $.systemd.units.1.contents, line 30 col 21: invalid unit content: unable to find end of section",
    ]
  `)
})

test.each<[string, object, RegExp]>([
  [
    'a wrong type',
    { storage: { files: [{ path: '/a', mode: '0644' }] } },
    /^error at line \d+ col \d+: \$\.storage\.files\.0\.mode must be an integer, and is a string$/,
  ],
  [
    'files, directories and links share their paths',
    {
      storage: { files: [{ path: '/a' }], directories: [{ path: '/a' }] },
    },
    /\$\.storage\.files\.0|\$\.storage\.directories\.0.*duplicate entry defined/,
  ],
  [
    'a path below a link',
    {
      storage: { links: [{ path: '/l', target: '/x' }], files: [{ path: '/l/f' }] },
    },
    /file path includes link in config/,
  ],
  [
    'a file in the place of a unit',
    {
      storage: { files: [{ path: '/etc/systemd/system/a.service' }] },
      systemd: { units: [{ name: 'a.service', contents: '[Unit]\n' }] },
    },
    /path conflicts with systemd unit or dropin/,
  ],
  [
    'both id and name',
    {
      storage: { files: [{ path: '/a', user: { id: 1, name: 'x' } }] },
    },
    /cannot set both id and name/,
  ],
  [
    'overwrite without content',
    { storage: { files: [{ path: '/a', overwrite: true }] } },
    /overwrite must be false/,
  ],
  [
    'a hash of a wrong length',
    {
      storage: {
        files: [{ path: '/a', contents: { source: 'data:,', verification: { hash: 'sha256-00' } } }],
      },
    },
    /incorrect size for hash sum/,
  ],
  [
    'headers on a data URL',
    {
      storage: {
        files: [{ path: '/a', contents: { source: 'data:,', httpHeaders: [{ name: 'A', value: 'b' }] } }],
      },
    },
    /cannot use HTTP headers/,
  ],
  [
    'a broken data URL',
    { storage: { files: [{ path: '/a', contents: { source: 'data:,%zz' } }] } },
    /data URL/,
  ],
  [
    'another compression',
    {
      storage: { files: [{ path: '/a', contents: { source: 'data:,', compression: 'xz' } }] },
    },
    /invalid compression method/,
  ],
  ['merge without source', { ignition: { version: '3.4.0', config: { merge: [{}] } } }, /source is required/],
  [
    'a partition without number and label',
    { storage: { disks: [{ device: '/dev/a', partitions: [{}] }] } },
    /number >= 1/,
  ],
  [
    'two partitions of one number',
    {
      storage: { disks: [{ device: '/dev/a', partitions: [{ number: 1 }, { number: 1 }] }] },
    },
    /duplicate entry defined/,
  ],
  [
    'partitions that overlap',
    {
      storage: {
        disks: [
          {
            device: '/dev/a',
            partitions: [
              { number: 1, startMiB: 1, sizeMiB: 10 },
              { number: 2, startMiB: 5, sizeMiB: 10 },
            ],
          },
        ],
      },
    },
    /partitions overlap/,
  ],
  [
    'a long label',
    { storage: { disks: [{ device: '/dev/a', partitions: [{ label: 'x'.repeat(37) }] }] } },
    /36/,
  ],
  [
    'a GUID that is none',
    {
      storage: { disks: [{ device: '/dev/a', partitions: [{ number: 1, guid: 'x' }] }] },
    },
    /doesn't match the form/,
  ],
  [
    'a filesystem format that is unknown',
    {
      storage: { filesystems: [{ device: '/dev/a', format: 'ntfs' }] },
    },
    /invalid filesystem format/,
  ],
  [
    'a vfat label that is too long',
    {
      storage: { filesystems: [{ device: '/dev/a', format: 'vfat', label: 'abcdefghijkl' }] },
    },
    /cannot be longer than 11/,
  ],
])('%s is refused', (_, rest, message) => {
  const { config: parsed, problems } = parseIgnition(config(rest))
  expect(parsed).toBeUndefined()
  expect(problems.map(describeIgnitionProblem).join('\n')).toMatch(message)
})

test('an enabled unit without [Install] is only warned about', () => {
  const { config: parsed, problems } = parseIgnition(
    config({
      systemd: { units: [{ name: 'a.service', enabled: true, contents: '[Service]\nExecStart=/x\n' }] },
    }),
  )
  expect(parsed).toBeDefined()
  expect(problems).toMatchObject([{ severity: 'warning', path: '$.systemd.units.0.contents' }])
})

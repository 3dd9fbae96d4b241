import { expect, test } from 'vitest'
import { parseIgnition } from '../ignition-parse.ts'
import { parsePod } from '../pod.ts'
import type { FilesPort } from './files.ts'
import { describeButaneProblem, excerptButaneProblem } from './report.ts'
import { translateButane } from './translate.ts'

const documents = { parseIgnition, parsePod }
const contents = new Map([
  ['hello', 'hello\n'],
  ['keys', 'ssh-ed25519 AAAA one\r\n\nssh-ed25519 AAAA two\n'],
  ['tree/a', 'A\n'],
  ['tree/bin/run', '#!/bin/sh\n'],
])
const files: FilesPort = {
  read(path) {
    const text = contents.get(path)
    if (text === undefined) return { ok: false, message: `open ${path}: no such file or directory` }
    return { ok: true, bytes: Buffer.from(text) }
  },
  list(path) {
    if (path === 'tree') {
      return {
        ok: true,
        entries: [
          { kind: 'link', name: 'l', target: 'a' },
          { kind: 'directory', name: 'bin' },
          { kind: 'file', name: 'a', executable: false },
        ],
      }
    }
    if (path === 'tree/bin') return { ok: true, entries: [{ kind: 'file', name: 'run', executable: true }] }
    return { ok: false, message: `stat ${path}: no such file or directory` }
  },
}

function translate(text: string) {
  const result = translateButane(text, { documents, files })
  return {
    config: result.ok ? JSON.parse(JSON.stringify(result.config)) : undefined,
    lines: result.problems.map(describeButaneProblem),
    failure: result.ok ? undefined : result.failure,
  }
}

const fcos = (body: string, version = '1.7.0'): string => `variant: fcos\nversion: ${version}\n${body}`

test('names are spelled as Ignition has them, and what is empty is left out', () => {
  const { config, lines } = translate(
    fcos(`storage:
  disks:
    - device: /dev/vda
      wipe_table: true
      partitions: [{label: a, number: 1, size_mib: 0x10, type_guid: 0FC63DAF-8483-4772-8E79-3D69D8477DE4}]
  files: []
ignition:
  security: {tls: {certificate_authorities: [{source: "https://x/ca"}]}}`),
  )
  expect(lines).toEqual([])
  expect(config).toEqual({
    ignition: {
      version: '3.6.0',
      security: { tls: { certificateAuthorities: [{ source: 'https://x/ca' }] } },
    },
    storage: {
      disks: [
        {
          device: '/dev/vda',
          wipeTable: true,
          partitions: [
            { label: 'a', number: 1, sizeMiB: 16, typeGuid: '0FC63DAF-8483-4772-8E79-3D69D8477DE4' },
          ],
        },
      ],
    },
  })
})

test('contents become the shortest of three encodings, and say what they are', () => {
  const long = 'word '.repeat(200)
  const { config } = translate(
    fcos(`storage:
  files:
    - {path: /a, contents: {inline: "a b"}}
    - {path: /b, contents: {inline: "ž%&<>ž"}}
    - {path: /c, contents: {inline: "${long}"}}
    - {path: /d, contents: {local: hello, compression: gzip}}`),
  )
  const [a, b, c, d] = config.storage.files.map((file: { contents: object }) => file.contents)
  expect(a).toEqual({ source: 'data:,a%20b', compression: '' })
  expect(b).toEqual({ source: 'data:;base64,xb4lJjw+xb4=', compression: '' })
  expect(c.compression).toBe('gzip')
  expect(d).toEqual({ source: 'data:,hello%0A', compression: 'gzip' })
})

test('the oldest version escapes contents and knows no local files', () => {
  const { config, lines } = translate(
    fcos('storage: {files: [{path: /a, contents: {inline: "ž", local: hello}}]}', '1.0.0'),
  )
  expect(config.storage.files[0].contents).toEqual({ source: 'data:,%C5%BE' })
  expect(lines).toEqual(['warning at $.storage.files.0.contents.local, line 3 col 54: unused key local'])
})

test('a tree keeps links and execute bits, and fills a file that has no contents', () => {
  const { config } = translate(
    fcos(`storage:
  files: [{path: /opt/a, mode: 0600}]
  trees: [{local: tree, path: /opt}]`),
  )
  expect(config.storage.files).toEqual([
    { path: '/opt/a', mode: 0o600, contents: { source: 'data:,A%0A', compression: '' } },
    { path: '/opt/bin/run', mode: 0o755, contents: { source: 'data:,%23!%2Fbin%2Fsh%0A', compression: '' } },
  ])
  expect(config.storage.links).toEqual([{ path: '/opt/l', target: 'a' }])
})

test('what a tree would replace, and what lies outside of the files directory, is refused where it was written', () => {
  expect(
    translate(
      fcos(`storage:
  files:
    - {path: /opt/a, contents: {inline: x}}
    - {path: /b, contents: {local: ../hello}}
  trees:
    - {local: tree, path: /opt}`),
    ).lines,
  ).toEqual([
    'error at $.storage.files.1.contents.local, line 6 col 36: local file path traverses outside the files directory',
    'error at $.storage.trees.0, line 8 col 7: matching filesystem node has existing contents or different type',
  ])
})

test('a mount unit stands before the units of the user, whose own of the same name wins field by field', () => {
  const { config, lines } = translate(
    fcos(
      `storage:
  filesystems:
    - {device: /dev/disk/by-label/x, format: xfs, path: /var/lib/my data, with_mount_unit: true}
systemd:
  units:
    - {name: a.service, enabled: true, contents: "[Service]"}
    - {name: 'var-lib-my\\x20data.mount', enabled: false}`,
    ),
  )
  expect(config.systemd.units.map((unit: { name: string }) => unit.name)).toEqual([
    'var-lib-my\\x20data.mount',
    'a.service',
  ])
  expect(config.systemd.units[0].enabled).toBe(false)
  expect(config.systemd.units[0].contents).toContain('What=/dev/disk/by-label/x\nType=xfs\n')
  // The warning is about the second unit of the result, which is the first of the source.
  expect(lines).toEqual([
    expect.stringMatching(/^warning at \$\.systemd\.units\.0\.contents, line 8 col 50: unit "a\.service"/),
  ])
})

test('keys of local files become one a line', () => {
  const { config } = translate(
    fcos('passwd: {users: [{name: core, ssh_authorized_keys: [first], ssh_authorized_keys_local: [keys]}]}'),
  )
  expect(config.passwd.users[0].sshAuthorizedKeys).toEqual([
    'first',
    'ssh-ed25519 AAAA one',
    'ssh-ed25519 AAAA two',
  ])
})

test('a partition of a mirrored disk is not reused by its label', () => {
  const warnings = (mirrored: string): string[] =>
    translate(
      fcos(`boot_device: {layout: x86_64, mirror: {devices: [${mirrored}, /dev/b]}}
storage: {disks: [{device: /dev/a, partitions: [{label: own}]}]}`),
    ).lines.filter((line) => line.includes('reused by label'))
  expect(warnings('/dev/a')).toEqual([])
  expect(warnings('/dev/c')).toEqual([
    expect.stringMatching(/^warning at \$\.storage\.disks\.0\.partitions\.0\.number, line 4 /),
  ])
})

test.each<[string, boolean]>([
  ['tang: [{}]', false],
  ["tang: [{url: ''}]", false],
  ['tang: [{url: "http://t", thumbprint: x}]', true],
  ['tpm2: true', true],
  ['tpm2: false', false],
])('a boot disk of LUKS that is unlocked by %s', (method, good) => {
  const { lines } = translate(fcos(`boot_device: {luks: {device: /dev/a, ${method}}}`))
  expect(lines.filter((line) => line.includes('no method'))).toEqual(
    good ? [] : [expect.stringMatching(/^error at \$\.boot_device\.luks\.luks, line 3 col /)],
  )
})

test.each(['extensions', 'kernel_arguments'])('what openshift lists in %s is there once', (list) => {
  const text = `variant: openshift
version: 4.14.0
metadata: {name: a, labels: {machineconfiguration.openshift.io/role: worker}}
openshift: {${list}: [a, b, a]}`
  expect(translate(text).lines).toEqual([
    expect.stringMatching(new RegExp(`^error at \\$\\.openshift\\.${list}\\.2, line 4 col \\d+: duplicate`)),
  ])
})

test.each<[string, string]>([
  ['passwd: {users: [{}]}', 'error at $.passwd.users.0.name, line 4 col 18'],
  ['storage: {files: [{}]}', 'error at $.storage.files.0.path, line 4 col 19'],
  [
    'storage: {luks: [{name: a, device: /a, clevis: {tang: [{thumbprint: x}]}}]}',
    'error at $.storage.luks.0.clevis.tang.0.url, line 4 col 56',
  ],
  ['passwd: {users: [{name: core, gecos: ""}]}', 'error at $.passwd.users.0.gecos, line 4 col 38'],
])('what openshift lacks or refuses in %s is told of in the terms of the source', (body, place) => {
  const text = `variant: openshift
version: 4.14.0
metadata: {name: a, labels: {machineconfiguration.openshift.io/role: worker}}
${body}`
  expect(translate(text).lines.map((line) => line.replace(/:.*/, ''))).toEqual([place])
})

test.each(['1.3.0', '1.6.0'])('fcos %s tells of a root partition that is too small', (version) => {
  const body =
    'storage:\n  disks:\n    - device: /dev/a\n      partitions: [{label: root, number: 4, size_mib: 100}]\n'
  expect(translate(fcos(body, version)).lines.join()).toContain('root should have 8GiB')
})

test.each(['4.14.0', '4.19.0', '4.22.0'])('openshift %s has no rule where a mount unit mounts', (version) => {
  const text = `variant: openshift
version: ${version}
metadata: {name: a, labels: {machineconfiguration.openshift.io/role: worker}}
storage: {filesystems: [{device: /dev/a, format: ext4, path: /srv, with_mount_unit: true}]}`
  expect(translate(text).lines.filter((line) => line.startsWith('error'))).toEqual([])
})

test('a mirrored boot disk without a layout was a warning and is an error', () => {
  const mirror = 'boot_device: {mirror: {devices: [/dev/vda, /dev/vdb]}}'
  expect(translate(fcos(mirror, '1.6.0')).lines).toEqual([
    expect.stringMatching(/^warning at \$\.boot_device\.mirror, line 3 col 23: /),
  ])
  expect(translate(fcos(mirror)).failure).toBe('source config is invalid')
})

test('a Tang server of the boot device without an address is refused where it stands', () => {
  const { lines } = translate(fcos('boot_device:\n  luks:\n    tang:\n      - thumbprint: x\n', '1.4.0'))
  expect(lines).toEqual(['error at $.boot_device.luks.tang.0.url, line 6 col 9: invalid url scheme'])
})

test.each<[string, string]>([
  ['storage: {luks: [{name: a, device: /a, clevis: {tang: [{thumbprint: x}]}}]}', 'tang.0.url'],
  [
    'storage: {files: [{path: /a, contents: {source: "http://x", http_headers: [{value: x}]}}]}',
    'http_headers.0.name',
  ],
])('a key that is missing in %s is told of', (body, end) => {
  expect(translate(fcos(body)).lines).toEqual([
    expect.stringMatching(new RegExp(`^error at \\S*${end}, line 3 col`)),
  ])
})

test('what machines of a variant cannot do is refused, each time at its own place', () => {
  expect(
    translate(`variant: r4e
version: 1.1.0
storage:
  luks:
    - {name: a, device: /dev/a}
kernel_arguments:
  should_exist: [quiet]`).lines,
  ).toEqual([
    'error at $.kernel_arguments, line 7 col 3: kernel argument customization is not supported in this spec version',
    'error at $.storage.luks, line 5 col 5: luks is not supported in this spec version',
  ])
})

test('a text that is no config of a known version says so in a sentence', () => {
  expect(translate('').failure).toBe('error parsing variant; must be specified')
  expect(translate('variant: fcos\nversion: 1.7').failure).toBe(
    'error parsing version; must be a valid semver',
  )
  expect(translate(fcos('', '9.9.9')).failure).toBe(
    'No translator exists for variant fcos with version 9.9.9',
  )
  expect(translate(fcos('storage: {files: no}')).failure).toBe(
    'yaml: unmarshal errors:\n  line 3: cannot unmarshal !!str `no` into a list of file',
  )
  expect(translate(fcos('storage: [')).failure).toMatch(/^Error unmarshaling yaml: yaml: line \d/)
  expect(translate(fcos('storage: {}\nstorage: {}')).failure).toMatch(/already defined at line 3/)
})

test('anchors and merge keys are followed, and bounded', () => {
  const { config, lines } = translate(
    fcos(`storage:
  files:
    - &one {path: /a, mode: 0600}
    - <<: *one
      path: /b`),
  )
  expect(config.storage.files[1]).toEqual({ path: '/b', mode: 0o600 })
  expect(lines).toEqual(['warning at $.storage.files.1.<<, line 6 col 7: unused key <<'])
  // In quotes it is a key like others; an anchor may not contain itself, where it is looked at.
  expect(translate(fcos('"<<": {storage: {files: [{path: /a}]}}')).config.storage).toBeUndefined()
  expect(translate(fcos('x: &a {b: *a}')).config).toEqual({ ignition: { version: '3.6.0' } })
  expect(translate(fcos('storage: &a {<<: *a}')).failure).toContain('contains itself')
  const levels = Array.from({ length: 12 }, (_, level) =>
    level === 0
      ? 'a0: &a0 {path: /x}'
      : `a${level}: &a${level} [${Array.from({ length: 10 }, () => `*a${level - 1}`).join(', ')}]`,
  )
  const bomb = fcos(`${levels.join('\n')}\nstorage: {files: *a11}`)
  expect(translate(bomb).config).toBeUndefined()
})

test('a config that is merged in is checked by the rules of its version, if that is the one that is written', () => {
  const merge = (text: string): string[] =>
    translate(fcos(`ignition: {config: {merge: [{inline: '${text}'}]}}`)).lines
  expect(merge('{"ignition":{"version":"3.6.0"},"storage":{"files":[{"path":"/a"}]}}')).toEqual([])
  expect(merge('{"ignition":{"version":"3.5.0"}}')).toEqual([
    expect.stringMatching(
      /^warning at \$\.ignition\.config\.merge\.0\.version, line 3 col 29: skipping validation/,
    ),
  ])
  expect(merge('{"ignition":{"version":"3.6.0"},"storage":{"files":[{"path":"a"}]}}')).toEqual([
    'error at $.storage.files.0.path, line 1 col 1: path not absolute',
  ])
  expect(merge('{"ignition":{"version":"3.6.0"},"storage":[]}')).toEqual([
    expect.stringMatching(/^error at line 1 col 1: .*\$\.storage must be an object/),
    'error at $.ignition.config.merge.0.inline, line 3 col 38: config is not valid',
  ])
  expect(merge('{"ignition"')).toEqual([
    'error at line 1 col 1: unexpected end of JSON input',
    'error at $.ignition.config.merge.0.inline, line 3 col 38: config is not valid',
  ])
})

test('an excerpt underlines what a finding is about', () => {
  const text = fcos('storage:\n  files:\n    - path: relative # why\n')
  const [problem] = translateButane(text, { documents }).problems
  expect(excerptButaneProblem(problem!, { fileName: 'x.bu', lines: text.split('\n'), colour: false })).toBe(
    `error[$.storage.files.0.path]:
  --> x.bu:5:13
   |
 3 | storage:
 4 |   files:
 5 |     - path: relative # why
   |             ^^^^^^^^ path not absolute
 6 | 
   |`,
  )
})

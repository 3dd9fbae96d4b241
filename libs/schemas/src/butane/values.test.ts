import { expect, test } from 'vitest'
import { parseIgnition } from '../ignition-parse.ts'
import { parsePod } from '../pod.ts'
import { describeButaneProblem } from './report.ts'
import { translateButane } from './translate.ts'

// What values become, and where they stand, is what gopkg.in/yaml.v3 makes of the same text.

function translate(body: string, version = '1.7.0', variant = 'fcos') {
  const text = `variant: ${variant}\nversion: ${version}\n${body}`
  const result = translateButane(text, { documents: { parseIgnition, parsePod } })
  return {
    output: result.ok ? result.output : result.failure,
    places: result.problems.map((problem) => describeButaneProblem(problem).replace(/:.*/, '')),
    storage: result.ok ? JSON.parse(JSON.stringify(result.config.storage ?? {})) : undefined,
  }
}

const file = (fields: string): string => `storage: {files: [{path: /a, ${fields}}]}`
const modeOf = (text: string): unknown => translate(file(`mode: ${text}`)).storage?.files[0].mode

test.each<[string, number | undefined]>([
  ['0644', 0o644],
  ['0o644', 0o644],
  ['0O644', 0o644],
  ['644', 644],
  ['0x1A4', 0o644],
  ['0b110100100', 0o644],
  ['0_644', 0o644],
  ['420.0', 420],
  ['4.2e2', 420],
  ['420.9', 420],
  ['08', 8],
  ['+7', 7],
  ['!!int "7"', 7],
  ['!!float 7', 7],
  ['null', undefined],
  ['~', undefined],
  ['!!null ""', undefined],
])('the mode %s', (text, mode) => {
  expect(modeOf(text)).toBe(mode)
})

test.each([
  'x',
  '"420"',
  '_420',
  '0o8',
  '1:30',
  'true',
  '.inf',
  '[420]',
  '!foo 420',
  '!!int 1.5',
  '!!int x',
  '9223372036854775808',
  '1e30',
])('%s is no mode', (text) => {
  expect(translate(file(`mode: ${text}`)).output).toMatch(/line 3: cannot (unmarshal|decode)/)
})

test.each<[string, boolean]>([
  ...['true', 'True', 'TRUE', 'y', 'Y', 'yes', 'Yes', 'YES', 'on', 'On', 'ON', '"yes"'].map(
    (text): [string, boolean] => [text, true],
  ),
  ...['false', 'False', 'FALSE', 'n', 'N', 'no', 'No', 'NO', 'off', 'Off', 'OFF'].map(
    (text): [string, boolean] => [text, false],
  ),
])('the truth value %s', (text, value) => {
  expect(translate(`storage: {links: [{path: /a, target: b, hard: ${text}}]}`).storage.links[0].hard).toBe(
    value,
  )
})

test('text that looks like something else stays text where text is wanted', () => {
  const label = (text: string): unknown =>
    translate(`storage: {filesystems: [{device: /dev/a, format: ext4, label: ${text}}]}`).storage
      .filesystems[0].label
  for (const text of ['012', '1.0', 'yes', 'true', '2001-01-01', '!!timestamp 2001-01-01', '!foo 1', '0x1']) {
    expect(label(text)).toBe(text.split(' ').at(-1))
  }
  expect(label('!!binary aGk=')).toBe('hi')
})

test('binary data are bytes where contents are wanted', () => {
  const contents = (text: string): unknown =>
    translate(file(`contents: {inline: ${text}}`)).storage?.files[0].contents
  expect(contents('!!binary /wD+')).toEqual({ source: 'data:,%FF%00%FE', compression: '' })
  expect(contents('!!binary "aG\\nk="')).toEqual({ source: 'data:,hi', compression: '' })
  expect(translate(file('contents: {inline: !!binary "a b"}')).output).toContain('invalid base64')
  expect(contents('12')).toEqual({ source: 'data:,12', compression: '' })
})

test('an integer beyond what a number holds is written with all its digits', () => {
  const disk = (size: string): string =>
    translate(`storage: {disks: [{device: /dev/a, partitions: [{number: 1, size_mib: ${size}}]}]}`).output
  expect(disk('9007199254740993')).toContain('"sizeMiB":9007199254740993}')
  expect(disk('9223372036854775807')).toContain('"sizeMiB":9223372036854775807}')
  expect(translate(file('mode: 9007199254740993')).places).toEqual([
    'error at $.storage.files.0.mode, line 3 col 36',
  ])
})

test('a section that has nothing in it is worth a warning at the place where it would begin', () => {
  expect(translate('storage:\nsystemd:\npasswd: ~\nignition: {config: , timeouts: null}\n').places).toEqual([
    'warning at $.storage, line 3 col 9',
    'warning at $.systemd, line 4 col 9',
    'warning at $.passwd, line 5 col 9',
    'warning at $.ignition.config, line 6 col 20',
    'warning at $.ignition.timeouts, line 6 col 32',
  ])
  expect(translate('storage:\n  files:\n  links:\n').places).toEqual([])
  expect(translate('storage: {files: [{path: /a, user: , contents: }]}').places).toHaveLength(2)
})

test('an item that is nothing is left out, and those behind are looked for in its place', () => {
  const { storage, places } = translate('storage:\n  files:\n    -\n    - path: /a\n      color: red\n')
  expect(storage.files).toEqual([{ path: '/a' }])
  expect(places).toEqual(['warning at $.storage.files.0, line 5 col 6'])
  expect(translate('passwd: {users: [{name: core, groups: [a, null, b]}]}').output).toContain(
    '"groups":["a","b"]',
  )
})

test('an alias in the place of a section hides its keys, and is where findings about it are', () => {
  const { places } = translate('x: &x {path: a, y: 1}\nstorage:\n  files:\n    - *x\n')
  expect(places).toEqual([
    'warning at $.x, line 3 col 1',
    'warning at $.storage.files.0, line 6 col 7',
    'error at $.storage.files.0.path, line 6 col 7',
  ])
})

test('in 1.3 nothing in place of clevis is no clevis at all', () => {
  const clevis = (version: string): string[] =>
    translate('storage: {luks: [{name: a, device: /dev/a, clevis: }]}', version).places
  expect(clevis('1.3.0')).toEqual([])
  expect(clevis('1.4.0')).toEqual(['warning at $.storage.luks.0.clevis, line 3 col 52'])
})

test('places in a text with a byte order mark, and of what is not there', () => {
  const text = '\ufeffvariant: fcos\nversion: 1.7.0\nstorage: {files: [{path: /a, color}]}'
  const { problems } = translateButane(text, { documents: { parseIgnition, parsePod } })
  expect(problems.map(describeButaneProblem)).toEqual([
    'warning at $.storage.files.0.color, line 3 col 30: unused key color',
  ])
  expect(translate('storage: {files: [{path: /a, user }]}').places).toEqual([
    'warning at $.storage.files.0.user, line 3 col 35',
  ])
})

test.each(['1.1.0', '1.3.0'])(
  '%s mounts swap space that has a path, for it knows no swap units',
  (version) => {
    const body = 'storage: {filesystems: [{device: /dev/a, format: swap, path: /s, with_mount_unit: true}]}'
    expect(translate(body, version).output).toContain('"name":"s.mount","enabled":true')
    expect(translate(body, version).output).toContain('Type=swap')
    expect(translate(body, '1.4.0').output).toContain('"name":"dev-a.swap"')
  },
)

test.each([
  ['lists in each other', '['.repeat(3_000_000)],
  ['maps in each other', '{a: '.repeat(500_000)],
  ['lists in one line', `\n  ${'- '.repeat(500_000)}x`],
  ['keys in one line', `\n  ${'? '.repeat(500_000)}x`],
  [
    'deeper and deeper lines',
    Array.from({ length: 3000 }, (_, depth) => `\n${' '.repeat(depth + 1)}a:`).join(''),
  ],
])('%s are refused as too deep, before they take memory', (_, text) => {
  const before = process.memoryUsage().rss
  expect(translate(`storage: ${text}`).output).toBe(
    'Error unmarshaling yaml: yaml: nesting is deeper than 100',
  )
  expect(process.memoryUsage().rss - before).toBeLessThan(300 * 1024 * 1024)
})

test('brackets and dashes in texts, and lists beside each other, nest nothing', () => {
  const text = '[{- ? '.repeat(200)
  const keys = `[{${'? a: b, '.repeat(200)}}, ${'[], '.repeat(200)}]`
  expect(
    translate(`x: ${keys}\ny: |\n  ${text}\nz: "${text}"\n${file(`contents: {inline: '${text}'}`)}`),
  ).toMatchObject({
    storage: { files: [{ path: '/a' }] },
  })
  const items = `\n${'  - {path: /a}\n'.repeat(200)}`
  expect(translate(`storage:\n  files: ${items.replaceAll('\n', '\n  ')}`).places).toHaveLength(199)
})

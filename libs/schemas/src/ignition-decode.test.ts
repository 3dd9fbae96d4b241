import { expect, test } from 'vitest'
import { describeIgnitionProblem, parseIgnition } from './ignition-parse.ts'

// Expected places are those that the reference's validator prints for the same text.
const head = '"ignition":{"version":"3.3.0"}'
const lines = (text: string): string[] => parseIgnition(text).problems.map(describeIgnitionProblem)
const places = (text: string): string[] => lines(text).map((line) => line.replace(/:.*/, ''))

test.each<[string, string]>([
  ['"storage":{"files":[{"path": 3}]}', 'error at line 1 col 63'],
  ['"storage":{"files":{"path":3}}', 'error at line 1 col 53'],
  ['"storage":{"files":[[]]}', 'error at line 1 col 54'],
  ['"storage":{"files":["x"]}', 'error at line 1 col 56'],
  ['"storage":[]', 'error at line 1 col 44'],
  ['"storage":{"files":[{"path":"/a","mode":true}]}', 'error at line 1 col 77'],
  ['"storage":{"files":[{"path":"/a","mode":1e3}]}', 'error at line 1 col 76'],
  ['"storage":{"files":[{"path":"/a","mode":1.0}]}', 'error at line 1 col 76'],
  ['"storage":{"files":[{"path":"/a","mode":9223372036854775808}]}', 'error at line 1 col 92'],
  ['"storage":{"files":[{"path":"/a","mode":"x"},{"path":3}]}', 'error at line 1 col 76'],
])('a value of a wrong type, in %s, is the one thing told, where it ends', (body, place) => {
  expect(places(`{${head},${body}}`)).toEqual([place])
})

test('the message says where the value of a wrong type is, and what it should be', () => {
  expect(lines(`{${head},"storage":{"files":[{"path":"/a","MODE":1e3}]}}`)).toEqual([
    'error at line 1 col 76: $.storage.files.0.mode must be an integer, and is 1e3',
  ])
  expect(lines(`{${head},"passwd":{"users":[{"name":["x"]}]}}`)).toEqual([
    'error at line 1 col 61: $.passwd.users.0.name must be a string, and is a list',
  ])
})

test('the version is looked for before anything else', () => {
  expect(places('{"storage":{"files":[{"path":3}]},"ignition":{"version":4}}')).toEqual([
    'error at line 1 col 58',
  ])
  expect(places('[]')).toEqual(['error at line 1 col 2'])
  expect(lines('{"ignition":{"version":null}}')).toEqual([expect.stringMatching(/^couldn't parse config/)])
  expect(parseIgnition('{"ignition":{"version":"3.00.0"}}').config).toEqual({
    ignition: { version: '3.6.0' },
  })
  expect(lines('{"ignition":{"version":"3.3.0+x"}}')).toEqual([expect.stringMatching(/unsupported/)])
})

test('integers are those of 64 bits', () => {
  const mode = (digits: string): string[] =>
    places(`{${head},"storage":{"files":[{"path":"/a","mode":${digits}}]}}`)
  expect(mode('-0')).toEqual([])
  for (const digits of ['-5', '9007199254740993', '9223372036854775807', '-9223372036854775808']) {
    expect(mode(digits)[0]).toBe('error at $.storage.files.0.mode, line 1 col 73')
  }
  const partition = `{${head},"storage":{"disks":[{"device":"/d","partitions":[{"number":-1}]}]}}`
  expect(lines(partition)).toEqual([])
})

test('a key in another case is read, and told of as unused', () => {
  const text = `{"Ignition":{"VERſION":"3.3.0"},"storage":{"files":[{"path":"/a","PATH":"b"}]},"K":1}`
  expect(places(text)).toEqual([
    'error at $.storage.files.0.path, line 1 col 62',
    'warning at $.Ignition, line 1 col 2',
    'warning at $.K, line 1 col 81',
    'warning at $.storage.files.0.PATH, line 1 col 67',
  ])
  expect(lines(text)[1]).toContain('unused key Ignition; it is read as ignition')
})

test('what is below a key in another case is placed where the text last has the exact one', () => {
  expect(places(`{${head},"Storage":{"fileS":[{"path":"a","foo":3}]}}`)).toEqual([
    'error at $.storage.files.0.path, line 1 col 2',
    'warning at $.Storage, line 1 col 33',
  ])
})

test('what is there twice is read on top of what was there', () => {
  const files = (text: string): unknown =>
    parseIgnition(`{${head},"storage":{"files":${text}}}`).config?.storage?.files
  expect(files('[{"path":"/a","mode":1},{"path":"/b","mode":2}],"files":[{"path":"/c"}]')).toEqual([
    { path: '/c', mode: 1 },
  ])
  expect(files('[{"path":"/a","mode":1}],"files":null')).toBeUndefined()
  expect(files('[{"path":"/a","mode":1,"path":null,"mode":null}]')).toEqual([{ path: '/a' }])
  expect(
    places(`{${head},"storage":{"files":[{"path":"/a"}]},"storage":{"directories":[{"path":"/a"}]}}`),
  ).toEqual(['error at $.storage.files.0, line 1 col 80'])
})

test('null leaves a structure as it is, which is worth a warning', () => {
  expect(places(`{${head},"storage":{"files":[{"path":"a"}]},"storage":null}`)).toEqual([
    'error at $.storage.files.0.path, line 1 col 78',
    'warning at $.storage, line 1 col 78',
  ])
  expect(places(`{${head},"storage":{"files":[null]}}`)).toEqual([
    'error at $.storage.files.0.path, line 1 col 53',
    'warning at $.storage.files.0, line 1 col 53',
  ])
})

test('null in a list of texts is an empty one', () => {
  const keys = `{${head},"passwd":{"users":[{"name":"a","sshAuthorizedKeys":[null,null]}]}}`
  expect(places(keys)).toEqual(['error at $.passwd.users.0.sshAuthorizedKeys.1, line 1 col 90'])
  const devices = `{${head},"storage":{"raid":[{"name":"a","level":"1","devices":[null]}]}}`
  expect(places(devices)).toEqual(['error at $.storage.raid.0.devices.0, line 1 col 87'])
})

test('only in 3.2 could clevis be absent as a whole', () => {
  const clevis = (version: string): string[] =>
    places(
      `{"ignition":{"version":"${version}"},"storage":{"luks":[{"name":"a","device":"/d","clevis":null}]}}`,
    )
  expect(clevis('3.2.0')).toEqual([])
  expect(clevis('3.3.0')).toEqual(['warning at $.storage.luks.0.clevis, line 1 col 87'])
})

test('a number that no float can hold takes the places away', () => {
  expect(lines(`{${head},"x":1e400,"storage":{"files":[{"path":"a"}]}}`)).toEqual([
    'error at $.storage.files.0.path: path not absolute',
  ])
})

test('names with dots are names', () => {
  expect(places(`{${head},"storage.files":[{"path":"/b"}],"storage":{"files":[{"path":"x"}]}}`)).toEqual([
    'error at $.storage.files.0.path, line 1 col 93',
    'warning at $.storage.files, line 1 col 33',
  ])
})

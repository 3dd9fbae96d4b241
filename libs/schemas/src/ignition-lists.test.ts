import { expect, test } from 'vitest'
import type { IgnitionConfig } from './ignition.ts'
import { mergeIgnition } from './ignition-merge.ts'
import { parseIgnition } from './ignition-parse.ts'
import { ignitionVersions } from './ignition-versions.ts'

/**
 * Every list of the specification: the version that has it first, a config around it and how an entry of a key is
 * written. The key rules are told here a second time, apart from the code that merges.
 */
type List = { since: string; config: string; entry: (key: string) => string }
const list = (since: string, config: string, field = ''): List => ({
  since,
  config,
  entry: (key) => (field === '' ? `"${key}"` : `{"${field}": "${key}"}`),
})
const inIgnition = (rest: string): string => `{"ignition": {"version": "VERSION", ${rest}}}`
const beside = (rest: string): string => `{"ignition": {"version": "VERSION"}, ${rest}}`
const inStorage = (rest: string): string => beside(`"storage": {${rest}}`)
const headersIn = (resource: string): string =>
  resource.replace('RESOURCE', '{"source": "http://h/", "httpHeaders": LIST}')

const lists: Record<'keyed' | 'values' | 'appended', Record<string, List>> = {
  keyed: {
    'ignition.config.merge': list('3.0.0', inIgnition('"config": {"merge": LIST}'), 'source'),
    'ignition.security.tls.certificateAuthorities': list(
      '3.0.0',
      inIgnition('"security": {"tls": {"certificateAuthorities": LIST}}'),
      'source',
    ),
    'storage.disks': list('3.0.0', inStorage('"disks": LIST'), 'device'),
    'storage.disks.0.partitions': {
      ...list('3.0.0', inStorage('"disks": [{"device": "/d", "partitions": LIST}]')),
      entry: (key) => `{"number": ${key.charCodeAt(0)}}`,
    },
    'storage.raid': list('3.0.0', inStorage('"raid": LIST'), 'name'),
    'storage.filesystems': list('3.0.0', inStorage('"filesystems": LIST'), 'device'),
    'storage.files': list('3.0.0', inStorage('"files": LIST'), 'path'),
    'storage.directories': list('3.0.0', inStorage('"directories": LIST'), 'path'),
    'storage.links': list('3.0.0', inStorage('"links": LIST'), 'path'),
    'systemd.units': list('3.0.0', beside('"systemd": {"units": LIST}'), 'name'),
    'systemd.units.0.dropins': list(
      '3.0.0',
      beside('"systemd": {"units": [{"name": "u", "dropins": LIST}]}'),
      'name',
    ),
    'passwd.users': list('3.0.0', beside('"passwd": {"users": LIST}'), 'name'),
    'passwd.groups': list('3.0.0', beside('"passwd": {"groups": LIST}'), 'name'),
    'ignition.config.replace.httpHeaders': list(
      '3.1.0',
      headersIn(inIgnition('"config": {"replace": RESOURCE}')),
      'name',
    ),
    'ignition.config.merge.0.httpHeaders': list(
      '3.1.0',
      headersIn(inIgnition('"config": {"merge": [RESOURCE]}')),
      'name',
    ),
    'ignition.security.tls.certificateAuthorities.0.httpHeaders': list(
      '3.1.0',
      headersIn(inIgnition('"security": {"tls": {"certificateAuthorities": [RESOURCE]}}')),
      'name',
    ),
    'storage.files.0.contents.httpHeaders': list(
      '3.1.0',
      headersIn(inStorage('"files": [{"path": "/f", "contents": RESOURCE}]')),
      'name',
    ),
    'storage.luks': list('3.2.0', inStorage('"luks": LIST'), 'name'),
    'storage.luks.0.keyFile.httpHeaders': list(
      '3.2.0',
      headersIn(inStorage('"luks": [{"name": "l", "keyFile": RESOURCE}]')),
      'name',
    ),
    'storage.luks.0.clevis.tang': list(
      '3.2.0',
      inStorage('"luks": [{"name": "l", "clevis": {"tang": LIST}}]'),
      'url',
    ),
  },
  values: {
    'storage.raid.0.devices': list('3.0.0', inStorage('"raid": [{"name": "r", "devices": LIST}]')),
    'passwd.users.0.sshAuthorizedKeys': list(
      '3.0.0',
      beside('"passwd": {"users": [{"name": "u", "sshAuthorizedKeys": LIST}]}'),
    ),
    'passwd.users.0.groups': list('3.0.0', beside('"passwd": {"users": [{"name": "u", "groups": LIST}]}')),
    'ignition.proxy.noProxy': list('3.1.0', inIgnition('"proxy": {"noProxy": LIST}')),
    'kernelArguments.shouldExist': list('3.3.0', beside('"kernelArguments": {"shouldExist": LIST}')),
    'kernelArguments.shouldNotExist': list('3.3.0', beside('"kernelArguments": {"shouldNotExist": LIST}')),
    'storage.luks.0.openOptions': list('3.4.0', inStorage('"luks": [{"name": "l", "openOptions": LIST}]')),
  },
  appended: {
    'storage.raid.0.options': list('3.0.0', inStorage('"raid": [{"name": "r", "options": LIST}]')),
    'storage.filesystems.0.options': list(
      '3.0.0',
      inStorage('"filesystems": [{"device": "/d", "options": LIST}]'),
    ),
    'storage.files.0.append': list('3.0.0', inStorage('"files": [{"path": "/f", "append": LIST}]'), 'source'),
    'storage.filesystems.0.mountOptions': list(
      '3.1.0',
      inStorage('"filesystems": [{"device": "/d", "mountOptions": LIST}]'),
    ),
    'storage.luks.0.options': list('3.2.0', inStorage('"luks": [{"name": "l", "options": LIST}]')),
  },
}
const named = (kinds: (keyof typeof lists)[]): [string, List][] =>
  kinds.flatMap((kind) => Object.entries(lists[kind]))
const versionsOf = ({ since }: List): string[] => ignitionVersions.filter((version) => version >= since)

/** Each entry has a line of its own, from the second on. */
const textOf = ({ config, entry }: List, keys: string[], version: string): string =>
  config.replace('VERSION', version).replace('LIST', `[\n${keys.map(entry).join(',\n')}\n]`)

/** The config with entries that tell where each of their fields is from, as `mergeIgnition` leaves them. */
function merged(of: List, path: string, sides: { parent: string[]; child: string[] }): unknown[] {
  const [parent, child] = (['parent', 'child'] as const).map((side) => {
    const config = JSON.parse(textOf(of, sides[side], '3.6.0')) as IgnitionConfig
    for (const entry of at(config, path)) {
      if (typeof entry !== 'object' || entry === null) continue
      Object.assign(entry, { value: side, [side]: true })
    }
    return config
  })
  return at(mergeIgnition(parent!, child!), path)
}
const at = (config: object, path: string): unknown[] =>
  path
    .split('.')
    .reduce<unknown>((value, part) => (value as Record<string, unknown>)[part], config) as unknown[]

/** All ordered choices of up to three keys. */
const orders = [
  '',
  'a',
  'b',
  'c',
  'ab',
  'ba',
  'ac',
  'ca',
  'bc',
  'cb',
  'abc',
  'acb',
  'bac',
  'bca',
  'cab',
  'cba',
].map((keys) => [...keys])

test.each(named(['keyed', 'values']))('entries of %s merge by their key, new ones follow', (path, of) => {
  for (const parent of orders) {
    for (const child of orders) {
      const expected = [...parent, ...child.filter((key) => !parent.includes(key))].map((key) => {
        const plain: unknown = JSON.parse(of.entry(key))
        if (typeof plain !== 'object') return plain
        return {
          ...plain,
          value: child.includes(key) ? 'child' : 'parent',
          ...(parent.includes(key) ? { parent: true } : {}),
          ...(child.includes(key) ? { child: true } : {}),
        }
      })
      expect(merged(of, path, { parent, child }), `${parent} and ${child}`).toEqual(expected)
    }
  }
})

test.each(named(['appended']))('%s of the child follows that of the parent', (path, of) => {
  for (const parent of orders) {
    for (const child of orders) {
      const entries = merged(of, path, { parent, child })
      const keys = entries.map((entry) => (typeof entry === 'object' ? Object.values(entry!)[0] : entry))
      expect(keys).toEqual([...parent, ...child])
    }
  }
})

const duplicatesIn = (text: string): string[] =>
  parseIgnition(text)
    .problems.filter(({ message }) => message === 'duplicate entry defined')
    .map(({ severity, path, line, column }) => `${severity} ${path} ${line}:${column}`)

test.each(named(['keyed', 'values']))('a duplicate in %s is an error at its place', (path, of) => {
  // The position of an object is behind its brace.
  const column = of.entry('a').startsWith('{') ? 2 : 1
  for (const version of versionsOf(of)) {
    expect(duplicatesIn(textOf(of, ['a', 'b', 'a', 'c', 'b'], version)), version).toEqual([
      `error $.${path}.2 4:${column}`,
      `error $.${path}.4 6:${column}`,
    ])
    expect(duplicatesIn(textOf(of, ['a', 'b', 'c'], version)), version).toEqual([])
  }
})

test.each(named(['appended']))('%s may hold an entry twice', (_, of) => {
  for (const version of versionsOf(of)) {
    expect(duplicatesIn(textOf(of, ['a', 'b', 'a'], version)), version).toEqual([])
  }
})

const nodes = ['directories', 'files', 'links']
const kernelLists = ['shouldExist', 'shouldNotExist']
const pairs = [nodes, kernelLists].flatMap((names) =>
  names.flatMap((one) => names.filter((other) => other !== one).map((other) => [one, other] as const)),
)

test.each(pairs)('what the child has in %s is gone from %s of the parent', (one, other) => {
  const isNode = nodes.includes(one)
  const section = isNode ? 'storage' : 'kernelArguments'
  const entry = (key: string): unknown => (isNode ? { path: key } : key)
  const config = (name: string, keys: string[]): IgnitionConfig => ({
    ignition: { version: '3.6.0' },
    [section]: { [name]: keys.map(entry) },
  })
  const merge = mergeIgnition(config(other, ['/a', '/b', '/c']), config(one, ['/d', '/b'])) as Record<
    string,
    unknown
  >
  expect(merge[section]).toEqual({
    [other]: ['/a', '/c'].map(entry),
    [one]: ['/d', '/b'].map(entry),
  })
})

test.each(pairs)('%s and %s share their keys', (one, other) => {
  const isNode = nodes.includes(one)
  const entry = isNode ? '{"path": "/a"}' : '"/a"'
  const text = (version: string): string =>
    [
      `{"ignition": {"version": "${version}"}, "${isNode ? 'storage' : 'kernelArguments'}": {`,
      `"${one}": [${entry}],`,
      `"${other}": [${entry}]}}`,
    ].join('\n')
  const names = isNode ? nodes : kernelLists
  // The later list of the specification's order has the error, in whatever order the text has them.
  const later = names.indexOf(one) > names.indexOf(other) ? one : other
  const column = `"${later}": [`.length + (isNode ? 2 : 1)
  const path = `${isNode ? 'storage' : 'kernelArguments'}.${later}.0`
  for (const version of ignitionVersions.filter((each) => isNode || each >= '3.3.0')) {
    expect(duplicatesIn(text(version)), version).toEqual([
      `error $.${path} ${later === one ? 2 : 3}:${column}`,
    ])
  }
})

test('a header is deleted through a config between', () => {
  const config = (...httpHeaders: { name: string; value?: string }[]): IgnitionConfig => ({
    ignition: { version: '3.6.0' },
    storage: { files: [{ path: '/a', contents: { source: 'http://h/', httpHeaders } }] },
  })
  const between = mergeIgnition(config(), config({ name: 'A' }))
  const whole = mergeIgnition(config({ name: 'A', value: '1' }, { name: 'B', value: '2' }), between)
  expect(whole.storage?.files?.[0]?.contents?.httpHeaders).toEqual([{ name: 'B', value: '2' }])
})

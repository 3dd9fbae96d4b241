import { expect, test } from 'vitest'
import { buildCatalog, explainSelection, type SourceFile, selectGroup } from './catalog.ts'
import { labelsOf } from './labels.ts'

const profiles: SourceFile[] = [{ file: 'profiles/p.json', text: '{"id":"p"}' }]
const group = (id: string, selector?: Record<string, string>): SourceFile => ({
  file: `groups/${id}.json`,
  text: JSON.stringify({ id, profile: 'p', selector }),
})
const catalogOf = (...groups: SourceFile[]) => buildCatalog({ groups, profiles })
const pick = (catalog: ReturnType<typeof catalogOf>, query: string): string | undefined =>
  selectGroup(catalog, labelsOf(new URLSearchParams(query)))?.id

test('more selectors win over fewer, a group without selectors is the default', () => {
  const catalog = catalogOf(
    group('default'),
    group('one', { mac: '52:54:00:00:00:01' }),
    group('two', { mac: '52:54:00:00:00:01', os: 'installed' }),
  )
  expect(pick(catalog, 'mac=52:54:00:00:00:01&os=installed')).toBe('two')
  expect(pick(catalog, 'mac=52:54:00:00:00:01')).toBe('one')
  expect(pick(catalog, 'mac=52:54:00:00:00:02&os=installed')).toBe('default')
  expect(pick(catalog, '')).toBe('default')
})

test('between equally many selectors the highest sorted string wins, also across index buckets', () => {
  const catalog = catalogOf(
    group('by-mac', { mac: '52:54:00:00:00:01' }),
    group('by-uuid', { uuid: 'ABC' }),
    group('by-region', { region: 'west' }),
  )
  const all = 'mac=52-54-00-00-00-01&uuid=abc&region=west'
  expect(pick(catalog, all)).toBe('by-uuid')
  expect(pick(catalog, 'mac=52-54-00-00-00-01&region=west')).toBe('by-region')
  expect(pick(catalog, 'mac=52-54-00-00-00-01&extra=x')).toBe('by-mac')
})

test('a MAC matches in every common form, on both sides', () => {
  const catalog = catalogOf(group('g', { mac: '52-54-00-AB-CD-EF' }))
  for (const form of ['52:54:00:ab:cd:ef', '52-54-00-ab-cd-ef', '5254.00ab.cdef', '525400ABCDEF']) {
    expect(pick(catalog, `mac=${form}`)).toBe('g')
  }
  expect(pick(catalog, 'mac=nonsense')).toBeUndefined()
})

test('a UUID matches whatever its case, other labels only exactly', () => {
  const catalog = catalogOf(group('u', { uuid: '4B494C4E-0000' }), group('s', { serial: 'aB' }))
  expect(pick(catalog, 'uuid=4b494c4e-0000')).toBe('u')
  expect(pick(catalog, 'serial=aB')).toBe('s')
  expect(pick(catalog, 'serial=ab')).toBeUndefined()
})

test('an empty selector matches a machine that does not send the label', () => {
  const catalog = catalogOf(group('none', { os: '' }))
  expect(pick(catalog, 'mac=52:54:00:00:00:01')).toBe('none')
  expect(pick(catalog, 'os=')).toBe('none')
  expect(pick(catalog, 'os=installed')).toBeUndefined()
})

test('the first of repeated labels wins and label names keep their case', () => {
  const catalog = catalogOf(group('g', { a: '1' }))
  expect(pick(catalog, 'a=1&a=2')).toBe('g')
  expect(pick(catalog, 'a=2&a=1')).toBeUndefined()
  expect(pick(catalog, 'A=1')).toBeUndefined()
})

test('bad files are left out and named with what is wrong', () => {
  const catalog = catalogOf(
    { file: 'groups/syntax.json', text: '{"id": ' },
    { file: 'groups/mac.json', text: '{"id":"m","profile":"p","selector":{"mac":"xx"}}' },
    { file: 'groups/profile.json', text: '{"id":"q","profile":"gone"}' },
    { file: 'groups/lost.json', unreadable: 'cannot be read: EACCES' },
    { file: 'groups/kiln.json', text: '{"id":"k","profile":"p","metadata":{"kiln":{"role":"boss"}}}' },
    group('twice'),
    { ...group('twice'), file: 'groups/again.json' },
  )
  expect(catalog.groups.map((one) => one.id).sort()).toEqual(['q', 'twice'])
  expect(catalog.problems.map((problem) => problem.file)).toEqual([
    'groups/syntax.json',
    'groups/mac.json',
    'groups/profile.json',
    'groups/lost.json',
    'groups/kiln.json',
    'groups/again.json',
  ])
  expect(catalog.problems[4]?.message).toMatch(/metadata\.kiln\.role/)
})

test('the explanation names the selector that decided', () => {
  const catalog = catalogOf(group('default'), group('west', { region: 'west' }))
  expect(explainSelection(catalog, labelsOf(new URLSearchParams('region=east')))).toEqual([
    { group: 'west', matches: false, because: 'region is east, the group wants west' },
    { group: 'default', matches: true, because: 'default group, no selectors' },
  ])
})

test('a thousand groups are looked up by MAC without looking at each', () => {
  const groups = Array.from({ length: 1000 }, (_, i) =>
    group(`g${i}`, { mac: `525400${i.toString(16).padStart(6, '0')}` }),
  )
  const catalog = catalogOf(...groups, group('default'))
  expect(catalog.index.others).toHaveLength(1)
  expect(pick(catalog, 'mac=52:54:00:00:03:e7')).toBe('g999')
})

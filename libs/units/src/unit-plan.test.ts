import { expect, test } from 'vitest'
import { installSection, parseUnit } from './unit-file.ts'
import { expandInstallName, parseUnitName, templateOf } from './unit-name.ts'
import { describeUnitAction, type InstalledUnits, planUnits, type UnitSpec } from './unit-plan.ts'

const nothing: InstalledUnits = { texts: () => [], enabledBy: () => [], masked: () => false }
const service = (install: string): string => `[Service]\nExecStart=/bin/true\n\n[Install]\n${install}\n`

function plan(units: UnitSpec[], installed: Partial<InstalledUnits> = {}): string[] {
  const { actions, warnings } = planUnits(units, { ...nothing, ...installed })
  const presets = actions.flatMap((action) =>
    action.kind === 'write' && action.path.endsWith('.preset') ? action.contents.trimEnd().split('\n') : [],
  )
  return [
    ...actions.map(describeUnitAction),
    ...presets.map((line) => `preset: ${line}`),
    ...warnings.map((warning) => `warning: ${warning}`),
  ]
}

test('an enabled unit gets its file, a preset line and the links of systemctl enable', () => {
  const contents = service('WantedBy=multi-user.target\nRequiredBy=other.service\nAlias=nick.service')
  expect(plan([{ name: 'a.service', enabled: true, contents }])).toEqual([
    `write /etc/systemd/system/a.service (${contents.length} characters)`,
    'write /etc/systemd/system-preset/20-ignition.preset (17 characters)',
    'link /etc/systemd/system/multi-user.target.wants/a.service -> /etc/systemd/system/a.service',
    'link /etc/systemd/system/other.service.requires/a.service -> /etc/systemd/system/a.service',
    'link /etc/systemd/system/nick.service -> /etc/systemd/system/a.service',
    'preset: enable a.service',
  ])
})

test('Also enables its units, and units that name each other end', () => {
  const texts = (name: string): string[] => {
    if (name === 'a.service') return [service('WantedBy=multi-user.target\nAlso=a.socket')]
    return name === 'a.socket' ? [service('WantedBy=sockets.target\nAlso=a.service')] : []
  }
  expect(
    plan([{ name: 'a.service', enabled: true }], { texts }).filter((line) => line.startsWith('link')),
  ).toEqual([
    'link /etc/systemd/system/multi-user.target.wants/a.service -> /usr/lib/systemd/system/a.service',
    'link /etc/systemd/system/sockets.target.wants/a.socket -> /usr/lib/systemd/system/a.socket',
  ])
})

test('instances share one preset line and link to their template', () => {
  const units = [
    { name: 'w@.service', contents: service('WantedBy=%p.target') },
    { name: 'w@b.service', enabled: true },
    { name: 'w@a.service', enabled: true },
  ]
  expect(plan(units).slice(2)).toEqual([
    'link /etc/systemd/system/w.target.wants/w@b.service -> /etc/systemd/system/w@.service',
    'link /etc/systemd/system/w.target.wants/w@a.service -> /etc/systemd/system/w@.service',
    'preset: enable w@.service b a',
  ])
})

test('a template is enabled through its default instance', () => {
  const contents = service('WantedBy=multi-user.target\nDefaultInstance=one')
  expect(plan([{ name: 'w@.service', enabled: true, contents }])).toContain(
    'link /etc/systemd/system/multi-user.target.wants/w@one.service -> /etc/systemd/system/w@.service',
  )
})

test('a masked unit is a link to /dev/null, and unmasking removes only that', () => {
  expect(plan([{ name: 'a.service', mask: true }])).toEqual([
    'link /etc/systemd/system/a.service -> /dev/null',
  ])
  expect(plan([{ name: 'a.service', mask: false }])).toEqual([])
  expect(plan([{ name: 'a.service', mask: false }], { masked: () => true })).toEqual([
    'remove /etc/systemd/system/a.service',
  ])
})

test('disabling removes the links that are there', () => {
  const link = '/etc/systemd/system/multi-user.target.wants/a.service'
  expect(plan([{ name: 'a.service', enabled: false }], { enabledBy: () => [link] })).toEqual([
    `remove ${link}`,
    'write /etc/systemd/system-preset/20-ignition.preset (18 characters)',
    'preset: disable a.service',
  ])
  expect(plan([{ name: 'a.service', enabled: false }])).toEqual([])
})

test('a unit without contents and a drop-in without any are not written', () => {
  const dropins = [{ name: '10.conf', contents: '[Service]\nNice=5\n' }, { name: '20.conf' }]
  expect(plan([{ name: 'a.service', contents: '', dropins }])).toEqual([
    'write /etc/systemd/system/a.service.d/10.conf (17 characters)',
  ])
})

test('enabling what does not exist or has no [Install] is warned about', () => {
  expect(plan([{ name: 'a.service', enabled: true }]).at(-1)).toMatch(
    /warning: unit a.service .* does not exist/,
  )
  const contents = '[Service]\nExecStart=/bin/true\n'
  expect(plan([{ name: 'a.service', enabled: true, contents }]).at(-1)).toMatch(/has no \[Install\] section/)
})

test('a unit file is read with comments, continuation lines and resets', () => {
  const text =
    '# note\n[Install]\nWantedBy=a.target \\\n  # in between\n  b.target\nAlias=x.service\nAlias=\n'
  expect(installSection([text])).toMatchObject({ wantedBy: ['a.target', 'b.target'], alias: [] })
  expect(installSection(['[Unit]\nDescription=x\n'])).toBeUndefined()
})

test.each([
  ['[Unit', 'unable to find end of section'],
  ['Key=1', 'missing section header'],
  ['[Unit]\nnonsense', 'line 2 is not an assignment'],
  ['[Unit] x', 'found garbage after section name Unit'],
])('%j is no unit file', (text, reason) => {
  expect(parseUnit(text)).toEqual({ ok: false, reason })
})

test('names fall into their parts', () => {
  expect(parseUnitName('getty@tty1.service')).toEqual({
    prefix: 'getty',
    instance: 'tty1',
    template: false,
    extension: 'service',
  })
  expect(templateOf('getty@tty1.service')).toBe('getty@.service')
  expect(templateOf('getty@.service')).toBeUndefined()
  expect(expandInstallName('x-%i-%p-%N.target %%', 'a-b@c.service')).toBe('x-c-a-b-a-b@c.target %')
})

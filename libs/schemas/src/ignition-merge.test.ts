import { expect, test } from 'vitest'
import type { IgnitionConfig } from './ignition.ts'
import { mergeIgnition } from './ignition-merge.ts'

const config = (rest: Omit<IgnitionConfig, 'ignition'>): IgnitionConfig => ({
  ignition: { version: '3.4.0' },
  ...rest,
})

test('the child wins field by field and the parent keeps what the child leaves open', () => {
  const parent = config({
    storage: { files: [{ path: '/a', mode: 0o600, contents: { source: 'data:,1' } }] },
  })
  const child = config({ storage: { files: [{ path: '/a', contents: { source: 'data:,2' } }] } })
  expect(mergeIgnition(parent, child).storage?.files).toEqual([
    { path: '/a', mode: 0o600, contents: { source: 'data:,2' } },
  ])
})

test('keyed lists keep the order of the parent, new entries follow', () => {
  const units = (...names: string[]) => config({ systemd: { units: names.map((name) => ({ name })) } })
  const merged = mergeIgnition(units('a.service', 'b.service'), units('c.service', 'a.service'))
  expect(merged.systemd?.units?.map(({ name }) => name)).toEqual(['a.service', 'b.service', 'c.service'])
})

test('a path that the child declares as another kind replaces the one of the parent', () => {
  const parent = config({ storage: { files: [{ path: '/a' }, { path: '/b' }] } })
  const child = config({ storage: { links: [{ path: '/a', target: '/x' }] } })
  expect(mergeIgnition(parent, child).storage).toEqual({
    files: [{ path: '/b' }],
    links: [{ path: '/a', target: '/x' }],
  })
})

test('lists without keys are concatenated', () => {
  const parent = config({ storage: { files: [{ path: '/a', append: [{ source: 'data:,1' }] }] } })
  const child = config({ storage: { files: [{ path: '/a', append: [{ source: 'data:,2' }] }] } })
  expect(mergeIgnition(parent, child).storage?.files?.[0]?.append).toEqual([
    { source: 'data:,1' },
    { source: 'data:,2' },
  ])
})

test('a header without value deletes the one of the parent', () => {
  const file = (httpHeaders: { name: string; value?: string }[]) =>
    config({ storage: { files: [{ path: '/a', contents: { source: 'http://x/', httpHeaders } }] } })
  const merged = mergeIgnition(
    file([
      { name: 'A', value: '1' },
      { name: 'B', value: '2' },
    ]),
    file([{ name: 'A' }, { name: 'C', value: '3' }]),
  )
  expect(merged.storage?.files?.[0]?.contents?.httpHeaders).toEqual([
    { name: 'B', value: '2' },
    { name: 'C', value: '3' },
  ])
})

test('partitions merge by number, or by label where the number is 0', () => {
  const disk = (partitions: object[]) =>
    config({ storage: { disks: [{ device: '/dev/a', partitions }] } } as Omit<IgnitionConfig, 'ignition'>)
  const merged = mergeIgnition(
    disk([
      { number: 1, label: 'x', sizeMiB: 1 },
      { label: 'y', sizeMiB: 2 },
    ]),
    disk([
      { number: 1, sizeMiB: 3 },
      { label: 'y', sizeMiB: 4 },
    ]),
  )
  expect(merged.storage?.disks?.[0]?.partitions).toEqual([
    { number: 1, label: 'x', sizeMiB: 3 },
    { label: 'y', sizeMiB: 4 },
  ])
})

test('ssh keys are a set', () => {
  const user = (...sshAuthorizedKeys: string[]) =>
    config({ passwd: { users: [{ name: 'a', sshAuthorizedKeys }] } })
  expect(mergeIgnition(user('1', '2'), user('2', '3')).passwd?.users?.[0]?.sshAuthorizedKeys).toEqual([
    '1',
    '2',
    '3',
  ])
})

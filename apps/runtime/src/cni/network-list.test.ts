import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { bundledBridge } from './bundled-networks.ts'
import { findNetwork, parseNetwork, readNetworks } from './network-list.ts'

const list = (name: string): object => ({ cniVersion: '1.0.0', name, plugins: [{ type: 'ptp' }] })

function folderOf(files: Record<string, string | object>): string {
  const folder = mkdtempSync(join(tmpdir(), 'kiln-networks-'))
  for (const [name, content] of Object.entries(files))
    writeFileSync(join(folder, name), typeof content === 'string' ? content : JSON.stringify(content))
  return folder
}

test('lists and single plug-ins are networks, and other files are not read', async () => {
  const folder = folderOf({
    '10-a.conflist': list('a'),
    '20-b.conf': { cniVersion: '0.4.0', name: 'b', type: 'macvlan', master: 'eth1' },
    '30-c.json': { cniVersion: '0.4.0', name: 'c', type: 'ptp' },
    'notes.txt': 'no network',
  })
  const { networks, problems } = await readNetworks(folder)
  expect(problems).toEqual([])
  expect([...networks.keys()]).toEqual(['a', 'b', 'c'])
  expect(networks.get('b')).toEqual({
    cniVersion: '0.4.0',
    name: 'b',
    plugins: [{ type: 'macvlan', master: 'eth1' }],
  })
})

test('what is wrong with a file is said of that file, and the others count', async () => {
  const folder = folderOf({
    '1.conflist': list('a'),
    '2.conflist': '{',
    '3.conflist': list('a'),
    '4.conf': list('d'),
  })
  const all = await readNetworks(folder)
  expect([...all.networks.keys()]).toEqual(['a'])
  expect(all.problems.map(({ file, message }) => `${file.slice(-10)} ${message}`)).toEqual([
    expect.stringContaining('2.conflist is not JSON'),
    '3.conflist another file has the network a already',
    expect.stringContaining('4.conf has plugins, so its name must end in .conflist'),
  ])
  expect(() => findNetwork('d', all)).toThrow(
    /no network d, only a; .*2\.conflist is not JSON.*4\.conf has plugins/,
  )
})

test('a folder that is not there has no networks, and one that is too full says so', async () => {
  expect(await readNetworks('/nonexistent')).toMatchObject({ problems: [] })
  const many = Object.fromEntries(
    Array.from({ length: 66 }, (_, n) => [`${100 + n}.conflist`, list(`n${n}`)]),
  )
  const { networks, problems } = await readNetworks(
    folderOf({ ...many, '000.conflist': ' '.repeat(300_000) }),
  )
  expect(networks.size).toBe(63)
  expect(problems.map(({ message }) => message)).toEqual([
    'is more than the 64 files that are read',
    'is more than the 64 files that are read',
    'is more than the 64 files that are read',
    'is larger than 262144 bytes',
  ])
})

test.each([
  ['[]', 'is no JSON object'],
  ['{"name":"a","plugins":[{"type":"ptp"}]}', 'cniVersion: must be one of 0.3.0, 0.3.1, 0.4.0, 1.0.0'],
  ['{"cniVersion":"2.0.0","name":"a","plugins":[{"type":"ptp"}]}', 'cniVersion: must be one of'],
  ['{"cniVersion":"1.0.0","name":"../a","plugins":[{"type":"ptp"}]}', 'name: is no name of a network'],
  [
    '{"cniVersion":"1.0.0","name":"none","plugins":[{"type":"ptp"}]}',
    'name: is what pods without networks ask for',
  ],
  ['{"cniVersion":"1.0.0","name":"a","plugins":[]}', 'plugins: '],
  [
    '{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"../../bin/sh"}]}',
    'plugins.0.type: is no name of a plug-in',
  ],
])('the network %s is refused', (text, problem) => {
  expect(parseNetwork(text, true)).toEqual({ problem: expect.stringContaining(problem) })
})

test('the network that comes with the program is one that a file could have', () => {
  const { list: bridge, gateway } = bundledBridge({
    firstOctets: '10.89',
    machineAddress: '10.77.0.11',
    leasesDir: '/leases',
  })
  expect(parseNetwork(JSON.stringify(bridge), true)).toEqual({ network: bridge })
  expect(gateway).toBe('10.89.11.1')
})

import { expect, test } from 'vitest'
import { Group } from './groups.ts'
import { normaliseMac } from './network-names.ts'

test('addresses and names of a group are found by MAC in any form', () => {
  const group = Group.parse({
    id: 'g',
    profile: 'p',
    metadata: {
      kiln: { addresses: { '52-54-00-4B-00-01': '10.77.0.11' }, names: { '5254.004b.0001': 'node1' } },
      other: 1,
    },
  })
  expect(group.metadata?.kiln).toMatchObject({
    role: 'worker',
    addresses: { '52:54:00:4b:00:01': '10.77.0.11' },
    names: { '52:54:00:4b:00:01': 'node1' },
    clusterInterface: 'eth1',
    prefixLength: 24,
  })
  expect(group.metadata).toHaveProperty('other', 1)
})

test('a group with a bad MAC, address or unknown setting is refused', () => {
  const kiln = (value: object) =>
    Group.safeParse({ id: 'g', profile: 'p', metadata: { kiln: value } }).success
  expect(kiln({ addresses: { nonsense: '10.77.0.11' } })).toBe(false)
  expect(kiln({ addresses: { '52:54:00:4b:00:01': '10.77.0' } })).toBe(false)
  expect(kiln({ adresses: {} })).toBe(false)
})

test('a MAC is twelve hex digits, whatever stands between them', () => {
  expect(normaliseMac('52:54:00:AB:cd:ef')).toBe('52:54:00:ab:cd:ef')
  expect(normaliseMac('52:54:00:ab:cd')).toBeUndefined()
  expect(normaliseMac('52:54:00:ab:cd:eg')).toBeUndefined()
})

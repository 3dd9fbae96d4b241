import { Fault } from '@kiln/service'
import { expect, test } from 'vitest'
import { OverlayConfig, readOverlayConfig, readSubnet, subnetKey } from './overlay-records.ts'
import { chooseSubnet } from './subnet-claim.ts'

const at = { address: '10.77.0.11', reserved: ['10.89.0.0/16'] }
const config = OverlayConfig.parse({ network: '10.244.0.0/16' })

const refused = (settings: unknown): string => {
  try {
    readOverlayConfig(typeof settings === 'string' ? settings : JSON.stringify(settings), at)
  } catch (error) {
    if (error instanceof Fault && error.code === 'OVERLAY_CONFIG_INVALID') return error.message
    throw error
  }
  throw new Error('it is taken')
}

test('settings need a network only, and say what is wrong with them', () => {
  expect(readOverlayConfig('{"network": "10.244.0.0/16"}', at)).toEqual({
    formatVersion: 1,
    network: '10.244.0.0/16',
    subnetLen: 24,
    backend: 'vxlan',
    vni: 1,
    port: 8472,
  })
  expect(refused('no JSON')).toContain('not JSON')
  expect(refused({ network: '10.244.1.0/16' })).toContain('network: must be a block')
  expect(refused({ network: '10.244.0.0/16', backend: 'udp', vni: 0 })).toMatch(/backend: .*; vni: /)
  expect(refused({ network: '10.244.0.0/16', Backend: {} })).toContain('Backend')
  expect(refused({ network: '10.244.0.0/16', subnetLen: 16 })).toContain('subnetLen')
  expect(refused({ network: '10.0.0.0/8', subnetLen: 24 })).toContain('subnetLen')
  expect(refused({ network: '10.77.0.0/16' })).toContain('10.77.0.11 of this machine')
  expect(refused({ network: '10.80.0.0/12' })).toContain('overlaps 10.89.0.0/16')
})

test('an entry of another network, or of a machine within the pods\u2019, is no subnet', () => {
  const text = (record: object): string => JSON.stringify({ formatVersion: 1, machine: 'node1', ...record })
  const key = subnetKey('10.244.5.0/24')
  expect(key).toBe('/kiln/network/subnets/10.244.5.0-24')
  expect(readSubnet(key, text({ address: '10.77.0.12' }), config)?.subnet).toBe('10.244.5.0/24')
  expect(readSubnet(key, text({ address: '10.244.5.1' }), config)).toBeUndefined()
  expect(readSubnet(key, text({ address: '10.77.0.12; reboot' }), config)).toBeUndefined()
  expect(readSubnet(key, text({ address: '10.77.0.12', mac: '01:00:00:00:00:01' }), config)).toBeUndefined()
  for (const other of ['10.245.5.0-24', '10.244.5.0-25', '10.244.5.1-24', '../config', '10.244.5.0-24/x'])
    expect(
      readSubnet(`/kiln/network/subnets/${other}`, text({ address: '10.77.0.12' }), config),
    ).toBeUndefined()
})

test('a machine keeps its subnet if it can, never takes another\u2019s, and finds the last one that is free', () => {
  const choose = (preferred: string[], taken: Iterable<string>): string | undefined =>
    chooseSubnet({ config, machine: 'node1', preferred, taken: new Set(taken) })
  expect(choose(['10.88.11.0/24', '10.244.9.0/24'], [])).toBe('10.244.9.0/24')
  expect(choose(['10.244.9.0/24'], ['10.244.9.0/24'])).not.toBe('10.244.9.0/24')
  const all = Array.from({ length: 255 }, (_, index) => `10.244.${index + 1}.0/24`)
  expect(choose([], all)).toBeUndefined()
  expect(
    choose(
      [],
      all.filter((subnet) => subnet !== '10.244.77.0/24'),
    ),
  ).toBe('10.244.77.0/24')
})

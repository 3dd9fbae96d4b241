import { expect, test } from 'vitest'
import { type OverlayState, overlayCommands, overlayState, vxlanMac } from './overlay-plan.ts'
import { OverlayConfig, type Subnet } from './overlay-records.ts'

const nothing: OverlayState = { devices: [], routes: [], neighbours: [], forwardings: [] }
const uplink = { name: 'eth0', mtu: 1500 }
const machine = (last: number): Subnet => ({
  formatVersion: 1,
  machine: `node${last}`,
  subnet: `10.88.${last}.0/24`,
  address: `10.77.0.${last}`,
  mac: vxlanMac(`node${last}`, 1),
})
const stateOf = (settings: object, peers: Subnet[], own = machine(11)): OverlayState =>
  overlayState({
    config: OverlayConfig.parse({ network: '10.88.0.0/16', ...settings }),
    own,
    peers,
    uplink,
  })

test('a VXLAN device is made with an entry of each kind for each other machine', () => {
  const mac = vxlanMac('node12', 1)
  expect(mac).toMatch(/^02(:[0-9a-f]{2}){5}$/)
  expect(overlayCommands(nothing, stateOf({}, [machine(11), machine(12)]))).toEqual({
    before: [
      `link add kiln.1 address ${vxlanMac('node11', 1)} mtu 1450 type vxlan id 1 local 10.77.0.11 dev eth0 dstport 8472 nolearning`,
      'addr replace 10.88.11.0/32 dev kiln.1',
      'link set kiln.1 up',
      `neigh replace 10.88.12.0 lladdr ${mac} dev kiln.1 nud permanent`,
    ],
    bridge: [`fdb replace ${mac} dev kiln.1 dst 10.77.0.12 self permanent`],
    after: ['route replace 10.88.12.0/24 via 10.88.12.0 dev kiln.1 onlink proto 75 metric 75'],
  })
})

test('what is as it should be is not touched, and what is too much goes', () => {
  const both = stateOf({}, [machine(12), machine(13)])
  expect(overlayCommands(both, both)).toEqual({ before: [], bridge: [], after: [] })
  expect(overlayCommands(both, stateOf({}, [machine(13)]))).toEqual({
    before: [],
    bridge: [`fdb delete ${vxlanMac('node12', 1)} dev kiln.1 dst 10.77.0.12 self`],
    after: ['route delete 10.88.12.0/24 proto 75 metric 75', 'neigh delete 10.88.12.0 dev kiln.1'],
  })
  expect(overlayCommands(both, nothing).after).toContain('link delete kiln.1')
})

test('from VXLAN to routes no traffic is lost: the device goes last', () => {
  const commands = overlayCommands(stateOf({}, [machine(12)]), stateOf({ backend: 'host-gw' }, [machine(12)]))
  expect(commands.after).toEqual([
    'route replace 10.88.12.0/24 via 10.77.0.12 dev eth0 proto 75 metric 75',
    'link delete kiln.1',
  ])
})

test('a device whose tunnel is another one is made anew, with all that it had', () => {
  const { before, bridge, after } = overlayCommands(
    stateOf({}, [machine(12)]),
    stateOf({ port: 4789 }, [machine(12)]),
  )
  expect(before[0]).toBe('link delete kiln.1')
  expect(before[1]).toContain('dstport 4789')
  expect(before.at(-1)).toContain('neigh replace 10.88.12.0')
  expect(bridge).toHaveLength(1)
  expect(after).toHaveLength(1)
})

test('a machine without what the backend needs is left out', () => {
  const { mac: _, ...bare } = machine(12)
  expect(stateOf({}, [bare]).routes).toEqual([])
  expect(stateOf({ backend: 'host-gw' }, [bare]).routes).toHaveLength(1)
})

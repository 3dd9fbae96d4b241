import { expect, test } from 'vitest'
import {
  bridgeCommands,
  freeAddress,
  hostLink,
  linkCommands,
  natRules,
  podCommands,
  podNetworkOf,
} from './network-plan.ts'

const network = podNetworkOf('10.88', '10.77.0.11')

test('the network of a machine follows from its address', () => {
  expect(network).toEqual({
    bridge: 'kiln0',
    subnet: '10.88.11.0/24',
    gateway: '10.88.11.1',
    prefixLength: 24,
  })
  expect(podNetworkOf('10.88', undefined).subnet).toBe('10.88.0.0/24')
})

test('addresses are given from below, and none twice', () => {
  expect(freeAddress(network, [])).toBe('10.88.11.2')
  expect(freeAddress(network, ['10.88.11.2', '10.88.11.4'])).toBe('10.88.11.3')
  const all = Array.from({ length: 253 }, (_, index) => `10.88.11.${index + 2}`)
  expect(freeAddress(network, all)).toBeUndefined()
})

test('a pod is linked to the bridge by a pair of devices whose name the kernel takes', () => {
  const link = hostLink('6f1c3b1e-aaaa-bbbb-cccc-000000000000')
  expect(link.length).toBeLessThanOrEqual(15)
  expect([
    ...bridgeCommands(network),
    ...linkCommands(network, 'kv1', 42),
    ...podCommands(network, '10.88.11.2'),
  ]).toEqual([
    'link add kiln0 type bridge',
    'addr replace 10.88.11.1/24 dev kiln0',
    'link set kiln0 up',
    'link add kv1 type veth peer name eth0 netns 42',
    'link set kv1 master kiln0',
    'link set kv1 up',
    'addr add 10.88.11.2/24 dev eth0',
    'link set eth0 up',
    'route add default via 10.88.11.1',
  ])
})

test('ports of the machine lead to pods, from outside and from the machine itself', () => {
  const rules = natRules(network, [
    {
      address: '10.88.11.2',
      ports: [
        { port: 80, hostPort: 8000, protocol: 'TCP' },
        { port: 81, protocol: 'TCP' },
      ],
    },
    { address: '10.88.11.3', ports: [{ port: 53, hostPort: 53, protocol: 'UDP' }] },
  ])
  expect(rules.match(/tcp dport 8000 dnat to 10\.88\.11\.2:80/g)).toHaveLength(2)
  expect(rules.match(/udp dport 53 dnat to 10\.88\.11\.3:53/g)).toHaveLength(2)
  expect(rules).not.toContain(':81')
  expect(rules).toContain('ip saddr 10.88.11.0/24 oifname != "kiln0" masquerade')
  expect(rules.startsWith('table ip kiln\ndelete table ip kiln\n')).toBe(true)
})

test('between pods of the cluster nothing is masqueraded, and what leaves it is, also from an earlier subnet', () => {
  const rules = natRules({ ...network, cluster: '10.88.0.0/16', earlier: ['10.90.1.0/24'] }, [])
  expect(rules).toContain('ip saddr 10.88.11.0/24 ip daddr != 10.88.0.0/16 oifname != "kiln0" masquerade')
  expect(rules).toContain('ip saddr 10.90.1.0/24 oifname != "kiln0" masquerade')
  expect(linkCommands({ ...network, mtu: 1450 }, 'kv1', 42)[0]).toBe(
    'link add kv1 mtu 1450 type veth peer name eth0 mtu 1450 netns 42',
  )
})

test('a subnet of another length has as many addresses', () => {
  const small = { ...network, subnet: '10.88.11.16/29', gateway: '10.88.11.17', prefixLength: 29 }
  const taken = [18, 19, 20, 21].map((last) => `10.88.11.${last}`)
  expect(freeAddress(small, taken)).toBe('10.88.11.22')
  expect(freeAddress(small, [...taken, '10.88.11.22'])).toBeUndefined()
})

import { createHash } from 'node:crypto'
import { addressNumber, blockHolds, formatAddress, readBlock, sizeOf } from './overlay/ipv4-block.ts'

/** The pods' network of one machine: a bridge of its own, hidden behind the machine's addresses from all but the cluster's pods. */
export type PodNetwork = {
  bridge: string
  subnet: string
  gateway: string
  prefixLength: number
  /** Of pods; the kernel's usual one if undefined. */
  mtu?: number | undefined
  /** The network of all machines' pods, when they reach each other. */
  cluster?: string | undefined
  /** Subnets that pods which began earlier may still have. */
  earlier?: string[]
}

export type PodPort = { port: number; hostPort?: number; protocol: 'TCP' | 'UDP'; name?: string }

/** A pod that the outside reaches through ports of the machine. */
export type PortMapping = { address: string; ports: PodPort[] }

export const bridgeName = 'kiln0'

/** `10.88.<n>.0/24`, n being the last octet of the machine's address, so that traces of two machines tell apart. */
export function podNetworkOf(firstOctets: string, machineAddress: string | undefined): PodNetwork {
  const third = machineAddress?.split('.')[3] ?? '0'
  const prefix = `${firstOctets}.${third}`
  return { bridge: bridgeName, subnet: `${prefix}.0/24`, gateway: `${prefix}.1`, prefixLength: 24 }
}

/** The lowest address that no pod has; undefined when there is none. */
export function freeAddress(network: PodNetwork, taken: Iterable<string>): string | undefined {
  const used = new Set(taken)
  const { first, length } = readBlock(network.subnet)!
  // The first is the network's, the second the gateway's, the last the broadcast's.
  for (let place = 2; place < sizeOf(length) - 1; place++) {
    const address = formatAddress(first + place)
    if (!used.has(address)) return address
  }
  return undefined
}

/** Whether an address is one of the network's, as it is now. */
export const isOfNetwork = ({ subnet }: PodNetwork, address: string): boolean => {
  const number = addressNumber(address)
  return number !== undefined && blockHolds(readBlock(subnet)!, number)
}

/** Name of the host's end of a pod's link; at most 15 characters. */
export const hostLink = (podUid: string): string =>
  `kv${createHash('sha256').update(podUid).digest('hex').slice(0, 10)}`

/** Lines for `ip -batch`, run in the host's namespace: the bridge. Safe to repeat with `-force`. */
export function bridgeCommands(network: PodNetwork): string[] {
  return [
    `link add ${network.bridge} type bridge`,
    `addr replace ${network.gateway}/${network.prefixLength} dev ${network.bridge}`,
    `link set ${network.bridge} up`,
  ]
}

/** Lines for `ip -batch`: a pair of devices, one end in the namespace of a process. */
export function linkCommands(network: PodNetwork, link: string, sandboxPid: number): string[] {
  const mtu = network.mtu === undefined ? '' : ` mtu ${network.mtu}`
  return [
    `link add ${link}${mtu} type veth peer name eth0${mtu} netns ${sandboxPid}`,
    `link set ${link} master ${network.bridge}`,
    `link set ${link} up`,
  ]
}

/** Lines for `ip -batch` within the pod's namespace. */
export function podCommands(network: PodNetwork, address: string): string[] {
  return [
    `addr add ${address}/${network.prefixLength} dev eth0`,
    'link set eth0 up',
    `route add default via ${network.gateway}`,
  ]
}

/**
 * The whole nftables table, replaced in one transaction: ports of the machine lead to pods, and pods leave under the
 * machine's address. Loopback destinations are left out: they would need routing of 127/8 beyond the machine.
 */
export function natRules(network: PodNetwork, mappings: PortMapping[]): string {
  const targets = mappings.flatMap(({ address, ports }) =>
    ports.flatMap(({ port, hostPort, protocol }) =>
      hostPort === undefined
        ? []
        : [
            `fib daddr type local ip daddr != 127.0.0.0/8 ${protocol.toLowerCase()} dport ${hostPort} dnat to ${address}:${port}`,
          ],
    ),
  )
  const earlier = (network.earlier ?? []).flatMap((subnet) => [
    `ip saddr ${subnet} oifname != "${network.bridge}" masquerade`,
    `ip saddr ${subnet} ip daddr ${subnet} ct status dnat masquerade`,
  ])
  const lines = (rules: string[]): string => rules.map((rule) => `    ${rule}\n`).join('')
  return `table ip kiln
delete table ip kiln
table ip kiln {
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
${lines(targets)}  }
  chain output {
    type nat hook output priority -100; policy accept;
${lines(targets)}  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr ${network.subnet}${network.cluster ? ` ip daddr != ${network.cluster}` : ''} oifname != "${network.bridge}" masquerade
    ip saddr ${network.subnet} ip daddr ${network.subnet} ct status dnat masquerade
${lines(earlier)}  }
}
`
}

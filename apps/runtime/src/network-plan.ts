import { createHash } from 'node:crypto'

/** The pods' network of one machine: a bridge of its own, hidden behind the machine's addresses. */
export type PodNetwork = { bridge: string; subnet: string; gateway: string; prefixLength: number }

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
  const prefix = network.gateway.replace(/\.\d+$/, '')
  for (let last = 2; last <= 254; last++) {
    if (!used.has(`${prefix}.${last}`)) return `${prefix}.${last}`
  }
  return undefined
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
  return [
    `link add ${link} type veth peer name eth0 netns ${sandboxPid}`,
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
    ip saddr ${network.subnet} oifname != "${network.bridge}" masquerade
    ip saddr ${network.subnet} ip daddr ${network.subnet} ct status dnat masquerade
  }
}
`
}

import type { NetworkList } from './network-list.ts'

/** A network and the IPv4 address that the machine has in it. */
export type BundledNetwork = { list: NetworkList; gateway: string }

/**
 * The network `bridge` that is there without a file: IPv4 and IPv6 behind the machine's addresses. As with the built-in one, the
 * last octet of the machine's address tells the networks of two machines apart. Leases are kept in `leasesDir`.
 */
export function bundledBridge(at: {
  firstOctets: string
  machineAddress: string | undefined
  leasesDir: string
}): BundledNetwork {
  const machine = Number(at.machineAddress?.split('.')[3] ?? 0)
  const prefix = `${at.firstOctets}.${machine}`
  // A unique local prefix (RFC 4193) that spells kiln.
  const ula = `fd6b:696c:6e00:${machine.toString(16)}::`
  const gateway = `${prefix}.1`
  const list: NetworkList = {
    cniVersion: '1.0.0',
    name: 'bridge',
    plugins: [
      {
        type: 'bridge',
        bridge: 'kiln-cni0',
        isGateway: true,
        ipMasq: true,
        hairpinMode: true,
        ipam: {
          type: 'host-local',
          dataDir: at.leasesDir,
          ranges: [[{ subnet: `${prefix}.0/24`, gateway }], [{ subnet: `${ula}/64`, gateway: `${ula}1` }]],
          routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }],
        },
        capabilities: { ips: true, mac: true },
      },
      { type: 'portmap', capabilities: { portMappings: true }, snat: true },
      { type: 'firewall', backend: 'iptables' },
    ],
  }
  return { list, gateway }
}

import type { EnrolmentTicket, KilnGroup, MachineFacts } from '@kiln/schemas'

export type MachineConfigInput = {
  facts: MachineFacts
  /** MAC of the interface the machine boots from. */
  mac: string
  group: KilnGroup
  /** The profile's own config, byte for byte; the agent reports problems in it by line and column. */
  profileConfig: string | undefined
  /** Only for a machine that is being installed. */
  ticket: EnrolmentTicket | undefined
  kvEnvironment: string | undefined
  /** File name -> public key in PEM. */
  releaseKeys: ReadonlyMap<string, string>
}

/** What `/ignition` answers for a Kiln machine: the machine's own files, with the profile's config merged over them. */
export function machineConfig(input: MachineConfigInput): object {
  const { facts } = input
  const files = [
    file('/etc/kiln/machine.json', 0o644, `${JSON.stringify(facts, undefined, 2)}\n`),
    file('/etc/hostname', 0o644, `${facts.name}\n`),
    file('/etc/systemd/network/10-kiln-boot.network', 0o644, bootNetwork(input)),
  ]
  if (input.ticket) files.push(file('/etc/kiln/enrol.json', 0o600, `${JSON.stringify(input.ticket)}\n`))
  if (input.kvEnvironment) files.push(file('/etc/kiln/kv.env', 0o644, input.kvEnvironment))
  if (!['none', 'boot'].includes(input.group.clusterInterface)) {
    const network = clusterNetwork(facts.address, input.mac, input.group)
    files.push(file('/etc/systemd/network/20-kiln-cluster.network', 0o644, network))
  }
  for (const [name, pem] of [...input.releaseKeys].sort()) {
    files.push(file(`/etc/kiln/release-keys/${name}`, 0o644, pem))
  }
  const merge =
    input.profileConfig === undefined ? [] : [{ source: dataUrl(input.profileConfig, 'application/json') }]
  return {
    ignition: { version: '3.4.0', ...(merge.length > 0 ? { config: { merge } } : {}) },
    storage: { files },
  }
}

/** NIC 0 gets its address again from the network it booted from, and the cluster's when there is no other NIC. */
function bootNetwork({ mac, group, facts }: MachineConfigInput): string {
  const address: Record<string, string> =
    group.clusterInterface === 'boot' ? { Address: `${facts.address}/${group.prefixLength}` } : {}
  return unit({
    Match: { MACAddress: mac },
    Network: { DHCP: 'ipv4', ...address, IPv6AcceptRA: 'no', LinkLocalAddressing: 'no' },
    DHCPv4: { ClientIdentifier: 'mac', UseHostname: 'no' },
  })
}

function clusterNetwork(address: string, mac: string, group: KilnGroup): string {
  const clusterMac = group.clusterMacs[mac]
  return unit({
    Match: clusterMac ? { MACAddress: clusterMac } : { Name: group.clusterInterface },
    Network: {
      Address: `${address}/${group.prefixLength}`,
      IPv6AcceptRA: 'no',
      LinkLocalAddressing: 'no',
    },
  })
}

function unit(sections: Record<string, Record<string, string>>): string {
  return Object.entries(sections)
    .map(([name, keys]) => [`[${name}]`, ...Object.entries(keys).map(([k, v]) => `${k}=${v}`)].join('\n'))
    .join('\n\n')
    .concat('\n')
}

const file = (path: string, mode: number, content: string): object => ({
  path,
  mode,
  overwrite: true,
  contents: { source: dataUrl(content, '') },
})

const dataUrl = (content: string, type: string): string =>
  `data:${type};base64,${Buffer.from(content, 'utf8').toString('base64')}`

import type { ProcessId } from '@kiln/linux'
import { Fault } from '@kiln/service'
import type { CniNetworks, PodConnection } from './cni/pod-networks.ts'
import type { Network } from './network.ts'
import type { PodRecord } from './pod-record.ts'
import { portsOf } from './pod-status.ts'

/** Connects a sandbox to all its networks. The built-in bridge comes first: it is `eth0`. */
export async function connectSandbox(
  record: PodRecord,
  sandbox: ProcessId,
  machine: { network: Network; cni?: CniNetworks | undefined; podGateway: string | undefined },
): Promise<PodConnection> {
  const { manifest, uid, generation, networks, address } = record
  const connection: PodConnection = { addresses: [], gateways: [], nameservers: [] }
  const builtIn = networks?.builtIn ?? !manifest.spec.hostNetwork
  if (builtIn && address !== undefined) {
    await machine.network.connect({ uid, address, sandboxPid: sandbox.pid })
    connection.addresses.push(address)
    if (machine.podGateway !== undefined) connection.gateways.push(machine.podGateway)
  }
  if (!networks || networks.cni.length === 0) return connection
  if (!machine.cni) throw new Fault('POD_NETWORK_FAILED', 'this machine runs no CNI plug-ins')
  const made = await machine.cni.connect({
    uid,
    name: manifest.metadata.name,
    namespace: manifest.metadata.namespace,
    generation,
    sandbox,
    networks: networks.cni,
    ports: builtIn ? [] : portsOf(manifest),
  })
  return {
    addresses: [...connection.addresses, ...made.addresses],
    gateways: [...connection.gateways, ...made.gateways],
    nameservers: made.nameservers,
  }
}

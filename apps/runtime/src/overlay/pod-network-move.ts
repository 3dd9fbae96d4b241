import { readFileSync } from 'node:fs'
import { atomicWrite } from '@kiln/service'
import * as z from 'zod'
import type { PodNetwork } from '../network-plan.ts'
import { formatAddress, readBlock } from './ipv4-block.ts'

/** What this machine has of the network between machines. */
export type ClusterNetwork = {
  subnet: string
  /** That of all machines. */
  network: string
  mtu: number
}

/** Of older subnets so many are still masqueraded. */
const earlierMax = 8

const block = z.string().refine((text) => readBlock(text) !== undefined)
const Remembered = z.strictObject({
  formatVersion: z.literal(1),
  subnet: block,
  network: block.optional(),
  mtu: z.number().int().positive().optional(),
  earlier: z.array(block).max(earlierMax),
})

/**
 * Takes the built-in network to a machine's subnet in place, so that all who have it see it; without a subnet it stays where
 * it is, on its own. Pods that run keep their addresses, and are masqueraded.
 */
export function movePodNetwork(network: PodNetwork, to: ClusterNetwork | undefined): void {
  if (to && to.subnet !== network.subnet) {
    const { first, length } = readBlock(to.subnet)!
    const earlier = [...new Set([network.subnet, ...(network.earlier ?? [])])]
    network.earlier = earlier.filter((subnet) => subnet !== to.subnet).slice(0, earlierMax)
    network.subnet = to.subnet
    network.gateway = formatAddress(first + 1)
    network.prefixLength = length
  }
  network.cluster = to?.network
  network.mtu = to?.mtu
}

/** The built-in network as the last daemon had it among others, and else as it is on its own. A file that is damaged counts as none. */
export function rememberedPodNetwork(file: string, own: PodNetwork): PodNetwork {
  const network = { ...own }
  try {
    const {
      subnet,
      network: cluster,
      mtu,
      earlier,
    } = Remembered.parse(JSON.parse(readFileSync(file, 'utf8')))
    if (cluster !== undefined && mtu !== undefined) movePodNetwork(network, { subnet, network: cluster, mtu })
    network.earlier = [...new Set([subnet, ...earlier])].filter((each) => each !== network.subnet)
    network.earlier.splice(earlierMax)
  } catch {
    return { ...own }
  }
  return network
}

export async function rememberPodNetwork(file: string, network: PodNetwork): Promise<void> {
  const { subnet, cluster, mtu, earlier = [] } = network
  const remembered = { formatVersion: 1, subnet, network: cluster, mtu, earlier }
  await atomicWrite(file, `${JSON.stringify(remembered)}\n`, { mode: 0o600 })
}

/**
 * What flannel tells the CNI plug-in of its name. FLANNEL_IPMASQ says that masquerading is done already: by the rules of
 * the built-in network, which know the cluster's.
 */
export const subnetEnv = ({ subnet, network, mtu }: ClusterNetwork): string => {
  const { first, length } = readBlock(subnet)!
  return `FLANNEL_NETWORK=${network}
FLANNEL_SUBNET=${formatAddress(first + 1)}/${length}
FLANNEL_MTU=${mtu}
FLANNEL_IPMASQ=true
`
}

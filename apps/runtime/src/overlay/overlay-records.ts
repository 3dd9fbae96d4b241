import { HostName, storeKeys } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import * as z from 'zod'
import { addressNumber, blockHolds, blocksOverlap, formatBlock, readBlock } from './ipv4-block.ts'

/** So many machines have subnets; it bounds what one store can make a machine do. */
const subnetBitsMax = 12

/** `/kiln/network/config`: the pods' network of the cluster, a subnet of it for each machine. */
export const OverlayConfig = z.strictObject({
  formatVersion: z.literal(1).default(1),
  network: z
    .string()
    .refine((text) => readBlock(text) !== undefined, 'must be a block such as 10.244.0.0/16'),
  /** Length of a machine's prefix. */
  subnetLen: z.number().int().min(16).max(28).default(24),
  /** `host-gw`: routes through the machines' addresses, which must be on one link. */
  backend: z.enum(['vxlan', 'host-gw']).default('vxlan'),
  vni: z.number().int().min(1).max(0xffffff).default(1),
  port: z.number().int().min(1).max(65535).default(8472),
})
export type OverlayConfig = z.output<typeof OverlayConfig>

/** `/kiln/network/subnets/<first address>-<length>`, under a lease of a day: whose the subnet is. */
export const SubnetRecord = z.looseObject({
  formatVersion: z.literal(1),
  machine: HostName,
  /** Where the machine is reached by the others. */
  address: z.ipv4(),
  /** Of its VXLAN device. */
  mac: z
    .string()
    .regex(/^[0-9a-f][26ae](:[0-9a-f]{2}){5}$/)
    .optional(),
})
export type SubnetRecord = z.output<typeof SubnetRecord>

/** A subnet and its machine. */
export type Subnet = SubnetRecord & { subnet: string }

/**
 * Reads the settings of the network between machines. `reserved` are blocks that pods of this machine have otherwise.
 * @throws Fault `OVERLAY_CONFIG_INVALID`, which names every field that is wrong
 */
export function readOverlayConfig(
  text: string,
  at: { address: string; reserved: readonly string[] },
): OverlayConfig {
  const problems: string[] = []
  let config: OverlayConfig | undefined
  try {
    const read = OverlayConfig.safeParse(JSON.parse(text))
    config = read.data
    for (const { path, message } of read.error?.issues ?? [])
      problems.push(`${path.join('.') || 'it'}: ${message}`)
  } catch {
    problems.push('it is not JSON')
  }
  const network = config && readBlock(config.network)
  if (config && network) {
    const bits = config.subnetLen - network.length
    if (network.length < 8 || bits < 1 || bits > subnetBitsMax)
      problems.push(
        `subnetLen: must be 1 to ${subnetBitsMax} more than the length of network, which is at least 8`,
      )
    if (blockHolds(network, addressNumber(at.address)!))
      problems.push(`network: has the address ${at.address} of this machine in it`)
    for (const block of at.reserved)
      if (blocksOverlap(network, readBlock(block)!))
        problems.push(`network: overlaps ${block}, the network \`bridge\` of this machine`)
  }
  if (config && problems.length === 0) return config
  throw new Fault(
    'OVERLAY_CONFIG_INVALID',
    `${storeKeys.networkConfig}: ${problems.slice(0, 8).join('; ')}`,
    {
      remedy: `put {"network": "10.244.0.0/16", "backend": "vxlan"} there, for instance`,
    },
  )
}

export const subnetKey = (subnet: string): string => storeKeys.networkSubnets + subnet.replace('/', '-')

/** The subnet that a key below `/kiln/network/subnets/` names; undefined when it is none of this network. */
export function readSubnetKey(key: string, config: OverlayConfig): string | undefined {
  if (!key.startsWith(storeKeys.networkSubnets)) return undefined
  const block = readBlock(key.slice(storeKeys.networkSubnets.length).replace('-', '/'))
  if (!block || block.length !== config.subnetLen) return undefined
  return blockHolds(readBlock(config.network)!, block.first) ? formatBlock(block) : undefined
}

/** Reads an entry of the store; undefined when it is no subnet of this network, whoever wrote it. */
export function readSubnet(key: string, text: string, config: OverlayConfig): Subnet | undefined {
  const subnet = readSubnetKey(key, config)
  const record = subnet === undefined ? undefined : readSubnetRecord(text)
  if (!record || subnet === undefined) return undefined
  // A machine within the pods' network would be reached through itself.
  return blockHolds(readBlock(config.network)!, addressNumber(record.address)!)
    ? undefined
    : { ...record, subnet }
}

/** Reads the value of such an entry, of whatever network. */
export function readSubnetRecord(text: string): SubnetRecord | undefined {
  try {
    return SubnetRecord.parse(JSON.parse(text))
  } catch {
    return undefined
  }
}

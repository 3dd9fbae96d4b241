import * as z from 'zod'
import { Mac } from './network-names.ts'

/** Annotation by which a pod chooses its networks. */
export const networksAnnotation = 'kiln.dev/networks'

/** The most networks of one pod. */
export const networksMax = 8

/** Name of a network, as CNI 1.0 section 1 has it. */
export const NetworkName = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/, 'is no name of a network: letters, digits, and _.- within')

const InterfaceName = z
  .string()
  .regex(
    /^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$/,
    'is no name of an interface: at most 15 letters, digits and _.-',
  )
  .refine((name) => name !== 'lo', 'is the loopback, which every pod has')

const Address = z.union([z.ipv4(), z.ipv6(), z.cidrv4(), z.cidrv6()], {
  error: 'is no address, with or without a prefix length',
})

/** One network of a pod; `ips` and `mac` only mean something to networks that announce these capabilities. */
export type NetworkChoice = { name: string; interface: string; ips?: string[]; mac?: string }

const Choice = z.strictObject({
  name: NetworkName,
  interface: InterfaceName.optional(),
  ips: z.array(Address).min(1).max(8).optional(),
  mac: Mac.optional(),
})

/**
 * Reads the annotation: `none`, a list such as `default,storage@eth1`, or a JSON array of objects with `name`, `interface`,
 * `ips` and `mac`. Interfaces that have no name are `eth0`, `eth1` ... by their place. Without the annotation a pod has
 * the network `default` at `eth0`. Answers the problem of a text that says none of these.
 */
export function readPodNetworks(
  annotations: Record<string, string>,
): { networks: NetworkChoice[]; problem?: undefined } | { networks?: undefined; problem: string } {
  const text = annotations[networksAnnotation]?.trim()
  if (text === undefined) return { networks: [{ name: 'default', interface: 'eth0' }] }
  if (text === 'none') return { networks: [] }
  const read = z
    .array(Choice)
    .min(1)
    .max(networksMax)
    .safeParse(text.startsWith('[') ? json(text) : list(text))
  if (!read.success) {
    const issue = read.error.issues[0]!
    const [index, ...field] = issue.path
    const where =
      index === undefined
        ? ''
        : `entry ${Number(index) + 1}${field.map((part) => `.${String(part)}`).join('')}: `
    return { problem: `${where}${issue.message}`.slice(0, 300) }
  }
  const networks = read.data.map(({ name, ips, mac, ...choice }, index) => ({
    name,
    interface: choice.interface ?? `eth${index}`,
    ...(ips ? { ips } : {}),
    ...(mac === undefined ? {} : { mac }),
  }))
  if (networks.some(({ name }) => name === 'none')) return { problem: 'none stands alone' }
  for (const key of ['name', 'interface'] as const) {
    const twice = networks.find(
      (each, index) => networks.findIndex((other) => other[key] === each[key]) !== index,
    )
    if (twice) return { problem: `${key} ${twice[key]} is there twice` }
  }
  return { networks }
}

function list(text: string): object[] {
  return text.split(',').map((part) => {
    const [name = '', ...at] = part.trim().split('@')
    return at.length === 0 ? { name } : { name, interface: at.join('@') }
  })
}

function json(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

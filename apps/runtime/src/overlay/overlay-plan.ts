import { createHash } from 'node:crypto'
import type { OverlayConfig, Subnet } from './overlay-records.ts'

/** Marks our routes in the kernel (rtnetlink(7), rtm_protocol), so that a later daemon finds them; the metric lets connected networks go first. */
export const routeProtocol = 75
const routeMetric = 75
/** What VXLAN puts before a packet: Ethernet, IPv4, UDP and its own header (RFC 7348, section 5). */
const vxlanBytes = 50

export const devicePrefix = 'kiln.'

/** The network card that has the machine's address. */
export type Uplink = { name: string; mtu: number }

export type VxlanDevice = {
  name: string
  vni: number
  port: number
  local: string
  uplink: string
  mac: string
  mtu: number
  /** Its own address, the first of the subnet: what the machine itself is called by pods of other machines. */
  address: string
}
export type Route = { subnet: string; via: string; device: string }
export type Neighbour = { address: string; mac: string }
export type Forwarding = { mac: string; to: string }

/** What the kernel should have, or has, for the network between machines. */
export type OverlayState = {
  devices: VxlanDevice[]
  routes: Route[]
  neighbours: Neighbour[]
  forwardings: Forwarding[]
}

/** Lines for `ip -batch` and `bridge -batch`, run in this order. */
export type OverlayCommands = { before: string[]; bridge: string[]; after: string[] }

/** A locally administered address that stays the same over boots. */
export const vxlanMac = (machine: string, vni: number): string =>
  `02${createHash('sha256').update(`${machine} ${vni}`).digest('hex').slice(0, 10).replaceAll(/../g, ':$&')}`

export const podMtu = (config: Pick<OverlayConfig, 'backend'>, uplink: Uplink): number =>
  config.backend === 'vxlan' ? uplink.mtu - vxlanBytes : uplink.mtu

const firstAddress = (subnet: string): string => subnet.split('/')[0]!

/** What the kernel should have. Machines without what the backend needs are left out. Pure. */
export function overlayState(at: {
  config: OverlayConfig
  own: Subnet
  peers: readonly Subnet[]
  uplink: Uplink
}): OverlayState {
  const { config, own, uplink } = at
  const peers = at.peers.filter(({ machine, subnet }) => machine !== own.machine && subnet !== own.subnet)
  if (config.backend === 'host-gw')
    return {
      devices: [],
      neighbours: [],
      forwardings: [],
      routes: peers
        .filter(({ address }) => address !== own.address)
        .map(({ subnet, address }) => ({ subnet, via: address, device: uplink.name })),
    }
  const device: VxlanDevice = {
    name: `${devicePrefix}${config.vni}`,
    vni: config.vni,
    port: config.port,
    local: own.address,
    uplink: uplink.name,
    mac: vxlanMac(own.machine, config.vni),
    mtu: podMtu(config, uplink),
    address: firstAddress(own.subnet),
  }
  const reached = peers.flatMap(({ mac, ...peer }) => (mac === undefined ? [] : { ...peer, mac }))
  return {
    devices: [device],
    routes: reached.map(({ subnet }) => ({ subnet, via: firstAddress(subnet), device: device.name })),
    neighbours: reached.map(({ subnet, mac }) => ({ address: firstAddress(subnet), mac })),
    forwardings: reached.map(({ address, mac }) => ({ mac, to: address })),
  }
}

/** From what is found to what is wanted; each line may be run again. Nothing that stays is touched, so that traffic goes on. Pure. */
export function overlayCommands(found: OverlayState, wanted: OverlayState): OverlayCommands {
  const commands: OverlayCommands = { before: [], bridge: [], after: [] }
  const { before, bridge, after } = commands
  const device = wanted.devices[0]
  const same = found.devices.find(({ name }) => name === device?.name)
  const made = device && same && sameTunnel(device, same) ? same : undefined
  if (same && !made) before.push(`link delete ${same.name}`)
  if (device) before.push(...deviceLines(device, made))
  // A device that is made anew has lost all that belonged to it.
  const kept = made ? found : { neighbours: [], forwardings: [], routes: keptRoutes(found, same?.name) }
  if (device) {
    for (const { address, mac } of missing(kept.neighbours, wanted.neighbours))
      before.push(`neigh replace ${address} lladdr ${mac} dev ${device.name} nud permanent`)
    for (const { mac, to } of missing(kept.forwardings, wanted.forwardings))
      bridge.push(`fdb replace ${mac} dev ${device.name} dst ${to} self permanent`)
  }
  for (const { subnet, via, device: by } of missing(kept.routes, wanted.routes))
    after.push(
      `route replace ${subnet} via ${via} dev ${by}${by.startsWith(devicePrefix) ? ' onlink' : ''} proto ${routeProtocol} metric ${routeMetric}`,
    )
  const subnets = new Set(wanted.routes.map(({ subnet }) => subnet))
  for (const { subnet } of kept.routes)
    if (!subnets.has(subnet))
      after.push(`route delete ${subnet} proto ${routeProtocol} metric ${routeMetric}`)
  if (device && made) {
    const addresses = new Set(wanted.neighbours.map(({ address }) => address))
    for (const { address } of kept.neighbours)
      if (!addresses.has(address)) after.push(`neigh delete ${address} dev ${device.name}`)
    const macs = new Set(wanted.forwardings.map(({ mac }) => mac))
    for (const { mac, to } of kept.forwardings)
      if (!macs.has(mac)) bridge.push(`fdb delete ${mac} dev ${device.name} dst ${to} self`)
  }
  for (const { name } of found.devices) if (name !== device?.name) after.push(`link delete ${name}`)
  return commands
}

const keptRoutes = (found: OverlayState, lost: string | undefined): Route[] =>
  found.routes.filter(({ device }) => device !== lost)

/** What cannot be changed of a device that is there. */
const sameTunnel = (a: VxlanDevice, b: VxlanDevice): boolean =>
  a.vni === b.vni && a.port === b.port && a.local === b.local && a.uplink === b.uplink && a.mac === b.mac

function deviceLines(device: VxlanDevice, found: VxlanDevice | undefined): string[] {
  const { name, vni, port, local, uplink, mac, mtu, address } = device
  const lines: string[] = []
  if (!found)
    lines.push(
      `link add ${name} address ${mac} mtu ${mtu} type vxlan id ${vni} local ${local} dev ${uplink} dstport ${port} nolearning`,
    )
  else if (found.mtu !== mtu) lines.push(`link set ${name} mtu ${mtu}`)
  if (found?.address !== address) {
    lines.push(`addr replace ${address}/32 dev ${name}`, `link set ${name} up`)
    // Last: with its last address a device loses its routes.
    if (found && found.address !== '') lines.push(`addr delete ${found.address}/32 dev ${name}`)
  }
  return lines
}

function missing<T extends object>(found: readonly T[], wanted: readonly T[]): T[] {
  const nameOf = (one: T): string => JSON.stringify(Object.entries(one).sort())
  const there = new Set(found.map(nameOf))
  return wanted.filter((one) => !there.has(nameOf(one)))
}

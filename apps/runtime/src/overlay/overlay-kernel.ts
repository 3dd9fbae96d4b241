import { Fault } from '@kiln/service'
import * as z from 'zod'
import {
  devicePrefix,
  type OverlayCommands,
  type OverlayState,
  overlayCommands,
  routeProtocol,
  type Uplink,
  type VxlanDevice,
} from './overlay-plan.ts'

type RunTool = (command: string, args: string[], input?: string) => Promise<string>

/** iproute2 writes nothing, or empty objects, where there is nothing. */
const listOf = <T extends z.ZodType>(item: T) =>
  z.preprocess(
    (list) => (Array.isArray(list) ? list.filter((one) => Object.keys(one ?? {}).length > 0) : list),
    z.array(item),
  )
const Addresses = listOf(
  z.looseObject({
    ifname: z.string(),
    mtu: z.number(),
    addr_info: z.array(z.looseObject({ family: z.string().optional(), local: z.string().optional() })),
  }),
)
const Links = listOf(
  z.looseObject({
    ifname: z.string(),
    mtu: z.number(),
    address: z.string(),
    flags: z.array(z.string()),
    linkinfo: z.looseObject({
      info_data: z.looseObject({
        id: z.number(),
        local: z.string().optional(),
        link: z.string().optional(),
        port: z.number(),
      }),
    }),
  }),
)
const Routes = listOf(
  z.looseObject({ dst: z.string(), gateway: z.string().optional(), dev: z.string().optional() }),
)
const Neighbours = listOf(z.looseObject({ dst: z.string(), lladdr: z.string().optional() }))
const Forwardings = listOf(z.looseObject({ mac: z.string(), dst: z.string().optional() }))

/** The network card that has an address; undefined while none has. */
export async function findUplink(address: string, run: RunTool): Promise<Uplink | undefined> {
  const found = await readJson(run, Addresses, 'ip', ['-j', 'addr', 'show', 'to', address])
  const link = found.find(({ addr_info }) => addr_info.some(({ local }) => local === address))
  return link && { name: link.ifname, mtu: link.mtu }
}

/** What the kernel has of ours, whoever made it. */
export async function readOverlay(run: RunTool): Promise<OverlayState> {
  const links = await readJson(run, Links, 'ip', ['-j', '-d', 'link', 'show', 'type', 'vxlan'])
  const routes = await readJson(run, Routes, 'ip', ['-j', '-4', 'route', 'show', 'proto', `${routeProtocol}`])
  const state: OverlayState = {
    devices: [],
    neighbours: [],
    forwardings: [],
    routes: routes.map(({ dst, gateway = '', dev = '' }) => ({ subnet: dst, via: gateway, device: dev })),
  }
  for (const link of links) {
    const { ifname, mtu, address: mac, linkinfo } = link
    if (!ifname.startsWith(devicePrefix)) continue
    const { id, local = '', link: uplink = '', port } = linkinfo.info_data
    const [own] = await readJson(run, Addresses, 'ip', ['-j', '-4', 'addr', 'show', 'dev', ifname])
    // A device that is down is one whose making was cut short.
    const address = link.flags.includes('UP') ? (own?.addr_info[0]?.local ?? '') : ''
    const device: VxlanDevice = { name: ifname, vni: id, port, local, uplink, mac, mtu, address }
    state.devices.push(device)
    const near = ['-j', '-4', 'neigh', 'show', 'dev', ifname, 'nud', 'permanent']
    for (const { dst, lladdr = '' } of await readJson(run, Neighbours, 'ip', near))
      state.neighbours.push({ address: dst, mac: lladdr })
    for (const entry of await readJson(run, Forwardings, 'bridge', ['-j', 'fdb', 'show', 'dev', ifname]))
      if (entry.dst !== undefined) state.forwardings.push({ mac: entry.mac, to: entry.dst })
  }
  return state
}

/** So often what is there is read again, and set right: each line may have moved something else. */
const roundsMax = 3

/**
 * Makes the kernel have what is wanted, and nothing else of ours. Answers whether anything had to be done.
 * @throws Fault `OVERLAY_BACKEND_FAILED`
 */
export async function settleOverlay(wanted: OverlayState, run: RunTool): Promise<boolean> {
  let failure: unknown
  for (let round = 0; round < roundsMax; round++) {
    const commands = overlayCommands(await readOverlay(run), wanted)
    if (Object.values(commands).every((lines) => lines.length === 0)) return round > 0
    failure = await runOverlayCommands(commands, run).catch((error: unknown) => error)
  }
  throw (
    failure ??
    new Fault('OVERLAY_BACKEND_FAILED', 'something else changes routes or devices of ours all the time')
  )
}

/**
 * Runs all lines, also after one that fails.
 * @throws Fault `OVERLAY_BACKEND_FAILED` with the first complaint
 */
async function runOverlayCommands(commands: OverlayCommands, run: RunTool): Promise<void> {
  const steps = [
    ['ip', commands.before],
    ['bridge', commands.bridge],
    ['ip', commands.after],
  ] as const
  const failures: unknown[] = []
  for (const [tool, lines] of steps) {
    if (lines.length === 0) continue
    await run(tool, ['-force', '-batch', '-'], `${lines.join('\n')}\n`).catch((error: unknown) =>
      failures.push(error),
    )
  }
  if (failures.length > 0)
    throw new Fault('OVERLAY_BACKEND_FAILED', 'the kernel does not take the network between machines', {
      cause: failures[0],
      remedy: 'host-gw needs all machines on one link; vxlan needs the kernel module vxlan',
    })
}

async function readJson<T extends z.ZodType>(
  run: RunTool,
  schema: T,
  command: string,
  args: string[],
): Promise<z.output<T>> {
  const text = (await run(command, args)).trim()
  return schema.parse(text === '' ? [] : JSON.parse(text))
}

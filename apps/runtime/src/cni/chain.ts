import { Fault } from '@kiln/service'
import * as z from 'zod'
import type { NetworkList, PluginConfig } from './network-list.ts'
import type { PluginCall, PluginRunner } from './plugin.ts'

const Result = z.looseObject({
  cniVersion: z.string(),
  interfaces: z.array(z.looseObject({ name: z.string(), sandbox: z.string().optional() })).optional(),
  ips: z
    .array(
      z.looseObject({
        address: z.string(),
        gateway: z.string().optional(),
        interface: z.number().optional(),
      }),
    )
    .optional(),
  dns: z.looseObject({ nameservers: z.array(z.string()).optional() }).optional(),
})
/** What a plug-in did, as CNI 1.0 section 5 has it. */
export type CniResult = z.output<typeof Result>

/** What plug-ins may be told at run time, each where its configuration announces the capability. */
export type CapabilityArgs = {
  portMappings?: { hostPort: number; containerPort: number; protocol: 'tcp' | 'udp' }[]
  ips?: string[]
  mac?: string
}

/** One network of one container, and how far it got: what undoing it needs. */
export type ChainState = {
  network: NetworkList
  containerId: string
  interfaceName: string
  netns: string
  args: string
  capabilityArgs: CapabilityArgs
  /** Plug-ins that were begun. */
  begun: number
  result?: CniResult
}

/** The configuration that a plug-in is run with (CNI 1.0, section 3). Pure. */
export function pluginRequest(
  network: NetworkList,
  plugin: PluginConfig,
  capabilityArgs: CapabilityArgs,
  previous: CniResult | undefined,
): object {
  const { capabilities, ...config } = plugin
  const told = Object.entries(capabilityArgs).filter(([name]) => capabilities?.[name])
  return {
    ...config,
    cniVersion: network.cniVersion,
    name: network.name,
    ...(told.length > 0 ? { runtimeConfig: Object.fromEntries(told) } : {}),
    ...(previous ? { prevResult: previous } : {}),
  }
}

/** Runs the plug-ins in order. `begin` is awaited before each of them, so that a crash at any point can be undone. */
export async function addNetwork(
  state: ChainState,
  plugins: PluginRunner,
  begin: (state: ChainState) => Promise<void>,
): Promise<ChainState> {
  let now = state
  await expectVersions(state.network, plugins)
  for (const plugin of state.network.plugins) {
    now = { ...now, begun: now.begun + 1 }
    await begin(now)
    const request = pluginRequest(now.network, plugin, now.capabilityArgs, now.result)
    const answer = await plugins.run(plugin.type, call('ADD', now), request)
    const read = Result.safeParse(answer)
    if (!read.success)
      throw new Fault(
        'CNI_ANSWER_INVALID',
        `plug-in ${plugin.type} of network ${now.network.name} answers no result`,
        {
          cause: read.error,
        },
      )
    now = { ...now, result: read.data }
  }
  return now
}

/** Asks the plug-ins whether all is as they left it. Networks that cannot say, or are not to be asked, are well. */
export async function checkNetwork(state: ChainState, plugins: PluginRunner): Promise<void> {
  const { network } = state
  if (network.disableCheck || !isAtLeast(network.cniVersion, '0.4.0')) return
  // Debian's portmap 1.1.1 looks for rules of the one family at the address of the other.
  const families = new Set((state.result?.ips ?? []).map(({ address }) => address.includes(':')))
  const asked = network.plugins.filter(({ type }) => type !== 'portmap' || families.size < 2)
  for (const plugin of asked)
    await plugins.run(
      plugin.type,
      call('CHECK', state),
      pluginRequest(network, plugin, state.capabilityArgs, state.result),
    )
}

/**
 * Undoes the plug-ins that were begun, the last first. One that fails does not keep the others from undoing their part; the first
 * failure is thrown at the end.
 */
export async function deleteNetwork(state: ChainState, plugins: PluginRunner): Promise<void> {
  const { network } = state
  const previous = isAtLeast(network.cniVersion, '0.4.0') ? state.result : undefined
  let failure: unknown
  for (const plugin of network.plugins.slice(0, state.begun).reverse()) {
    try {
      await plugins.run(
        plugin.type,
        call('DEL', state),
        pluginRequest(network, plugin, state.capabilityArgs, previous),
      )
    } catch (error) {
      failure ??= error
    }
  }
  if (failure !== undefined) throw failure
}

/** Addresses that a result gives to the container, without their prefix lengths. Pure. */
export function addressesOf(result: CniResult | undefined): string[] {
  return (result?.ips ?? []).flatMap(({ address, interface: index }) => {
    const on = index === undefined ? undefined : result?.interfaces?.[index]
    return on && !on.sandbox ? [] : (address.split('/')[0] ?? [])
  })
}

function call(command: PluginCall['command'], state: ChainState): PluginCall {
  const { containerId, netns, interfaceName, args } = state
  return { command, containerId, netns, interfaceName, args }
}

const Versions = z.looseObject({ supportedVersions: z.array(z.string()) })

/** Every plug-in must speak the version of the network (CNI 1.0, section 2, VERSION). */
async function expectVersions(network: NetworkList, plugins: PluginRunner): Promise<void> {
  for (const type of new Set(network.plugins.map((plugin) => plugin.type))) {
    const answer = Versions.safeParse(
      await plugins.run(type, { command: 'VERSION' }, { cniVersion: network.cniVersion }),
    )
    if (!answer.success)
      throw new Fault('CNI_ANSWER_INVALID', `plug-in ${type} does not say which versions it speaks`, {
        cause: answer.error,
      })
    const spoken = answer.data.supportedVersions
    if (!spoken.includes(network.cniVersion))
      throw new Fault(
        'CNI_VERSION_UNSUPPORTED',
        `network ${network.name} is of CNI ${network.cniVersion}, and plug-in ${type} speaks ${spoken.join(', ')}`.slice(
          0,
          500,
        ),
      )
  }
}

function isAtLeast(version: string, wanted: string): boolean {
  const [a, b] = [version, wanted].map((text) => text.split('.').map(Number)) as [number[], number[]]
  for (const [index, part] of b.entries()) if (a[index] !== part) return (a[index] ?? 0) > part
  return true
}

import { createHash } from 'node:crypto'
import { isAlive, type ProcessId } from '@kiln/linux'
import type { NetworkChoice } from '@kiln/schemas'
import { describeError, Fault, type Log } from '@kiln/service'
import type { PodPort } from '../network-plan.ts'
import { type Attachment, openAttachments } from './attachments.ts'
import { addNetwork, addressesOf, type CapabilityArgs, checkNetwork, deleteNetwork } from './chain.ts'
import { endPlugins, type RunTool, removeMasquerade } from './leftovers.ts'
import { type ConfiguredNetworks, findNetwork, type NetworkList, readNetworks } from './network-list.ts'
import type { PluginRunner } from './plugin.ts'

/** Then a network of a sandbox that is gone is forgotten. */
const refusalsMax = 10

/** A pod whose sandbox is to have networks. */
export type PodToConnect = {
  uid: string
  name: string
  namespace: string
  /** Of the sandbox: each start is another container to the plug-ins. */
  generation: number
  sandbox: ProcessId
  networks: NetworkChoice[]
  ports: PodPort[]
}

/** What the plug-ins gave a pod. */
export type PodConnection = { addresses: string[]; gateways: string[]; nameservers: string[] }

/** A network that could not be undone, and why. */
export type NetworkLeft = { pod: string; network: string; message: string }

/** Networks of pods that CNI plug-ins make. */
export type CniNetworks = {
  configured(): Promise<ConfiguredNetworks>
  /** Gives a pod all its networks, or none: what fails half-way is undone. */
  connect(pod: PodToConnect): Promise<PodConnection>
  /** Undoes all networks of a pod. What cannot be undone now is logged, and tried again by `collect`. */
  disconnect(uid: string): Promise<void>
  /** Undoes the networks of sandboxes that are no more, unless their pod, which will do it, is known. Answers what stays. */
  collect(known: ReadonlySet<string>): Promise<NetworkLeft[]>
  /** Says in the log which networks of running sandboxes are not as they were made. */
  check(): Promise<void>
}

export function openCniNetworks(at: {
  configDir: string
  bundled: NetworkList[]
  /** Where it is recorded what must be undone. */
  attachmentsDir: string
  bootId: string
  plugins: PluginRunner
  run: RunTool
  log: Log
}): CniNetworks {
  const { plugins, log } = at
  const attachments = openAttachments(at.attachmentsDir, log)

  const lives = async ({ bootId, sandbox }: Attachment): Promise<boolean> =>
    bootId === at.bootId && (await isAlive(sandbox))

  const configured = async (): Promise<ConfiguredNetworks> => {
    const read = await readNetworks(at.configDir)
    // A file takes the place of a network that comes with the program.
    for (const list of at.bundled) if (!read.networks.has(list.name)) read.networks.set(list.name, list)
    return read
  }

  const undo = async (attachment: Attachment): Promise<void> => {
    const alive = await lives(attachment)
    const deleting: Attachment = { ...attachment, state: 'deleting', netns: alive ? attachment.netns : '' }
    await attachments.save(deleting)
    if (attachment.state !== 'ready') await endPlugins(attachment.containerId)
    let failure: unknown
    await deleteNetwork(deleting, plugins).catch((error: unknown) => {
      failure = error
    })
    await removeMasquerade(attachment.network, attachment.containerId, at.run)
    if (failure === undefined) return attachments.remove(attachment)
    // A configuration that its plug-ins never took cannot be undone, and must not be tried for ever.
    const refused = !alive && failure instanceof Fault && failure.code === 'CNI_PLUGIN_FAILED'
    const refusals = attachment.refusals + Number(refused)
    if (refusals < refusalsMax) await attachments.save({ ...deleting, refusals })
    else await attachments.remove(attachment)
    throw failure
  }

  const undoAll = async (list: Attachment[]): Promise<NetworkLeft[]> => {
    const left: NetworkLeft[] = []
    for (const attachment of list) {
      const { pod, network } = attachment
      try {
        await undo(attachment)
        log.info({ pod, network: network.name }, 'network of a pod removed')
      } catch (error) {
        log.warn(
          { pod, network: network.name, error: describeError(error) },
          'network of a pod is not removed yet',
        )
        left.push({ pod, network: network.name, message: describeError(error).slice(0, 1000) })
      }
    }
    return left
  }
  const disconnect = async (uid: string): Promise<void> => {
    await undoAll(await attachments.list(uid))
  }

  return {
    configured,
    disconnect,
    connect: async (pod) => {
      // What an earlier sandbox left would be in the way.
      await disconnect(pod.uid)
      const all = await configured()
      const lists = pod.networks.map(({ name }) => findNetwork(name, all))
      const mapper = portMapper(pod, lists)
      const connection: PodConnection = { addresses: [], gateways: [], nameservers: [] }
      try {
        for (const [place, network] of lists.entries()) {
          const choice = pod.networks[place]!
          const begun: Attachment = {
            formatVersion: 1,
            uid: pod.uid,
            pod: pod.name,
            place,
            sandbox: pod.sandbox,
            bootId: at.bootId,
            state: 'adding',
            refusals: 0,
            network,
            containerId: containerIdOf(pod),
            interfaceName: choice.interface,
            netns: `/proc/${pod.sandbox.pid}/ns/net`,
            args: argsOf(pod),
            capabilityArgs: capabilityArgsOf(choice, network, place === mapper ? pod.ports : []),
            begun: 0,
          }
          const save = (chain: object): Promise<void> =>
            attachments.save({ ...begun, ...chain, state: 'adding' })
          const { result, begun: count } = await addNetwork(begun, plugins, save)
          await attachments.save({ ...begun, begun: count, state: 'ready', ...(result ? { result } : {}) })
          connection.addresses.push(...addressesOf(result))
          connection.gateways.push(...(result?.ips ?? []).flatMap(({ gateway }) => gateway ?? []))
          connection.nameservers.push(...(result?.dns?.nameservers ?? []))
        }
        return connection
      } catch (error) {
        await disconnect(pod.uid)
        throw error
      }
    },
    collect: async (known) => {
      const gone: Attachment[] = []
      for (const attachment of await attachments.list())
        if (!known.has(attachment.uid) && !(await lives(attachment))) gone.push(attachment)
      return undoAll(gone)
    },
    check: async () => {
      for (const attachment of await attachments.list()) {
        const { pod, network } = attachment
        if (attachment.state !== 'ready' || !(await lives(attachment))) continue
        await checkNetwork(attachment, plugins).catch((error: unknown) =>
          log.warn(
            { pod, network: network.name, error: describeError(error) },
            'network of a pod is not as it was made',
          ),
        )
      }
    },
  }
}

/** Of letters, digits and `-`, and different for each sandbox of each pod (CNI 1.0, section 2, CNI_CONTAINERID). */
const containerIdOf = ({ name, uid, generation }: PodToConnect): string =>
  `${name}-${createHash('sha256').update(uid).digest('hex').slice(0, 12)}-${generation}`

const argsOf = ({ name, namespace, uid }: PodToConnect): string =>
  [
    'IgnoreUnknown=1',
    `K8S_POD_NAMESPACE=${namespace}`,
    `K8S_POD_NAME=${name}`,
    `K8S_POD_UID=${uid.replaceAll(/[;=]/g, '')}`,
  ].join(';')

const can = (network: NetworkList, capability: string): boolean =>
  network.plugins.some(({ capabilities }) => capabilities?.[capability])

/** The network through which the ports of the machine lead: the first that can. */
function portMapper(pod: PodToConnect, lists: NetworkList[]): number | undefined {
  if (!pod.ports.some(({ hostPort }) => hostPort !== undefined)) return undefined
  const place = lists.findIndex((network) => can(network, 'portMappings'))
  if (place >= 0) return place
  throw new Fault(
    'POD_NETWORK_FAILED',
    `pod ${pod.name} has ports of the machine, and no network of it maps ports`,
    {
      remedy: 'leave hostPort out, or add a network with the plug-in portmap',
    },
  )
}

function capabilityArgsOf(choice: NetworkChoice, network: NetworkList, ports: PodPort[]): CapabilityArgs {
  for (const wish of ['ips', 'mac'] as const) {
    if (choice[wish] !== undefined && !can(network, wish))
      throw new Fault(
        'POD_NETWORK_FAILED',
        `network ${network.name} does not take ${wish} that a pod asks for`,
      )
  }
  const portMappings = ports.flatMap(({ port, hostPort, protocol }) =>
    hostPort === undefined
      ? []
      : [
          {
            hostPort,
            containerPort: port,
            protocol: protocol === 'UDP' ? ('udp' as const) : ('tcp' as const),
          },
        ],
  )
  return {
    ...(portMappings.length > 0 ? { portMappings } : {}),
    ...(choice.ips ? { ips: choice.ips } : {}),
    ...(choice.mac === undefined ? {} : { mac: choice.mac }),
  }
}

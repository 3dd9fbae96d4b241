import { Fault } from '@kiln/service'
import { runTool } from './host.ts'
import {
  bridgeCommands,
  hostLink,
  isOfNetwork,
  linkCommands,
  natRules,
  type PodNetwork,
  type PortMapping,
  podCommands,
} from './network-plan.ts'

/** The machine's side of pod networking: bridge, links and address translation. */
export type Network = {
  connect(pod: { uid: string; address: string; sandboxPid: number }): Promise<void>
  disconnect(uid: string): Promise<void>
  /** Makes the port mappings exactly these. */
  mapPorts(mappings: PortMapping[]): Promise<void>
  /** The network is another one now: its bridge and its rules are made anew. */
  refresh(): Promise<void>
}

type RunTool = (command: string, args: string[], input?: string) => Promise<string>

export function openNetwork(network: PodNetwork, run: RunTool = runTool): Network {
  let bridged = false
  let rules = ''
  let mapped: PortMapping[] = []

  const bridge = async (): Promise<void> => {
    if (bridged) return
    const [add, ...rest] = bridgeCommands(network)
    await run('ip', ['-force', '-batch', '-'], `${add}\n`).catch(async (error: unknown) => {
      // It is there already after a restart of the daemon.
      await run('ip', ['link', 'show', network.bridge]).catch(() => {
        throw error
      })
    })
    await run('ip', ['-batch', '-'], `${rest.join('\n')}\n`)
    await forwardPackets(run)
    bridged = true
  }

  const mapPorts = async (mappings: PortMapping[]): Promise<void> => {
    mapped = mappings
    const wanted = natRules(network, mappings)
    if (wanted === rules) return
    try {
      await run('nft', ['-f', '-'], wanted)
      rules = wanted
    } catch (error) {
      throw new Fault('POD_NETWORK_FAILED', 'cannot map ports of the machine to pods', { cause: error })
    }
  }

  return {
    connect: async ({ uid, address, sandboxPid }) => {
      const link = hostLink(uid)
      if (!isOfNetwork(network, address))
        throw new Fault('POD_NETWORK_FAILED', `the pods' network has moved, and ${address} is of the old one`)
      try {
        await bridge()
        // A link of an earlier try may still lead into the same sandbox.
        await run('ip', ['link', 'delete', link]).catch(() => undefined)
        await run('ip', ['-batch', '-'], `${linkCommands(network, link, sandboxPid).join('\n')}\n`)
        const inside = ['--target', String(sandboxPid), '--net', 'ip', '-batch', '-']
        await run('nsenter', inside, `${podCommands(network, address).join('\n')}\n`)
      } catch (error) {
        bridged = false
        throw new Fault('POD_NETWORK_FAILED', `cannot give a pod address ${address}`, { cause: error })
      }
    },
    disconnect: async (uid) => {
      await run('ip', ['link', 'delete', hostLink(uid)]).catch(() => undefined)
    },
    mapPorts,
    refresh: async () => {
      bridged = false
      await mapPorts(mapped)
    },
  }
}

async function forwardPackets(run: RunTool): Promise<void> {
  const name = 'net.ipv4.ip_forward'
  if ((await run('sysctl', ['-n', name])).trim() !== '1') await run('sysctl', ['-qw', `${name}=1`])
}

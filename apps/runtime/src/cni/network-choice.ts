import { type NetworkChoice, type PodManifest, readPodNetworks } from '@kiln/schemas'
import { Fault } from '@kiln/service'

/** Networks of a pod: the machine's built-in bridge, and those that plug-ins make. */
export type PodNetworks = { builtIn: boolean; cni: NetworkChoice[] }

/**
 * What a pod asks for with its annotation, on this machine: `default` is the built-in bridge unless a file configures a
 * network of that name. Pure.
 */
export function choosePodNetworks(manifest: PodManifest, defaultConfigured: boolean): PodNetworks {
  if (manifest.spec.hostNetwork) return { builtIn: false, cni: [] }
  const { networks, problem } = readPodNetworks(manifest.metadata.annotations)
  if (!networks) throw new Fault('POD_NETWORK_FAILED', `the pod's choice of networks: ${problem}`)
  const builtIn = defaultConfigured ? undefined : networks.find(({ name }) => name === 'default')
  if (builtIn && (builtIn.interface !== 'eth0' || builtIn.ips || builtIn.mac !== undefined))
    throw new Fault(
      'POD_NETWORK_FAILED',
      'the built-in network is eth0 of a pod, at an address of its own choice',
      { remedy: 'name no interface and no addresses for default, or ask for the network bridge' },
    )
  return { builtIn: builtIn !== undefined, cni: networks.filter((network) => network !== builtIn) }
}

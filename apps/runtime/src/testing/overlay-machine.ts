import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { EtcdClient } from '@kiln/etcd-api'
import { createLog } from '@kiln/service'
import { runTool } from '../host.ts'
import { type Network, openNetwork } from '../network.ts'
import { freeAddress, type PodNetwork, podNetworkOf } from '../network-plan.ts'
import { openOverlay } from '../overlay/overlay.ts'
import { rememberedPodNetwork } from '../overlay/pod-network-move.ts'
import { type Namespace, openNamespace } from './cni-machine.ts'

/** A pod of a machine that is a namespace. */
export type OverlayPod = Namespace & { address: string }

/** A machine that is a namespace, on the link of a switch, with the part of the daemon that makes its pods' networks. */
export type OverlayMachine = {
  namespace: Namespace
  address: string
  podNetwork: PodNetwork
  /** How often the daemon was told that its network has moved. */
  moves: number
  network: Network
  addPod(): Promise<OverlayPod>
  /** Another daemon takes over. */
  restart(): Promise<void>
  stop(): Promise<void>
  close(): Promise<void>
}

/** The link between machines. */
export async function openSwitch(): Promise<Namespace> {
  const link = await openNamespace()
  await link.run('ip', 'link', 'add', 'br0', 'type', 'bridge')
  await link.run('ip', 'link', 'set', 'br0', 'up')
  return link
}

export async function openOverlayMachine(at: {
  link: Namespace
  folder: string
  id: string
  address: string
  storeUrl: string
}): Promise<OverlayMachine> {
  const { link, id, address } = at
  const folder = join(at.folder, id)
  mkdirSync(folder, { recursive: true })
  const namespace = await openNamespace()
  const pods: Namespace[] = []
  const peer = ['peer', 'name', `to-${id}`, 'netns', String(link.sandbox.pid)]
  await namespace.run('ip', 'link', 'add', 'eth0', 'type', 'veth', ...peer)
  await link.run('ip', 'link', 'set', `to-${id}`, 'master', 'br0', 'up')
  await namespace.run('ip', 'addr', 'add', `${address}/16`, 'dev', 'eth0')
  await namespace.run('ip', 'link', 'set', 'eth0', 'up')
  const enter = `--net=${namespace.path}`
  const run = (command: string, args: string[], input?: string): Promise<string> =>
    runTool('nsenter', [enter, command, ...args], input)
  const stateFile = join(folder, 'network.json')

  const begin = async () => {
    const podNetwork = rememberedPodNetwork(stateFile, podNetworkOf('10.88', address))
    const network = openNetwork(podNetwork, run)
    await network.mapPorts([])
    const stopping = new AbortController()
    const store = new EtcdClient({ endpoints: [at.storeUrl] })
    const overlay = openOverlay({
      machine: { id, address },
      podNetwork,
      reserved: ['10.89.0.0/16'],
      stateFile,
      subnetFile: join(folder, 'subnet.env'),
      run,
      log: createLog('test', 'silent'),
      moved: async () => {
        machine.moves++
        await network.refresh()
      },
    })
    overlay.connect(store, stopping.signal)
    const end = async (): Promise<void> => {
      stopping.abort()
      await overlay.close()
      store.close()
    }
    return { podNetwork, network, end }
  }
  const machine = { namespace, address, moves: 0 } as OverlayMachine
  let daemon = await begin()
  const adopt = (): OverlayMachine =>
    Object.assign(machine, { podNetwork: daemon.podNetwork, network: daemon.network })
  return Object.assign(adopt(), {
    addPod: async () => {
      const pod = await openNamespace()
      pods.push(pod)
      const podAddress = freeAddress(
        daemon.podNetwork,
        Array.from({ length: pods.length - 1 }, (_, index) =>
          daemon.podNetwork.gateway.replace(/\d+$/, String(index + 2)),
        ),
      )!
      await daemon.network.connect({
        uid: `${id}-${pods.length}`,
        address: podAddress,
        sandboxPid: pod.sandbox.pid,
      })
      return Object.assign(pod, { address: podAddress })
    },
    restart: async () => {
      await daemon.end()
      daemon = await begin()
      adopt()
    },
    stop: () => daemon.end(),
    close: async () => {
      await daemon.end()
      for (const each of [...pods, namespace]) await each.close()
    },
  })
}

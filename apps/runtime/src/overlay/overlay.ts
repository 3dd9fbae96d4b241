import { rm } from 'node:fs/promises'
import type { EtcdClient } from '@kiln/etcd-api'
import { storeKeys } from '@kiln/schemas'
import { atomicWrite, describeError, Fault, type Log } from '@kiln/service'
import { followPrefix } from '../follow-prefix.ts'
import type { PodNetwork } from '../network-plan.ts'
import { findUplink, settleOverlay } from './overlay-kernel.ts'
import { overlayState, podMtu, vxlanMac } from './overlay-plan.ts'
import { type OverlayConfig, readOverlayConfig, readSubnet, type Subnet } from './overlay-records.ts'
import { type ClusterNetwork, movePodNetwork, rememberPodNetwork, subnetEnv } from './pod-network-move.ts'
import { type ClaimStore, SubnetClaim } from './subnet-claim.ts'

/** Others may take our routes away, such as a restart of systemd-networkd: then they come back within this. */
const lookEveryMs = 30_000
const retryFirstMs = 1_000

export type Overlay = {
  /** Follows a store until `signal`. */
  connect(store: ClaimStore & Pick<EtcdClient, 'getPrefix' | 'watch'>, signal: AbortSignal): void
  /** Leaves all as it is in the kernel: pods go on. */
  close(): Promise<void>
}

const isAway = (error: unknown): boolean => error instanceof Fault && error.code.startsWith('STORE_')

/**
 * The network between machines, as the store describes it: claims a subnet for this machine, moves the built-in network there, and keeps
 * routes or a VXLAN device to the other machines. Without a store, or settings in it, nothing is done.
 */
export function openOverlay(input: {
  machine: { id: string; address: string | undefined }
  /** The built-in network, which is moved in place. */
  podNetwork: PodNetwork
  /** Blocks of other networks of this machine's pods. */
  reserved: readonly string[]
  /** Where the network is remembered over restarts. */
  stateFile: string
  /** What flannel calls subnet.env. */
  subnetFile: string
  run(command: string, args: string[], input?: string): Promise<string>
  log: Log
  /** The built-in network is another one now. */
  moved(): Promise<void>
}): Overlay {
  const { machine, podNetwork, run, log } = input
  let heard: Map<string, string> | undefined
  let claim: SubnetClaim | undefined
  let told: string | undefined
  let changed = false
  let complaint = ''
  let working: Promise<void> | undefined
  let again = false
  let closed = false
  let timer: NodeJS.Timeout | undefined
  let retryMs = retryFirstMs

  const tell = async (now: ClusterNetwork | undefined): Promise<void> => {
    const text = JSON.stringify(now ?? 'off')
    if (told === text) return
    const before = JSON.stringify(podNetwork)
    movePodNetwork(podNetwork, now)
    if (now) await atomicWrite(input.subnetFile, subnetEnv(now), { mode: 0o644 })
    else await rm(input.subnetFile, { force: true })
    changed ||= JSON.stringify(podNetwork) !== before
    if (changed) {
      await rememberPodNetwork(input.stateFile, podNetwork)
      await input.moved()
      changed = false
      log.info({ ...now, subnet: podNetwork.subnet }, 'the network of pods has changed')
    }
    told = text
  }

  const subnetsOf = (config: OverlayConfig): Subnet[] =>
    [...heard!].flatMap(([key, text]) => readSubnet(key, text, config) ?? [])

  const converge = async (): Promise<void> => {
    const text = heard?.get(storeKeys.networkConfig)
    if (!heard || !claim || machine.address === undefined) return
    if (text === undefined) {
      if (told === JSON.stringify('off')) return
      await settleOverlay({ devices: [], routes: [], neighbours: [], forwardings: [] }, run)
      await tell(undefined)
      return
    }
    const { address, id } = { ...machine, address: machine.address }
    const config = readOverlayConfig(text, { address, reserved: input.reserved })
    const uplink = await findUplink(address, run)
    if (!uplink)
      throw new Fault(
        'OVERLAY_BACKEND_FAILED',
        `no network card has the address ${address} of this machine`,
        {
          remedy: 'see the address in machine.json, and whether the network is up',
        },
      )
    const mac = config.backend === 'vxlan' ? { mac: vxlanMac(id, config.vni) } : {}
    const record = { formatVersion: 1 as const, machine: id, address, ...mac }
    let away: unknown
    const subnet = await claim
      .hold({ config, record, preferred: [podNetwork.subnet], heard })
      .catch((error: unknown) => {
        // The kernel is looked after while the store is away.
        if (!isAway(error) || podNetwork.cluster !== config.network) throw error
        away = error
        return podNetwork.subnet
      })
    const peers = subnetsOf(config)
    await tell({ subnet, network: config.network, mtu: podMtu(config, uplink) })
    const acted = await settleOverlay(
      overlayState({ config, own: { ...record, subnet }, peers, uplink }),
      run,
    )
    if (acted)
      log.info({ subnet, subnets: peers.length }, 'the network between machines is as the store says')
    if (away !== undefined) throw away
  }

  const round = async (): Promise<void> => {
    while (again && !closed) {
      again = false
      try {
        await converge()
        complaint = ''
        retryMs = retryFirstMs
        timer = setTimeout(wake, lookEveryMs)
      } catch (error) {
        const message = describeError(error)
        // The same again and again says nothing new.
        if (message !== complaint)
          log.warn({ error: message }, 'the network between machines is not as the store says, trying on')
        complaint = message
        timer = setTimeout(wake, retryMs)
        retryMs = Math.min(lookEveryMs, 2 * retryMs)
      }
      timer.unref()
    }
  }
  function wake(): void {
    again = true
    if (working || closed) return
    clearTimeout(timer)
    working = round().finally(() => {
      working = undefined
      if (again) wake()
    })
  }

  return {
    connect: (store, signal) => {
      claim = new SubnetClaim(store, () => performance.now())
      void followPrefix({
        store,
        prefix: storeKeys.network,
        log,
        signal,
        reset: (entries) => {
          heard = new Map(entries.map(({ key, text }) => [key, text]))
          wake()
        },
        changed: (changes) => {
          for (const { key, text } of changes) {
            if (text === undefined) heard?.delete(key)
            else heard?.set(key, text)
          }
          wake()
        },
      })
    },
    close: async () => {
      closed = true
      clearTimeout(timer)
      await working
    },
  }
}

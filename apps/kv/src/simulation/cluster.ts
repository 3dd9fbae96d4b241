import { type Clock, Fault, type Log } from '@kiln/service'
import { type Random, SimulatedDisk, SimulatedNetwork, type VirtualClock } from '@kiln/simulation'
import { startConsensus } from '../consensus/consensus.ts'
import { clusterId, parseInitialCluster } from '../consensus/identity.ts'
import type { Consensus, Member, Transport } from '../consensus/types.ts'
import { MachineClock } from './machine-clock.ts'
import type { Observer } from './observer.ts'
import { type CommandResult, createRegisterMachine, type RegisterMachine } from './register-machine.ts'

export const tickMs = 10

/** A member of the simulated cluster: its disk outlives its runs. */
export type SimulatedNode = {
  name: string
  id: bigint
  clusterId: bigint
  disk: SimulatedDisk
  clock: MachineClock
  peerUrls: string[]
  /** It was added to the running cluster, whose members it was told. */
  joining: boolean
  members: readonly Member[]
  /** Undefined while it is down or starting. */
  running: { consensus: Consensus<CommandResult>; machine: RegisterMachine } | undefined
  /** Counts power cuts; what belongs to an earlier life does nothing any more. */
  life: number
  /** Life in which it was last started: who starts it again meanwhile, by another plan, does nothing. */
  startedLife: number | undefined
}

export type Cluster = {
  nodes: SimulatedNode[]
  network: SimulatedNetwork
  after(ms: number, fn: () => void): void
  start(node: SimulatedNode): void
  crash(node: SimulatedNode): void
  /** A new machine in the place of one that was removed. */
  replace(node: SimulatedNode, id: bigint, members: readonly Member[]): void
}

const silent: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => silent,
}

/** Real core, real log and real driver; simulated clock, network and disks. */
export function createCluster(options: {
  size: number
  clock: VirtualClock
  random: Random
  electionTicks: number
  observer: Observer
  leaseReads?: boolean
  log?: Log
}): Cluster {
  const { size, clock, random, observer, electionTicks } = options
  const network = new SimulatedNetwork(clock, random.fork())
  const text = Array.from({ length: size }, (_, at) => `n${at + 1}=http://n${at + 1}:2380`).join(',')
  const members = parseInitialCluster(text, 'simulation')
  const nodes = members.map((member): SimulatedNode => {
    const disk = new SimulatedDisk(clock, random.fork())
    return {
      name: member.name,
      id: member.id,
      clusterId: clusterId(members),
      disk,
      clock: new MachineClock(clock),
      peerUrls: member.peerUrls,
      joining: false,
      members,
      running: undefined,
      life: 0,
      startedLife: undefined,
    }
  })

  const crash = (node: SimulatedNode): void => {
    node.life++
    node.running = undefined
    network.detach(node.id)
    node.disk.crash()
  }

  const run = async (node: SimulatedNode): Promise<void> => {
    const { life } = node
    const isAlive = (): boolean => node.life === life
    const machine = createRegisterMachine(observer.follow(node.name))
    // Clocks of machines do not run alike, and a member under load is slow.
    const own = node.clock.start(isAlive, random.pick([0.6, 1, 1, 1, 2.5]))
    const consensus = await startConsensus<CommandResult>({
      clusterId: clusterId(members),
      self: node.id,
      members: node.members,
      joining: node.joining,
      disk: node.disk.mount(),
      stateMachine: machine,
      transport: simulatedTransport(network, node.id, isAlive, own, node.clock),
      clock: own,
      random: () => random.next(),
      tickMs,
      electionTicks,
      log: options.log ?? silent,
      endOfTurn: (fn) => void own.after(0, fn),
      leaseReads: options.leaseReads,
      onFatal: (fault: Fault) => {
        if (!isAlive()) return
        // Its process is gone, with all that it still had under way.
        crash(node)
        if (fault.code !== 'STORE_MEMBER_REMOVED' && !isFullDisk(fault)) {
          observer.breach(node.name, `ended itself: ${fault.code} ${fault.message} ${String(fault.cause)}`)
        }
      },
      limits: {
        segmentBytes: 128 << 10,
        snapshotEntries: 100,
        keptEntries: 20,
        snapshotChunkBytes: 256,
        requestTimeoutMs: 1000,
      },
    })
    if (isAlive()) node.running = { consensus, machine }
  }

  return {
    nodes,
    network,
    after: (ms, fn) => void clock.after(ms, fn),
    start: (node) => {
      if (node.startedLife === node.life) return
      node.startedLife = node.life
      const { life } = node
      run(node).catch((error) => {
        if (node.life !== life) return
        crash(node)
        if (isFullDisk(error)) return
        observer.breach(node.name, `did not start: ${error instanceof Error ? error.stack : String(error)}`)
      })
    },
    crash,
    replace: (node, id, now) => {
      node.id = id
      node.joining = true
      node.members = now
      node.disk = new SimulatedDisk(clock, random.fork())
    },
  }
}

/** A member may end for a disk that is full, and starts again when it has room. */
function isFullDisk(error: unknown): boolean {
  const code =
    error instanceof Fault || error instanceof Error ? (error as { code?: unknown }).code : undefined
  return code === 'STORE_DISK_FULL' || code === 'ENOSPC'
}

function simulatedTransport(
  network: SimulatedNetwork,
  id: bigint,
  isAlive: () => boolean,
  clock: Clock,
  machine: MachineClock,
): Transport {
  let onLost: (to: bigint) => void = () => undefined
  let peers = new Set<bigint>()
  // Whoever connects says where it can be reached, even if we do not know yet that it is a member.
  const guests = new Set<bigint>()
  return {
    start: (receive, lost) => {
      onLost = lost
      network.attach(id, (from, frame) =>
        machine.whenAwake(() => {
          if (!isAlive()) return
          guests.add(from)
          receive(from, frame)
        }),
      )
    },
    // The sender may go on using its bytes, and so may the network with a duplicate.
    send: (to, frame) => {
      if (!isAlive() || !(peers.has(to) || guests.has(to))) return
      if (!network.send(id, to, frame)) clock.after(0, () => onLost(to))
    },
    setPeers: (members: readonly Member[]) => {
      peers = new Set(members.map((member) => member.id))
    },
    stop: async () => {
      if (isAlive()) network.detach(id)
    },
  }
}

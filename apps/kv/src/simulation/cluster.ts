import type { Clock, Fault, Log } from '@kiln/service'
import { type Random, SimulatedDisk, SimulatedNetwork, type VirtualClock } from '@kiln/simulation'
import { startConsensus } from '../consensus/consensus.ts'
import { clusterId, parseInitialCluster } from '../consensus/identity.ts'
import type { Consensus, Member, Transport } from '../consensus/types.ts'
import type { Observer } from './observer.ts'
import { type CommandResult, createRegisterMachine, type RegisterMachine } from './register-machine.ts'

export const tickMs = 10

/** A member of the simulated cluster: its disk outlives its runs. */
export type SimulatedNode = {
  name: string
  id: bigint
  clusterId: bigint
  disk: SimulatedDisk
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
      peerUrls: member.peerUrls,
      joining: false,
      members,
      running: undefined,
      life: 0,
      startedLife: undefined,
    }
  })

  const run = async (node: SimulatedNode): Promise<void> => {
    const { life } = node
    const isAlive = (): boolean => node.life === life
    const machine = createRegisterMachine(observer.follow(node.name))
    // Clocks of machines do not run alike, and a member under load is slow.
    const own = aliveClock(clock, isAlive, random.pick([0.6, 1, 1, 1, 2.5]))
    const consensus = await startConsensus<CommandResult>({
      clusterId: clusterId(members),
      self: node.id,
      members: node.members,
      joining: node.joining,
      disk: node.disk.mount(),
      stateMachine: machine,
      transport: simulatedTransport(network, node.id, isAlive, own),
      clock: own,
      random: () => random.next(),
      tickMs,
      electionTicks,
      log: options.log ?? silent,
      endOfTurn: (fn) => void own.after(0, fn),
      onFatal: (fault: Fault) => {
        if (!isAlive()) return
        // Its process is gone, with all that it still had under way.
        node.life++
        node.running = undefined
        network.detach(node.id)
        node.disk.crash()
        if (fault.code !== 'STORE_MEMBER_REMOVED') {
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
    start: (node) => {
      if (node.startedLife === node.life) return
      node.startedLife = node.life
      run(node).catch((error) => {
        observer.breach(node.name, `did not start: ${error instanceof Error ? error.stack : String(error)}`)
      })
    },
    crash: (node) => {
      node.life++
      node.running = undefined
      network.detach(node.id)
      node.disk.crash()
    },
    replace: (node, id, now) => {
      node.id = id
      node.joining = true
      node.members = now
      node.disk = new SimulatedDisk(clock, random.fork())
    },
  }
}

/** Timers of a machine that lost power do not fire; those of a slow one fire late. */
function aliveClock(clock: VirtualClock, isAlive: () => boolean, pace: number): Clock {
  return {
    now: () => clock.now(),
    after: (ms, fn) =>
      clock.after(ms * pace, () => {
        if (isAlive()) fn()
      }),
  }
}

function simulatedTransport(
  network: SimulatedNetwork,
  id: bigint,
  isAlive: () => boolean,
  clock: Clock,
): Transport {
  let onLost: (to: bigint) => void = () => undefined
  let peers = new Set<bigint>()
  // Whoever connects says where it can be reached, even if we do not know yet that it is a member.
  const guests = new Set<bigint>()
  return {
    start: (receive, lost) => {
      onLost = lost
      network.attach(id, (from, frame) => {
        guests.add(from)
        receive(from, frame)
      })
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

import type { Log } from '@kiln/service'
import { findViolation, History, Random, settle, VirtualClock } from '@kiln/simulation'
import { Clients } from './clients.ts'
import { createCluster, tickMs } from './cluster.ts'
import { Nemesis } from './nemesis.ts'
import { type Breach, Observer } from './observer.ts'
import { Operator } from './operator.ts'
import { encodeCommand } from './register-machine.ts'

export type RunOptions = {
  seed: number
  ticks: number
  /** A disk that says it has synced, and has not: the checks must notice. */
  ignoreSync?: boolean
  /** More clients on fewer keys and more troubles, each shorter: what is wrong shows sooner. */
  hectic?: boolean | undefined
  /** Whether leaders serve reads alone for a while; by chance if it is not said. */
  leaseReads?: boolean | undefined
  log?: Log
}

export type RunResult = {
  seed: number
  breaches: Breach[]
  figures: Record<string, number>
}

/** One simulated life of a cluster; the same seed gives the same run. Stops at the first breach. */
export async function runSeed({
  seed,
  ticks,
  ignoreSync,
  hectic,
  leaseReads,
  log,
}: RunOptions): Promise<RunResult> {
  const random = new Random(seed)
  const clock = new VirtualClock()
  const observer = new Observer()
  const size = random.chance(0.25) ? 5 : 3
  const cluster = createCluster({
    size,
    clock,
    random: random.fork(),
    observer,
    log,
    electionTicks: random.pick([3, 5, 10]),
    leaseReads: leaseReads ?? random.chance(0.3),
  })
  const { nodes } = cluster
  const history = new History()
  const replaces = !ignoreSync && random.chance(0.5)
  const clients = new Clients(
    cluster,
    history,
    random.fork(),
    hectic ? { clients: 10, keys: 3 } : { clients: 5, keys: 6 },
  )
  const operator = new Operator(cluster, random.fork())
  const nemesis = new Nemesis(cluster, operator, random.fork(), {
    damage: !ignoreSync,
    hectic: hectic === true || random.chance(0.4),
  })
  operator.onJoint = () => {
    if (observer.tick < ticks) nemesis.jointBegins()
  }
  for (const node of nodes) {
    if (ignoreSync) node.disk.faults.ignoreSync = true
    cluster.start(node)
  }
  const advance = async (): Promise<void> => {
    observer.tick++
    try {
      clock.advance(tickMs)
    } catch (error) {
      // An assertion of a member: in a process of its own it would have ended that.
      observer.breach('cluster', `threw ${error instanceof Error ? error.stack : String(error)}`)
    }
    await settle()
    for (const node of nodes) if (node.running) observer.status(node.name, node.running.consensus.status())
  }
  while (observer.tick < ticks && observer.breaches.length === 0) {
    nemesis.act(observer.tick)
    operator.act(observer.tick, replaces && !nemesis.isHealing(), hectic ? 0.02 : 0.002)
    clients.act(observer.tick)
    await advance()
  }
  nemesis.stop()
  if (observer.breaches.length === 0) await checkRecovery()
  if (observer.breaches.length === 0) {
    const violation = findViolation(history.calls)
    if (violation) {
      observer.breach(
        'clients',
        `what was seen of ${violation.key} is not linearizable: ${describe(violation.calls)}`,
      )
    }
  }
  return { seed, breaches: observer.breaches, figures: figures() }

  /** With all faults gone the cluster must work again, and all members must hold the same. */
  async function checkRecovery(): Promise<void> {
    let done = 0
    for (let tick = 0; tick < 1000 && observer.breaches.length === 0; tick++) {
      if (tick > 400 && !operator.isBusy()) break
      operator.act(observer.tick, false)
      await advance()
    }
    if (operator.isBusy()) observer.breach('cluster', 'does not finish a change of its members')
    for (const node of nodes) {
      if (node.running === undefined) {
        observer.breach(node.name, 'does not run after all faults are gone')
        continue
      }
      const last = { kind: 'put' as const, id: -nodes.indexOf(node), key: 'last', value: node.name }
      node.running.consensus.propose(encodeCommand(last)).then(
        () => done++,
        (error) => observer.breach(node.name, `does not take writes after all faults are gone: ${error}`),
      )
      for (let tick = 0; tick < 30; tick++) await advance()
    }
    if (done !== nodes.length) observer.breach('cluster', `answered ${done} of ${nodes.length} last writes`)
    const dumps = new Map(nodes.map((node) => [node.name, node.running?.machine.dump()]))
    if (new Set(dumps.values()).size !== 1) {
      observer.breach('cluster', `members disagree in the end: ${JSON.stringify([...dumps])}`)
    }
  }

  function figures(): Record<string, number> {
    const disks = nodes.map((node) => node.disk.counters)
    return {
      nodes: size,
      entries: observer.entries(),
      terms: observer.terms(),
      restores: observer.restores,
      calls: history.calls.length,
      ...clients.counters,
      ...nemesis.counters,
      ...operator.counters,
      frames: cluster.network.counters.sent,
      lostFrames: cluster.network.counters.lost,
      writes: disks.reduce((sum, disk) => sum + disk.writes, 0),
      lostSectors: disks.reduce((sum, disk) => sum + disk.lostSectors, 0),
    }
  }
}

function describe(calls: readonly { calledAt: number; returnedAt: number | undefined }[]): string {
  return calls.map((call) => JSON.stringify(call)).join('\n  ')
}

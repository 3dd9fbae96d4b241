import { Fault } from '@kiln/service'
import { Random, settle, VirtualClock } from '@kiln/simulation'
import { expect, test } from 'vitest'
import { decodeFrame } from '../consensus/frame.ts'
import { createCluster, type SimulatedNode, tickMs } from './cluster.ts'
import { Observer } from './observer.ts'
import { encodeCommand } from './register-machine.ts'

async function startCluster(size: number) {
  const clock = new VirtualClock()
  const observer = new Observer()
  const cluster = createCluster({ size, clock, random: new Random(1), observer, electionTicks: 10 })
  async function pass(ticks: number): Promise<void> {
    for (let n = 0; n < ticks; n++) {
      clock.advance(tickMs)
      await settle()
    }
  }
  let id = 0
  /** The code of the fault, or `done`, or `waiting`. */
  async function put(node: SimulatedNode, bytes = 10, ticks = 300): Promise<string> {
    let outcome = 'waiting'
    const value = 'x'.repeat(bytes)
    node.running!.consensus.propose(encodeCommand({ kind: 'put', id: ++id, key: `k${id % 5}`, value })).then(
      () => {
        outcome = 'done'
      },
      (error) => {
        outcome = error instanceof Fault ? error.code : String(error)
      },
    )
    for (let n = 0; n < ticks && outcome === 'waiting'; n++) await pass(1)
    return outcome
  }
  for (const node of cluster.nodes) cluster.start(node)
  await pass(100)
  const leader = (): SimulatedNode => cluster.nodes.find((node) => node.running?.consensus.isLeader())!
  return { cluster, observer, pass, put, leader }
}

test('a leader whose disk is full refuses writes by name and takes them again when there is room', async () => {
  const { observer, put, leader, cluster, pass } = await startCluster(1)
  const { disk } = leader()
  disk.faults.capacityBytes = disk.usedBytes() + 4_000
  let written = 0
  let outcome = 'done'
  for (; written < 500 && outcome === 'done'; written++) outcome = await put(leader(), 2_000)
  expect(outcome).toBe('STORE_DISK_FULL')
  expect(observer.breaches).toEqual([])
  disk.faults.capacityBytes = Number.MAX_SAFE_INTEGER
  for (let tries = 0; tries < 60 && outcome !== 'done'; tries++) outcome = await put(leader(), 10)
  expect(outcome).toBe('done')
  // Nothing that was acknowledged before is missing after a power cut.
  const node = leader()
  const before = node.running!.machine.dump()
  cluster.crash(node)
  cluster.start(node)
  await pass(100)
  expect(node.running!.machine.dump()).toBe(before)
})

test('without a majority a write fails as not done when nobody took it, and as unknown when a leader had it', async () => {
  const { cluster, put, leader, pass } = await startCluster(3)
  const old = leader()
  const [a, b] = cluster.nodes.filter((node) => node !== old) as [SimulatedNode, SimulatedNode]
  cluster.crash(a)
  cluster.crash(b)
  expect(await put(old)).toBe('STORE_TIMEOUT')
  await pass(50)
  expect(await put(old)).toBe('STORE_NO_LEADER')
})

test('a proposal beyond the limit is refused before it is sent', async () => {
  const { put, leader } = await startCluster(1)
  expect(await put(leader(), 200_000)).toBe('STORE_REQUEST_TOO_LARGE')
})

test('leadership is confirmed with every heartbeat, and not any more when a leader is cut off', async () => {
  const { cluster, leader, pass } = await startCluster(3)
  const node = leader()
  const { consensus } = node.running!
  const first = consensus.leadershipConfirmedAt()!
  await pass(20)
  const second = consensus.leadershipConfirmedAt()!
  expect(second).toBeGreaterThan(first)
  cluster.network.partition(
    [node.id],
    cluster.nodes.map((other) => other.id).filter((id) => id !== node.id),
  )
  await pass(5)
  const third = consensus.leadershipConfirmedAt()!
  expect(third - second).toBeLessThanOrEqual(2 * tickMs)
  await pass(40)
  expect(consensus.leadershipConfirmedAt()).toBeUndefined()
  await expect(consensus.confirmLeadership()).rejects.toMatchObject({ code: 'STORE_NOT_LEADER' })
})

test('a restarted member numbers what it sends anew, so that a late answer to what it sent before is not taken for another', async () => {
  const { cluster, put, leader, pass } = await startCluster(3)
  const node = cluster.nodes.find((other) => other !== leader())!
  const numbers: number[] = []
  const send = cluster.network.send.bind(cluster.network)
  cluster.network.send = (from, to, bytes) => {
    const frame = decodeFrame(bytes)
    if (from === node.id && frame.kind === 'propose') numbers.push(frame.sequence)
    if (from === node.id && frame.kind === 'message' && frame.message.type === 'read-request') {
      numbers.push(frame.message.context)
    }
    return send(from, to, bytes)
  }
  for (const life of [1, 2]) {
    expect(await put(node)).toBe('done')
    node.running!.consensus.readIndex().catch(() => undefined)
    await pass(5)
    if (life === 2) break
    cluster.crash(node)
    cluster.start(node)
    await pass(100)
  }
  expect(numbers.length).toBeGreaterThanOrEqual(4)
  expect(new Set(numbers).size).toBe(numbers.length)
})

import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Fault, type Log, systemClock } from '@kiln/service'
import { afterEach, expect, test } from 'vitest'
import type { Disk } from '../wal/disk.ts'
import { nodeDisk } from '../wal/node-disk.ts'
import { startConsensus } from './consensus.ts'
import { clusterId, memberId } from './identity.ts'
import { startTcpTransport } from './tcp-transport.ts'
import type { Consensus, ConsensusOptions, Member, ProposalTimes, StateMachine } from './types.ts'

const quiet: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => quiet,
}

const running: Consensus<number>[] = []
afterEach(async () => {
  for (const consensus of running.splice(0)) await consensus.stop()
})

/** A list of bytes; an entry's result is the sum so far. */
function createSum(): StateMachine<number> & { sum: number } {
  const machine = {
    sum: 0,
    apply: (entries: readonly { data: Uint8Array }[]) =>
      entries.map(({ data }) => {
        machine.sum += data[0]!
        return machine.sum
      }),
    snapshot: async () => new TextEncoder().encode(String(machine.sum)),
    restore: async (snapshot: AsyncIterable<Uint8Array>) => {
      const pieces: Uint8Array[] = []
      for await (const piece of snapshot) pieces.push(piece)
      machine.sum = Number(Buffer.concat(pieces))
    },
  }
  return machine
}

type Started = { consensus: Consensus<number>; machine: { sum: number }; folder: string }

async function startMember(options: {
  members: Member[]
  self: bigint
  cluster: bigint
  folder?: string
  joining?: boolean
  segmentBytes?: number
  machine?: StateMachine<number> & { sum: number }
  disk?: (disk: Disk) => Disk
  slow?: ConsensusOptions<number>['slow']
}): Promise<Started> {
  const { members, self, cluster } = options
  const folder = options.folder ?? mkdtempSync(join(tmpdir(), 'kiln-consensus-'))
  const own = members.find((member) => member.id === self)!
  const machine = options.machine ?? createSum()
  const transport = await startTcpTransport({
    self,
    clusterId: cluster,
    listen: [{ host: '127.0.0.1', port: Number(new URL(own.peerUrls[0]!).port) }],
    advertise: own.peerUrls,
    clock: systemClock,
    random: Math.random,
    log: quiet,
  })
  const consensus = await startConsensus<number>({
    clusterId: cluster,
    self,
    members,
    joining: options.joining,
    disk: (options.disk ?? ((disk) => disk))(await nodeDisk(folder)),
    stateMachine: machine,
    slow: options.slow,
    transport,
    clock: systemClock,
    random: Math.random,
    tickMs: 20,
    // A second: a busy host's slow fsync must not cost the leader its place.
    electionTicks: 50,
    log: quiet,
    onFatal: () => undefined,
    limits: { segmentBytes: options.segmentBytes ?? 1 << 20, requestTimeoutMs: 20_000 },
  })
  running.push(consensus)
  return { consensus, machine, folder }
}

const pause = (): Promise<void> => new Promise((resume) => setTimeout(resume, 5))

async function freePorts(count: number): Promise<number[]> {
  const transports = []
  for (let n = 0; n < count; n++) {
    transports.push(
      await startTcpTransport({
        self: 1n,
        clusterId: 1n,
        listen: [{ host: '127.0.0.1', port: 0 }],
        clock: systemClock,
        random: Math.random,
        log: quiet,
      }),
    )
  }
  const ports = transports.map((transport) => transport.ports()[0]!)
  for (const transport of transports) await transport.stop()
  return ports
}

async function makeMembers(count: number): Promise<Member[]> {
  return (await freePorts(count)).map((port, at) => {
    const peerUrls = [`http://127.0.0.1:${port}`]
    return { id: memberId(peerUrls, 'test'), name: `n${at}`, peerUrls, clientUrls: [], learner: false }
  })
}

test('three members over TCP take writes from each of them and agree', async () => {
  const members = await makeMembers(3)
  const cluster = clusterId(members)
  const started = await Promise.all(members.map(({ id }) => startMember({ members, self: id, cluster })))
  const results = await Promise.all(
    Array.from({ length: 300 }, (_, at) => started[at % 3]!.consensus.propose(Uint8Array.of(1))),
  )
  expect(new Set(results).size).toBe(300)
  for (const { consensus, machine } of started) {
    await consensus.readIndex()
    expect(machine.sum).toBe(300)
  }
})

test('a single member elects itself at once and finds everything again after a restart', async () => {
  const members = await makeMembers(1)
  const cluster = clusterId(members)
  const self = members[0]!.id
  const first = await startMember({ members, self, cluster })
  await first.consensus.propose(Uint8Array.of(3))
  await first.consensus.compactLog()
  await first.consensus.propose(Uint8Array.of(4))
  await first.consensus.stop()
  const second = await startMember({ members, self, cluster, folder: first.folder })
  await second.consensus.readIndex()
  expect(second.machine.sum).toBe(7)
})

test('a member is added as learner, gets a snapshot, is promoted, and another is removed', async () => {
  const members = await makeMembers(4)
  const initial = members.slice(0, 3)
  const cluster = clusterId(initial)
  const started = await Promise.all(
    initial.map(({ id }) => startMember({ members: initial, self: id, cluster })),
  )
  const [a] = started as [Started]
  for (let n = 0; n < 10; n++) await a.consensus.propose(Uint8Array.of(1))
  for (const { consensus } of started) await consensus.compactLog()
  const added = await a.consensus.addMember({ peerUrls: members[3]!.peerUrls, learner: true })
  const joined = await startMember({
    members: [...initial, added],
    self: added.id,
    cluster,
    joining: true,
  })
  await joined.consensus.readIndex()
  expect(joined.machine.sum).toBe(10)
  await a.consensus.promoteMember(added.id)
  // Not the leader: what is proposed while it goes may have to be proposed again.
  const gone = started.find(({ consensus }) => consensus !== a.consensus && !consensus.isLeader())!
  await a.consensus.removeMember(gone.consensus.id())
  await joined.consensus.propose(Uint8Array.of(5))
  expect(joined.machine.sum).toBe(15)
  await a.consensus.readIndex()
  const left = [...initial.map((member) => member.id), added.id].filter((id) => id !== gone.consensus.id())
  expect(a.consensus.members().map((member) => member.id)).toEqual(left.sort((x, y) => (x < y ? -1 : 1)))
})

test('what is behind an entry that takes its time waits for it, and so do reads, snapshots and a stop', async () => {
  const members = await makeMembers(1)
  const machine = createSum()
  let release = (): void => undefined
  const slow: typeof machine = {
    get sum() {
      return machine.sum
    },
    snapshot: machine.snapshot,
    restore: machine.restore,
    apply: (entries) => {
      if (entries.every(({ data }) => data[0] !== 100)) return machine.apply(entries)
      return new Promise<void>((resume) => {
        release = resume
      }).then(() => machine.apply(entries))
    },
  }
  const self = members[0]!.id
  const { consensus } = await startMember({ members, self, cluster: clusterId(members), machine: slow })
  await consensus.propose(Uint8Array.of(1))
  const settled: string[] = []
  const note = (name: string, promise: Promise<unknown>): Promise<unknown> =>
    promise.then(() => settled.push(name))
  const slowOne = note('slow', consensus.propose(Uint8Array.of(100)))
  while (consensus.status().committedIndex === consensus.appliedIndex()) await pause()
  const behind = note('behind', consensus.propose(Uint8Array.of(2)))
  const read = note('read', consensus.readIndex())
  await consensus.compactLog()
  for (let turn = 0; turn < 10; turn++) await pause()
  expect(settled).toEqual([])
  expect(consensus.status().snapshotIndex).toBe(1)
  release()
  await Promise.all([slowOne, behind, read])
  expect(settled[0]).toBe('slow')
  expect(machine.sum).toBe(103)
  await consensus.compactLog()
  expect(consensus.status().snapshotIndex).toBe(consensus.appliedIndex())

  const last = consensus.propose(Uint8Array.of(100)).catch((error: Fault) => error.code)
  while (consensus.status().committedIndex === consensus.appliedIndex()) await pause()
  const stopped = note('stopped', consensus.stop())
  for (let turn = 0; turn < 10; turn++) await pause()
  expect(settled).not.toContain('stopped')
  release()
  await stopped
  expect(await last).toBe('STORE_STOPPED')
})

test('ids are those that etcd derives', () => {
  const id = memberId(['http://localhost:2380'], 'etcd-cluster')
  expect(id.toString(16)).toBe('8e9e05c52164694d')
  expect(clusterId([{ id }]).toString(16)).toBe('cdf818194e3a8c32')
})

test('a proposal that was slow is reported with the time at which it got how far', async () => {
  const members = await makeMembers(1)
  const reports: { call: object; times: ProposalTimes }[] = []
  let delayMs = 0
  const { consensus } = await startMember({
    members,
    self: members[0]!.id,
    cluster: clusterId(members),
    disk: (disk) => ({
      ...disk,
      open: async (name, options) => {
        const file = await disk.open(name, options)
        const write: typeof file.write = (bytes, offset, done) =>
          void setTimeout(() => file.write(bytes, offset, done), delayMs)
        return { ...file, write }
      },
    }),
    slow: { ms: 100, report: (call, times) => void reports.push({ call, times }) },
  })
  await consensus.propose(Uint8Array.of(1))
  reports.length = 0
  delayMs = 150
  const call = {}
  await Promise.all([consensus.propose(Uint8Array.of(2), call), consensus.propose(Uint8Array.of(3))])
  expect(reports.map((report) => report.call === call)).toEqual([true])
  const { addedAt, sentAt, syncedAt, committedAt, appliedAt } = reports[0]!.times
  expect(syncedAt! - sentAt).toBeGreaterThanOrEqual(145)
  expect([sentAt, committedAt, appliedAt].map((at) => at! >= addedAt)).toEqual([true, true, true])
  expect(committedAt).toBeGreaterThanOrEqual(syncedAt!)
})

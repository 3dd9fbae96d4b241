import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { EtcdClient } from '@kiln/etcd-api'
import { Random } from '@kiln/simulation'
import { freePorts, type MemberProcess, memberProcess } from '../testing/member-process.ts'
import { findViolations } from './check.ts'
import { Load, prefix } from './load.ts'
import { type FaultKind, type FaultSpan, haunt, mountSmallDisk } from './nemesis.ts'
import type { Observed, Recorded, Violation, WatchLog } from './observed.ts'
import { Partition, type PeerProxy, startPeerProxy } from './peer-proxy.ts'

export type VerifyOptions = {
  seed: number
  operations: number
  clients: number
  faults: readonly FaultKind[]
  /** The run goes on until so many were undone, too. */
  faultsMin: number
  /** It ends then, however many operations and faults there were. */
  secondsMax: number
  signal: AbortSignal
  note(line: string): void
}

export type Verified = {
  operations: Observed[]
  acknowledged: number
  open: number
  revisions: number
  faults: FaultSpan[]
  hashes: string[]
  violations: Violation[]
  endedAt: number
}

const members = 3
const callTimeoutMs = 2000
const settleMs = 60_000

/** Three members as processes, under load and faults; then what they hold is compared with what the clients were told. */
export async function verify(options: VerifyOptions): Promise<Verified> {
  const began = performance.now()
  const now = (): number => performance.now() - began
  const random = new Random(options.seed)
  const cluster = await startCluster(options.faults.includes('disk'))
  const stores = cluster.members.map(({ name, endpoint }) => ({
    member: name,
    store: new EtcdClient({ endpoints: [endpoint], timeoutMs: callTimeoutMs }),
  }))
  const end = new AbortController()
  try {
    const load = new Load(stores, random, now)
    const watches = stores.map((at) => followAll(at, now, end.signal))
    const faults: FaultSpan[] = []
    const isOver = (): boolean =>
      options.signal.aborted ||
      now() > options.secondsMax * 1000 ||
      (load.answered >= options.operations && faults.length >= options.faultsMin)
    const progress = setInterval(
      () =>
        options.note(`${load.answered} of ${options.operations} operations, ${(now() / 1000).toFixed(0)} s`),
      5000,
    )
    await Promise.all([
      haunt({ kinds: options.faults, ...cluster, random: new Random(options.seed + 1), now, isOver, faults }),
      ...Array.from({ length: options.clients }, (_, number) => load.client(number, isOver)),
    ]).finally(() => clearInterval(progress))
    const last = await eventually(async () => Number((await stores[0]!.store.getPrefix(prefix)).revision))
    const history = await historyUpTo(stores[0]!.store, last)
    const isCaughtUp = (): boolean => watches.every(({ changes }) => (changes.at(-1)?.revision ?? 0) >= last)
    const until = now() + settleMs
    while (!isCaughtUp() && now() < until) await pause(50)
    // One revision for all, as leases may go on ending.
    const logs = watches.map(({ member, changes, seenAt }) => {
      const kept = changes.filter(({ revision }) => revision <= last).length
      return { member, changes: changes.slice(0, kept), seenAt: seenAt.slice(0, kept) }
    })
    const hashes = await Promise.all(
      stores.map(({ store }) => eventually(async () => String((await store.hashKv(BigInt(last))).hash))),
    )
    const violations = findViolations({
      operations: load.operations,
      history,
      watches: logs,
      leases: load.leases,
    })
    if (new Set(hashes).size > 1)
      violations.push({
        rule: 'hash',
        text: `members differ at revision ${last}: ${hashes.join(', ')}`,
        ids: [],
        at: 0,
      })
    return {
      operations: load.operations,
      acknowledged: load.answered,
      open: load.operations.filter(({ returnedAt }) => returnedAt === undefined).length,
      revisions: last - 1,
      faults,
      hashes,
      violations,
      endedAt: now(),
    }
  } finally {
    end.abort()
    for (const { store } of stores) store.close()
    await cluster.stop()
  }
}

type VerifiedCluster = { members: MemberProcess[]; partition: Partition; stop(): Promise<void> }

async function startCluster(smallDisks: boolean): Promise<VerifiedCluster> {
  const folder = mkdtempSync(join(tmpdir(), 'kiln-verify-'))
  const ports = await freePorts(members * 3)
  const partition = new Partition()
  const names = Array.from({ length: members }, (_, at) => `m${at + 1}`)
  const proxied = (at: number): string => `http://127.0.0.1:${ports[at * 3 + 2]}`
  const flags = [`--initial-cluster=${names.map((name, at) => `${name}=${proxied(at)}`).join(',')}`]
  const ends: (() => unknown)[] = [() => rmSync(folder, { recursive: true, force: true })]
  const processes = names.map((name, at) => {
    const dataDir = join(folder, name)
    mkdirSync(dataDir, { mode: 0o700 })
    if (smallDisks) ends.push(mountSmallDisk(dataDir))
    const [client, peer] = [ports[at * 3], ports[at * 3 + 1]].map((port) => `http://127.0.0.1:${port}`)
    return memberProcess(name, client!, peer!, dataDir, flags, proxied(at))
  })
  const stop = async (): Promise<void> => {
    partition.heal()
    for (const member of processes) member.signal('SIGCONT')
    await Promise.all(processes.map((member) => member.stop()))
    for (const end of ends.reverse()) await end()
  }
  try {
    const proxies: PeerProxy[] = await Promise.all(
      names.map((member, at) =>
        startPeerProxy({
          member,
          targetPort: ports[at * 3 + 1]!,
          port: ports[at * 3 + 2]!,
          partition,
          pids: () => processes.map(({ name, pid }) => ({ member: name, pid })),
        }),
      ),
    )
    ends.push(...proxies.map((proxy) => () => proxy.close()))
    await Promise.all(processes.map((member) => member.start()))
  } catch (error) {
    await stop()
    throw error
  }
  return { members: processes, partition, stop }
}

/** What a watcher of one member hears from the first revision on, over its restarts. */
function followAll(
  { member, store }: { member: string; store: EtcdClient },
  now: () => number,
  signal: AbortSignal,
): WatchLog {
  const log: WatchLog = { member, changes: [], seenAt: [] }
  const follow = async (): Promise<void> => {
    for await (const outcome of store.watch(prefix, { startRevision: 1n, signal })) {
      if (outcome.kind === 'compacted') return
      const at = now()
      for (const event of outcome.events) {
        log.changes.push(changeOf(event))
        log.seenAt.push(at)
      }
    }
  }
  void follow().catch(() => {
    // What it did not hear is missing from its log, and found there.
  })
  return log
}

async function historyUpTo(store: EtcdClient, last: number): Promise<Recorded[]> {
  const changes: Recorded[] = []
  const end = AbortSignal.timeout(settleMs)
  for await (const outcome of store.watch(prefix, { startRevision: 1n, signal: end })) {
    if (outcome.kind === 'compacted') throw new Error('assertion failed: nobody compacts')
    changes.push(...outcome.events.map(changeOf))
    if (Number(outcome.revision) >= last) break
  }
  return changes.filter(({ revision }) => revision <= last)
}

type WatchedEvent =
  | { kind: 'put'; entry: { key: string; text: string; modRevision: bigint } }
  | { kind: 'delete'; key: string; modRevision: bigint }

const changeOf = (event: WatchedEvent): Recorded =>
  event.kind === 'put'
    ? { revision: Number(event.entry.modRevision), key: event.entry.key, value: event.entry.text }
    : { revision: Number(event.modRevision), key: event.key, value: undefined }

/** After the last fault the cluster answers again before long. */
async function eventually<T>(ask: () => Promise<T>): Promise<T> {
  const until = performance.now() + settleMs
  for (;;) {
    try {
      return await ask()
    } catch (error) {
      if (performance.now() > until) throw error
      await pause(200)
    }
  }
}

const pause = (ms: number): Promise<void> => new Promise((resume) => setTimeout(resume, ms))

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { EtcdClient } from '@kiln/etcd-api'
import * as rpc from '@kiln/etcd-api/rpc'
import { createLog, systemClock } from '@kiln/service'
import { startNode } from '../node.ts'
import { loadSettings } from '../settings/settings.ts'
import { encodeCommand } from '../state/command.ts'
import { enableAuth } from '../testing/auth-calls.ts'
import { freePorts, memberProcess } from '../testing/member-process.ts'
import { writeTestCertificates } from '../testing/test-certificates.ts'
import { type Caller, startCaller } from './caller.ts'
import { type Gap, measureGap, report, rssAnonBytes } from './gap-meter.ts'
import { type StormCounts, startStormClients } from './storm-clients.ts'

const usage = `Everything at once on the leader of three members with 100/1000 ms Raft timing: full and sorted ranges, a deletion of
all keys, HashKV, a snapshot, compactions, leases that are over together, TLS handshakes, wrong passwords, slow readers, a new
learner. Exits 1 if the leader changed or its loop stood still for longer than the bound, by the CPU time of its thread.

  node apps/kv/src/bench/storm.ts [--keys N] [--leases N] [--handshakes N a second] [--gap-ms N]
`

export type StormOptions = {
  keys: number
  leases: number
  handshakesPerSecond: number
  /** Raft's times, as in etcd unless a test runs where nothing comes in time. */
  heartbeatMs?: number
  electionMs?: number
}
export type StormResult = {
  gap: Gap
  leaderChanges: number
  seconds: number
  counts: StormCounts
  areLeasesGone: boolean
  areKeysGone: boolean
  /** Bytes of each answer. */
  answers: Record<string, number>
  learnerCaughtUp: boolean
}

const prefix = { key: Buffer.from('storm/'), rangeEnd: Buffer.from('storm0') }
const valueBytes = 64
const passwordsAtOnce = 16
const slowReaders = 50
/** An answer below this is a header and nothing else. */
const emptyAnswerBytes = 64
/** Calls that came too late and were made again. */
const timeoutsMax = 20
const patienceMs = 15 * 60_000

export async function runStorm(options: StormOptions): Promise<StormResult> {
  const folder = await mkdtemp(join(tmpdir(), 'kiln-kv-storm-'))
  const ends: (() => unknown)[] = [() => rm(folder, { recursive: true, force: true })]
  try {
    return await storm(options, folder, ends)
  } finally {
    for (const end of ends.reverse()) await end()
  }
}

async function storm(options: StormOptions, folder: string, ends: (() => unknown)[]): Promise<StormResult> {
  const { keys, leases, handshakesPerSecond, heartbeatMs = 100, electionMs = 1000 } = options
  const ports = await freePorts(9)
  const urlOf = (at: number): string => `http://127.0.0.1:${ports[at]}`
  const files = await writeTestCertificates(folder)
  const [url, tlsPort] = [urlOf(0), ports[8]!]
  const cluster = [0, 1, 2].map((at) => `m${at}=${urlOf(4 + at)}`).join(',')
  const common = [
    `--heartbeat-interval=${heartbeatMs}`,
    `--election-timeout=${electionMs}`,
    '--quota-backend-bytes=-1',
  ]
  const followers = [1, 2].map((at) =>
    memberProcess(`m${at}`, urlOf(at), urlOf(4 + at), join(folder, `m${at}`), [
      `--initial-cluster=${cluster}`,
      ...common,
    ]),
  )
  for (const follower of followers) ends.push(() => follower.stop())
  const { settings } = loadSettings({
    argv: [
      '--name=m0',
      `--data-dir=${join(folder, 'm0')}`,
      `--listen-client-urls=${url},https://127.0.0.1:${tlsPort}`,
      `--advertise-client-urls=${url}`,
      `--listen-peer-urls=${urlOf(4)}`,
      `--initial-advertise-peer-urls=${urlOf(4)}`,
      `--initial-cluster=${cluster}`,
      `--cert-file=${files.cert}`,
      `--key-file=${files.key}`,
      ...common,
    ],
    env: {},
    readFile: () => '',
  })
  const starting = followers.map((follower) => follower.start())
  const node = await startNode({
    settings,
    log: createLog('storm', 'silent'),
    clock: systemClock,
    random: Math.random,
    onFatal: (fault) => {
      throw fault
    },
  })
  ends.push(() => node.stop())
  await Promise.all([...starting, node.published])
  const { consensus } = node
  const endpoints = [0, 1, 2].map(urlOf)
  const open = new EtcdClient({ endpoints, timeoutMs: 10_000 })
  ends.push(() => open.close())
  await until('this member leads', async () => {
    if (consensus.isLeader()) return true
    const leader = await Promise.all(endpoints.map((each) => open.status(each).catch(() => undefined)))
    const at = leader.findIndex((status) => status && status.leaderId === status.memberId)
    if (at > 0) await open.moveLeader(endpoints[at]!, consensus.id()).catch(() => undefined)
    return false
  })

  const proposeMany = async (count: number, one: (at: number) => Uint8Array): Promise<void> => {
    const underWay = new Set<Promise<unknown>>()
    for (let at = 0; at < count; at++) {
      const proposed = consensus.propose(one(at)).finally(() => underWay.delete(proposed))
      underWay.add(proposed)
      if (underWay.size >= 512) await Promise.race(underWay)
    }
    await Promise.all(underWay)
  }
  const value = Buffer.alloc(valueBytes, 0x76)
  await proposeMany(keys, (at) => {
    const key = Buffer.from(`storm/${String((at * 7919) % keys).padStart(9, '0')}`)
    return encodeCommand({
      kind: 'put',
      request: rpc.PutRequest.encode(rpc.PutRequest.fromPartial({ key, value })).finish(),
    })
  })
  // They are over in the same second, whenever each was granted.
  const leaseSeconds = 5 + Math.ceil(leases / 2000)
  const overAt = Date.now() + leaseSeconds * 1000
  await proposeMany(leases, (at) =>
    encodeCommand({
      kind: 'lease-grant',
      id: BigInt(at + 1),
      ttl: Math.max(2, Math.ceil((overAt - Date.now()) / 1000)),
    }),
  )
  const status = await open.status(url)
  const { tokens } = await enableAuth(url)
  const token = tokens[0]!
  await new Promise((resume) => setTimeout(resume, Math.max(0, overAt - Date.now() - 500)))

  const control = startCaller(url, token)
  ends.push(() => control.close())
  const leaseBytes = (): Promise<number> => control.call('/etcdserverpb.Lease/LeaseLeases', new Uint8Array(0))
  let leaderChanges = 0
  consensus.onLeaderChange(() => void leaderChanges++)
  const answers: Record<string, number> = {}
  let learnerCaughtUp = false
  let counts: StormCounts | undefined
  const { gap, ms } = await measureGap(async () => {
    const clients = startStormClients({
      ...{ url, tlsPort, token, handshakesPerSecond, passwords: passwordsAtOnce, slowReaders },
      key: 'storm/',
      rangeEnd: 'storm0',
    })
    const learner = addLearner({ urlOf, folder, token, cluster, common, ends })
    await largeCalls(url, token, { answers, revision: Number(status.revision) })
    await until('the leases are gone', async () => (await leaseBytes()) < emptyAnswerBytes)
    learnerCaughtUp = await learner
    counts = await clients.stop()
  })
  const keyBytes = await control.call(
    '/etcdserverpb.KV/Range',
    rpc.RangeRequest.encode(rpc.RangeRequest.fromPartial({ ...prefix, keysOnly: true })).finish(),
  )
  return {
    ...{ gap, leaderChanges, answers, learnerCaughtUp },
    seconds: ms / 1000,
    counts: counts!,
    areLeasesGone: (await leaseBytes()) < emptyAnswerBytes,
    areKeysGone: keyBytes < emptyAnswerBytes,
  }
}

/** Every large operation at the same time, each on a connection of its own. */
async function largeCalls(
  url: string,
  token: string,
  { answers, revision }: { answers: Record<string, number>; revision: number },
): Promise<void> {
  const range = (more: Partial<rpc.RangeRequest>): Uint8Array =>
    rpc.RangeRequest.encode(rpc.RangeRequest.fromPartial({ ...prefix, ...more })).finish()
  const compaction = (at: number): Uint8Array =>
    rpc.CompactionRequest.encode({ revision: BigInt(Math.max(2, at)), physical: true }).finish()
  const calls: [name: string, path: string, request: Uint8Array][] = [
    ['range', 'KV/Range', range({ revision: BigInt(revision) })],
    [
      'sorted',
      'KV/Range',
      range({
        sortTarget: rpc.RangeRequest_SortTarget.VALUE,
        sortOrder: rpc.RangeRequest_SortOrder.DESCEND,
        revision: BigInt(revision),
      }),
    ],
    ['hash', 'Maintenance/HashKV', new Uint8Array(0)],
    ['snapshot', 'Maintenance/Snapshot', new Uint8Array(0)],
    ['compaction', 'KV/Compact', compaction(revision - 1)],
    [
      'delete',
      'KV/DeleteRange',
      rpc.DeleteRangeRequest.encode(rpc.DeleteRangeRequest.fromPartial(prefix)).finish(),
    ],
  ]
  const callers: Caller[] = calls.map(() => startCaller(url, token))
  try {
    await Promise.all(
      calls.map(async ([name, path, request], at) => {
        for (;;) {
          try {
            answers[name] = await callers[at]!.call(`/etcdserverpb.${path}`, request)
            return
          } catch (error) {
            // All of them may be done twice. How often one was too late is part of the report.
            if (!(error as Error).message.includes('ended with 14 ')) throw error
            answers['timeouts'] = (answers['timeouts'] ?? 0) + 1
            if (answers['timeouts'] > timeoutsMax) throw error
          }
        }
      }),
    )
    // What the deletion left is freed too.
    answers['compaction of the deletion'] = await callers[0]!.call(
      '/etcdserverpb.KV/Compact',
      compaction(revision + 1),
    )
  } finally {
    await Promise.all(callers.map((caller) => caller.close()))
  }
}

type LearnerOptions = {
  urlOf: (at: number) => string
  folder: string
  token: string
  cluster: string
  common: string[]
  ends: (() => unknown)[]
}

/** A fourth member that gets everything while the others are busy. */
async function addLearner(options: LearnerOptions): Promise<boolean> {
  const { urlOf, folder, token, cluster, common, ends } = options
  const caller = startCaller(urlOf(0), token)
  ends.push(() => caller.close())
  await caller.call(
    '/etcdserverpb.Cluster/MemberAdd',
    rpc.MemberAddRequest.encode({ peerURLs: [urlOf(7)], isLearner: true }).finish(),
  )
  const learner = memberProcess('m3', urlOf(3), urlOf(7), join(folder, 'm3'), [
    `--initial-cluster=${cluster},m3=${urlOf(7)}`,
    '--initial-cluster-state=existing',
    ...common,
  ])
  ends.push(() => learner.stop())
  await learner.start()
  return true
}

async function until(what: string, isSo: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + patienceMs
  while (!(await isSo())) {
    if (performance.now() > deadline) throw new Error(`waited in vain until ${what}`)
    await new Promise((resume) => setTimeout(resume, 100))
  }
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      keys: { type: 'string', default: '1000000' },
      leases: { type: 'string', default: '100000' },
      handshakes: { type: 'string', default: '500' },
      'gap-ms': { type: 'string', default: '100' },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    process.stdout.write(usage)
    return 0
  }
  const result = await runStorm({
    keys: Number(values.keys),
    leases: Number(values.leases),
    handshakesPerSecond: Number(values.handshakes),
  })
  const { gap, leaderChanges, seconds, counts, answers } = result
  report('storm', { s: seconds, gapMs: gap.wallMs, gapCpuMs: gap.cpuMs, leaderChanges })
  report('answers', answers)
  report('clients', {
    handshakesPerSecond: counts.handshakes / seconds,
    wrongPasswords: counts.refusedPasswords,
    slowBytes: counts.slowBytes,
    rssMiB: rssAnonBytes() / 2 ** 20,
  })
  return leaderChanges === 0 && gap.cpuMs <= Number(values['gap-ms']) ? 0 : 1
}

if (import.meta.main) {
  try {
    process.exit(await main())
  } catch (error) {
    process.stderr.write(`storm: ${(error as Error).stack}\n`)
    process.exit(2)
  }
}

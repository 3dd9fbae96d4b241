import { join } from 'node:path'
import * as rpc from '@kiln/etcd-api/rpc'
import { createWireClient, type WireClient } from '@kiln/wire'
import { type MemberCluster, type MemberProcess, startMembers } from '../testing/member-process.ts'
import { rssAnonBytes } from './gap-meter.ts'
import { type MemoryParts, memoryMark } from './measured-member.ts'

/** A member of its own in a process of its own, whose memory can be looked at. */
export type MeasuredMember = {
  readonly process: MemberProcess
  readonly memory: () => Promise<MemberMemory>
  /** Answers how long it took, in milliseconds, until it served again. */
  restart(): Promise<number>
  stop(): Promise<void>
}

export type MemberMemory = MemoryParts & { rssAnon: number }

const program = join(import.meta.dirname, 'measured-member.ts')
const answerTimeoutMs = 120_000

export async function startMeasuredMember(flags: readonly string[] = []): Promise<MeasuredMember> {
  const cluster: MemberCluster = await startMembers({
    count: 1,
    flags: ['--quota-backend-bytes=-1', ...flags],
    main: program,
  })
  const member = cluster.members[0]!
  return {
    process: member,
    memory: () => memoryOf(member),
    restart: async () => {
      await member.stop()
      const start = performance.now()
      await member.start([], program)
      return performance.now() - start
    },
    stop: cluster.stop,
  }
}

async function memoryOf(member: MemberProcess): Promise<MemberMemory> {
  const lines = (): string[] =>
    member
      .output()
      .split('\n')
      .filter((line) => line.startsWith(memoryMark))
  const before = lines().length
  const rssAnon = rssAnonBytes(member.pid!)
  process.kill(member.pid!, 'SIGUSR2')
  const deadline = performance.now() + answerTimeoutMs
  while (lines().length <= before) {
    if (performance.now() > deadline)
      throw new Error(`the member said nothing of its memory: ${member.output()}`)
    await new Promise((resume) => setTimeout(resume, 5))
  }
  const line = lines().at(-1)!
  return { ...(JSON.parse(line.slice(memoryMark.length)) as MemoryParts), rssAnon }
}

export type Load = {
  keys: number
  valueBytes: number
  /** Of one request: 1 for a Put of each, more for transactions. */
  keysPerRequest: number
}

export const keyBytes = 16
const connections = 4
const streams = 64

/** In no order, as random clients would write them. */
export const keyOf = (at: number, keys: number): Buffer =>
  Buffer.from(`/bench/${String((at * 7_919) % keys).padStart(9, '0')}`, 'latin1')

/** Writes the keys through the member's port, with many requests under way. Fails if one is refused. */
export async function loadKeys(member: MemberProcess, load: Load): Promise<void> {
  const { hostname: host, port } = new URL(member.endpoint)
  const clients = Array.from({ length: connections }, () => createWireClient({ host, port: Number(port) }))
  try {
    await Promise.all(clients.map((client) => client.whenConnected(answerTimeoutMs)))
    let next = 0
    const writeOn = async (client: WireClient): Promise<void> => {
      while (next < load.keys) {
        const first = next
        next = Math.min(load.keys, first + load.keysPerRequest)
        const [method, request] = writeOf(first, next, load)
        await client.unary(`/etcdserverpb.KV/${method}`, request)
      }
    }
    await Promise.all(Array.from({ length: streams }, (_, at) => writeOn(clients[at % connections]!)))
  } finally {
    for (const client of clients) client.close()
  }
}

function writeOf(first: number, until: number, load: Load): [method: 'Put' | 'Txn', request: Uint8Array] {
  const put = (at: number): rpc.PutRequest =>
    rpc.PutRequest.fromPartial({ key: keyOf(at, load.keys), value: Buffer.alloc(load.valueBytes, at) })
  if (load.keysPerRequest === 1) return ['Put', rpc.PutRequest.encode(put(first)).finish()]
  const success = Array.from({ length: until - first }, (_, at) => ({
    request: { $case: 'requestPut' as const, value: put(first + at) },
  }))
  return ['Txn', rpc.TxnRequest.encode(rpc.TxnRequest.fromPartial({ success })).finish()]
}

import { parseArgs } from 'node:util'
import * as rpc from '@kiln/etcd-api/rpc'
import { MvccStore } from '@kiln/mvcc'
import { encodeCommand } from '../state/command.ts'
import { startBenchMember } from './bench-member.ts'
import { startCaller } from './caller.ts'
import { measureGap, report, rssAnonBytes } from './gap-meter.ts'
import { keyBytes, keyOf } from './member-memory.ts'

/**
 * What many keys cost: the longest pause while they are loaded and while the large operations run, a restart, and with `--store`
 * memory a key in the store alone (in a whole member: `memory.ts`). Prints figures and promises nothing: `node apps/kv/src/bench/load.ts [--keys N] [--value-bytes N] [--store]`.
 */
const { values } = parseArgs({
  options: {
    keys: { type: 'string', default: '1000000' },
    'value-bytes': { type: 'string', default: '64' },
    /** The store alone, without log and clients. */
    store: { type: 'boolean', default: false },
  },
})
const keys = Number(values.keys)
const valueBytes = Number(values['value-bytes'])
/** Proposals under way. */
const inFlight = 1024
const nothing = new Uint8Array(0)

const turn = (): Promise<void> => new Promise((resume) => setImmediate(resume))

function reportMemory(name: string, before: number): void {
  const perKey = (rssAnonBytes() - before) / keys
  const { heapUsed, heapTotal, arrayBuffers } = process.memoryUsage()
  report(name, {
    rssPerKey: perKey,
    besideKeyAndValue: perKey - keyBytes - valueBytes,
    heapUsedMiB: heapUsed / 2 ** 20,
    heapMiB: heapTotal / 2 ** 20,
    buffersMiB: arrayBuffers / 2 ** 20,
  })
}

async function benchStore(): Promise<void> {
  const store = new MvccStore()
  const before = rssAnonBytes()
  const loaded = await measureGap(async () => {
    for (let at = 0; at < keys; at++) {
      store.put({ key: keyOf(at, keys), value: Buffer.alloc(valueBytes, at) })
      if (at % 256 === 255) await turn()
    }
  })
  report('store: load', { s: loaded.ms / 1000, gapMs: loaded.gap.wallMs, gapCpuMs: loaded.gap.cpuMs })
  reportMemory('store: memory', before)
}

const put = (at: number): Uint8Array =>
  encodeCommand({
    kind: 'put',
    request: rpc.PutRequest.encode(
      rpc.PutRequest.fromPartial({ key: keyOf(at, keys), value: Buffer.alloc(valueBytes, at) }),
    ).finish(),
  })

async function benchMember(): Promise<void> {
  const member = await startBenchMember()
  try {
    const loaded = await measureGap(async () => {
      let next = 0
      const writeOn = async (): Promise<void> => {
        while (next < keys) await member.node.consensus.propose(put(next++))
      }
      await Promise.all(Array.from({ length: inFlight }, writeOn))
    })
    report('member: load', { s: loaded.ms / 1000, gapMs: loaded.gap.wallMs, gapCpuMs: loaded.gap.cpuMs })
    await benchCalls(member.url)
    const restarted = await measureGap(() => member.restart())
    report('member: restart', {
      s: restarted.ms / 1000,
      gapMs: restarted.gap.wallMs,
      gapCpuMs: restarted.gap.cpuMs,
    })
    await benchDelete(member.url)
  } finally {
    await member.close()
  }
}

const range = (more: Partial<rpc.RangeRequest> = {}): Uint8Array =>
  rpc.RangeRequest.encode(
    rpc.RangeRequest.fromPartial({ key: Buffer.from('/bench/'), rangeEnd: Buffer.from('/bench0'), ...more }),
  ).finish()
const compaction = (revision: number): Uint8Array =>
  rpc.CompactionRequest.encode({ revision: BigInt(revision), physical: true }).finish()

type Call = [name: string, path: string, request: Uint8Array]

async function runCalls(url: string, calls: Call[]): Promise<void> {
  const caller = startCaller(url)
  await caller.call('/etcdserverpb.Maintenance/Status', nothing)
  for (const [name, path, request] of calls) {
    const { value, ms, gap } = await measureGap(() => caller.call(`/etcdserverpb.${path}`, request))
    report(`member: ${name}`, { s: ms / 1000, gapMs: gap.wallMs, gapCpuMs: gap.cpuMs, answerBytes: value })
  }
  await caller.close()
}

async function benchCalls(url: string): Promise<void> {
  const half = Math.floor(keys / 2)
  await runCalls(url, [
    ['count', 'KV/Range', range({ countOnly: true })],
    ['range', 'KV/Range', range()],
    [
      'range sorted by value',
      'KV/Range',
      range({ sortTarget: rpc.RangeRequest_SortTarget.VALUE, sortOrder: 1 }),
    ],
    ['hash', 'Maintenance/HashKV', nothing],
    ['compaction, nothing to free', 'KV/Compact', compaction(half)],
    ['defragment (saves a snapshot)', 'Maintenance/Defragment', nothing],
  ])
}

async function benchDelete(url: string): Promise<void> {
  const all = rpc.DeleteRangeRequest.encode(
    rpc.DeleteRangeRequest.fromPartial({ key: Buffer.from('/bench/'), rangeEnd: Buffer.from('/bench0') }),
  ).finish()
  await runCalls(url, [
    ['delete of all keys', 'KV/DeleteRange', all],
    ['compaction, all to free', 'KV/Compact', compaction(keys + 2)],
  ])
}

await (values.store ? benchStore() : benchMember())

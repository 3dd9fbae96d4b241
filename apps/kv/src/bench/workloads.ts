import * as rpc from '@kiln/etcd-api/rpc'

/** One row of the comparison: what is asked, over how many connections and streams, and what the ratio to etcd must reach. */
export type Workload = {
  name: string
  title: string
  members: 1 | 3
  connections: number
  /** Requests under way at a time, over all connections. */
  streams: number
  path: string
  /** Request number `at` of the generator; keys are drawn from `keys`, 10,000 of them. */
  request(at: number): Uint8Array
  /** Requests per second, as a multiple of etcd's. */
  atLeast: number
  aim: number
  /** CPU a request, as a part of etcd's. */
  cpuAtMost: number
} & WorkloadOptions

export type WorkloadOptions = {
  /** What a stream does: a call after the other, keep-alives of a lease of its own, or listen to what four writers put. */
  mode?: 'unary' | 'keep-alive' | 'watch'
  /** Keys that are there before; default 10,000. */
  keys?: number
  tls?: boolean
  /** Not etcd beside us, but ourselves without users beside ourselves with them. */
  auth?: boolean
  /** One window of ten minutes with a compaction at each tenth; only when asked for. */
  isLong?: boolean
  /** Debian's h2load sends the requests, all of them the same. */
  isNeutral?: boolean
  /** Memory, as a multiple of etcd's. */
  rssAtMost?: number
}

export const keysDefault = 10_000
const keysMany = 1_000_000
const valueBytes = 256
const value = Buffer.alloc(valueBytes, 0x76)

/** A key of the first `keys`, spread by a multiplicative generator so that runs are alike. */
const keyOf = (at: number, keys = keysDefault): Buffer =>
  Buffer.from(`k${String((at * 7_919) % keys).padStart(11, '0')}`)

const putOf = (keys: number) => (at: number) =>
  rpc.PutRequest.encode(rpc.PutRequest.fromPartial({ key: keyOf(at, keys), value })).finish()
const rangeOf = (keys: number) => (at: number) =>
  rpc.RangeRequest.encode(rpc.RangeRequest.fromPartial({ key: keyOf(at, keys) })).finish()
const put = putOf(keysDefault)
const range = rangeOf(keysDefault)
/** Of the lease of stream `at`. */
const keepAlive = (at: number): Uint8Array =>
  rpc.LeaseKeepAliveRequest.encode({ ID: BigInt(at + 1) }).finish()

const rangeOf100 = (at: number): Uint8Array =>
  rpc.RangeRequest.encode(
    rpc.RangeRequest.fromPartial({ key: keyOf(at), rangeEnd: Buffer.from('l'), limit: 100n }),
  ).finish()

const txn = (at: number): Uint8Array =>
  rpc.TxnRequest.encode(
    rpc.TxnRequest.fromPartial({
      compare: [
        {
          key: keyOf(at),
          target: rpc.Compare_CompareTarget.VERSION,
          result: rpc.Compare_CompareResult.GREATER,
          targetUnion: { $case: 'version', value: 0n },
        },
      ],
      success: [{ request: { $case: 'requestPut', value: { key: keyOf(at), value } } }],
    }),
  ).finish()

const kvPath = (method: string): string => `/etcdserverpb.KV/${method}`
const putPath = kvPath('Put')
const rangePath = kvPath('Range')

const keepAlivePath = '/etcdserverpb.Lease/LeaseKeepAlive'
const many = { keys: keysMany, rssAtMost: 1 }

/** The rows of issue 3 with the ratios it asks for; written into docs/reference/figures.md. */
export const workloads: readonly Workload[] = [
  row('put-1', 'Put, 1 client', [1, 1], putPath, put, [1, 1.4, 1]),
  row('put-connections', 'Put, 256 one-stream connections', [256, 256], putPath, put, [1.5, 2, 0.5]),
  row('put-streams', 'Put, 256 streams on 16 connections', [16, 256], putPath, put, [2.5, 4, 0.5], {
    rssAtMost: 1.5,
  }),
  row('put-3', 'Put, 3 members, 256 streams', [16, 256], putPath, put, [2, 4, 0.5], { members: 3 }),
  row(
    'range-connections',
    'Range, 256 one-stream connections',
    [256, 256],
    rangePath,
    range,
    [1.5, 1.9, 0.5],
  ),
  row('range-streams', 'Range, 256 streams on 16 connections', [16, 256], rangePath, range, [3, 6, 0.5]),
  row('range-100', 'Range of 100 keys, 64 streams on 8', [8, 64], rangePath, rangeOf100, [1, 2, 0.5]),
  row('txn', 'Txn (compare and put), 256 streams on 16', [16, 256], kvPath('Txn'), txn, [1, 2, 0.5]),
  row('keep-alive', 'Lease keep-alive, 256 streams on 16', [16, 256], keepAlivePath, keepAlive, [1, 2, 0.5], {
    mode: 'keep-alive',
  }),
  row('put-tls', 'Put over TLS, 256 streams on 16', [16, 256], putPath, put, [1, 2, 0.5], { tls: true }),
  row('watch', 'Watch, 1,000 watchers on 20 connections, 4 writers', [20, 1000], putPath, put, [2, 4, 0.5], {
    mode: 'watch',
  }),
  row('put-1m', 'Put at 1 million keys', [16, 256], putPath, putOf(keysMany), [1.5, 2, 0.5], many),
  row('range-1m', 'Range at 1 million keys', [16, 256], rangePath, rangeOf(keysMany), [1.5, 2, 0.5], many),
  row('put-h2load', 'Put by h2load, 256 streams on 16', [16, 256], putPath, put, [2.5, 4, 0.5], {
    isNeutral: true,
  }),
  row('range-h2load', 'Range by h2load, 256 streams on 16', [16, 256], rangePath, range, [3, 6, 0.5], {
    isNeutral: true,
  }),
  row('auth', 'Put with users, beside none', [16, 256], putPath, put, [0.95, 1, 1.05], { auth: true }),
  row('put-long', 'Put, 10 minutes with 10 compactions', [16, 256], putPath, put, [2.5, 4, 0.5], {
    isLong: true,
  }),
]

/** What fills the store before a row is measured. */
export function preloadOf({ keys = keysDefault }: Workload): Workload & { keys: number } {
  const name = `preload-${keys}`
  return { ...row(name, name, [16, 256], putPath, putOf(keys), [0, 0, 0]), keys }
}

function row(
  name: string,
  title: string,
  [connections, streams]: [number, number],
  path: string,
  request: (at: number) => Uint8Array,
  [atLeast, aim, cpuAtMost]: [number, number, number],
  { members = 1, ...options }: WorkloadOptions & { members?: 1 | 3 } = {},
): Workload {
  return { name, title, members, connections, streams, path, request, atLeast, aim, cpuAtMost, ...options }
}

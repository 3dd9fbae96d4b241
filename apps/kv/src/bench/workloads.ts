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
}

export const keys = 10_000
const valueBytes = 256
const value = Buffer.alloc(valueBytes, 0x76)

/** A key of the first `keys`, spread by a multiplicative generator so that runs are alike. */
const keyOf = (at: number): Buffer => Buffer.from(`k${String((at * 7_919) % keys).padStart(11, '0')}`)

const put = (at: number): Uint8Array =>
  rpc.PutRequest.encode(rpc.PutRequest.fromPartial({ key: keyOf(at), value })).finish()

const range = (at: number): Uint8Array =>
  rpc.RangeRequest.encode(rpc.RangeRequest.fromPartial({ key: keyOf(at) })).finish()

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

/** The rows that are measured so far, with the ratios that issue 3 asks for; written into docs/reference/figures.md. */
export const workloads: readonly Workload[] = [
  row('put-1', 'Put, 1 client', [1, 1], putPath, put, [1, 1.4, 1]),
  row('put-connections', 'Put, 256 one-stream connections', [256, 256], putPath, put, [1.5, 2, 0.5]),
  row('put-streams', 'Put, 256 streams on 16 connections', [16, 256], putPath, put, [2.5, 4, 0.5]),
  row('put-3', 'Put, 3 members, 256 streams', [16, 256], putPath, put, [2, 4, 0.5], 3),
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
]

/** What fills the store before anything is measured. */
export const preload: Workload = row('preload', 'preload', [16, 256], putPath, put, [0, 0, 0])

function row(
  name: string,
  title: string,
  [connections, streams]: [number, number],
  path: string,
  request: (at: number) => Uint8Array,
  [atLeast, aim, cpuAtMost]: [number, number, number],
  members: 1 | 3 = 1,
): Workload {
  return { name, title, members, connections, streams, path, request, atLeast, aim, cpuAtMost }
}

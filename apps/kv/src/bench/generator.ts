import { readFileSync } from 'node:fs'
import * as rpc from '@kiln/etcd-api/rpc'
import { type CallOptions, createWireClient, type WireClient } from '@kiln/wire'
import { countEvents } from './watch-events.ts'
import { preloadOf, type Workload, workloads } from './workloads.ts'

/** What a generator process is asked to do; a count instead of seconds ends after that many requests. */
export type GeneratorOrder = {
  workload: string
  host: string
  port: number
  seconds?: number
  count?: number
  /** File with the CA of a server with TLS. */
  ca?: string
  token?: string
  /** Compacts at what was written last, as often. */
  compactEverySeconds?: number
}

export type GeneratorResult = {
  requests: number
  failures: number
  seconds: number
  p50Ms: number
  p99Ms: number
  /** CPU of the generator itself: above 85 % of a core it measures itself. */
  cpuSeconds: number
}

/** Latencies that are kept; of more requests every n-th counts. */
const samplesMax = 200_000

const putters = 4
const leaseSeconds = 3600n
/** How long the last events of a window may be on their way. */
const eventsLateMs = 2000

/** What is counted while a window lasts. */
type Run = {
  workload: Workload
  options: CallOptions
  /** False when the window is over, or enough was asked. */
  next(): number | undefined
  /** A request that came to its end. */
  ended(startedAt: number, isGood: boolean): void
  /** Newest answer to a write. */
  lastAnswer: Uint8Array | undefined
}

/** Keeps as many requests under way as the workload has streams, each followed by the next, and measures them. */
export async function generate(order: GeneratorOrder): Promise<GeneratorResult> {
  const workload = [...workloads, ...workloads.map(preloadOf)].find(({ name }) => name === order.workload)
  if (!workload) throw new Error(`there is no workload ${order.workload}`)
  const clients = await connectAll(workload, order)
  const options: CallOptions = order.token ? { headers: [['token', order.token]] } : {}
  const latencies: number[] = []
  let [requests, failures, sent] = [0, 0, 0]
  if (workload.mode === 'keep-alive') await grantLeases(clients, workload.streams, options)
  const countMax = order.count ?? Number.POSITIVE_INFINITY
  const began = performance.now()
  const until = order.seconds === undefined ? Number.POSITIVE_INFINITY : began + order.seconds * 1000
  const before = process.cpuUsage()
  const run: Run = {
    workload,
    options,
    next: () => (sent >= countMax || performance.now() >= until ? undefined : sent++),
    ended: (startedAt, isGood) => {
      if (!isGood) failures++
      else {
        if (latencies.length < samplesMax) latencies.push(performance.now() - startedAt)
        else latencies[requests % samplesMax] = performance.now() - startedAt
        requests++
      }
    },
    lastAnswer: undefined,
  }
  const everyMs = (order.compactEverySeconds ?? 0) * 1000
  const compacting = everyMs > 0 ? setInterval(() => compact(clients[0]!, run), everyMs) : undefined
  if (workload.mode === 'watch') requests = await runWatch(clients, run)
  else if (workload.mode === 'keep-alive') await runStreams(clients, run, keepAliveLoop)
  else await runStreams(clients, run, unaryLoop)
  clearInterval(compacting)
  const seconds = (performance.now() - began) / 1000
  const { user, system } = process.cpuUsage(before)
  for (const client of clients) client.close()
  latencies.sort((a, b) => a - b)
  const at = (part: number): number => latencies[Math.floor(latencies.length * part)] ?? 0
  return { requests, failures, seconds, p50Ms: at(0.5), p99Ms: at(0.99), cpuSeconds: (user + system) / 1e6 }
}

type Loop = (client: WireClient, run: Run, stream: number, done: () => void) => void

async function runStreams(clients: readonly WireClient[], run: Run, loop: Loop): Promise<void> {
  await Promise.all(
    Array.from(
      { length: run.workload.streams },
      (_, at) => new Promise<void>((resolve) => loop(clients[at % clients.length]!, run, at, resolve)),
    ),
  )
}

function unaryLoop(client: WireClient, run: Run, stream: number, done: () => void): void {
  const at = run.next()
  if (at === undefined) {
    done()
    return
  }
  const startedAt = performance.now()
  const { workload, options } = run
  client.request(
    workload.path,
    workload.request(at),
    (error, answer) => {
      run.ended(startedAt, !error)
      run.lastAnswer = answer ?? run.lastAnswer
      unaryLoop(client, run, stream, done)
    },
    options,
  )
}

function keepAliveLoop(client: WireClient, run: Run, stream: number, done: () => void): void {
  const message = run.workload.request(stream)
  let startedAt = 0
  let isOver = false
  const ask = (): void => {
    if (run.next() === undefined) {
      isOver = true
      call.end()
      done()
      return
    }
    startedAt = performance.now()
    call.send(message)
  }
  const listener = {
    onMessage: (answer: Uint8Array) => {
      run.ended(startedAt, rpc.LeaseKeepAliveResponse.decode(answer).TTL > 0n)
      ask()
    },
    onClose: (error: unknown) => {
      if (error && !isOver) run.ended(startedAt, false)
      done()
    },
  }
  const call = client.stream(run.workload.path, listener, run.options)
  ask()
}

async function grantLeases(
  clients: readonly WireClient[],
  count: number,
  options: CallOptions,
): Promise<void> {
  const grants = Array.from({ length: count }, (_, at) =>
    clients[at % clients.length]!.unary(
      '/etcdserverpb.Lease/LeaseGrant',
      rpc.LeaseGrantRequest.encode({ ID: BigInt(at + 1), TTL: leaseSeconds }).finish(),
      options,
    )
      // Of an earlier window.
      .catch(() => undefined),
  )
  await Promise.all(grants)
}

/** All streams watch all keys while some write; answers how many events came. */
async function runWatch(clients: readonly WireClient[], run: Run): Promise<number> {
  let events = 0
  let puts = 0
  const value = { key: Buffer.from('k'), rangeEnd: Buffer.from('l') }
  const ask = rpc.WatchRequest.fromPartial({ requestUnion: { $case: 'createRequest', value } })
  const message = rpc.WatchRequest.encode(ask).finish()
  const { streams } = run.workload
  await Promise.all(
    Array.from({ length: streams }, (_, at) => {
      return new Promise<void>((resolve, reject) => {
        const call = clients[at % clients.length]!.stream(
          '/etcdserverpb.Watch/Watch',
          {
            onMessage: (bytes) => {
              events += countEvents(bytes)
              resolve()
            },
            onClose: (error) => (error ? reject(error) : resolve()),
          },
          run.options,
        )
        call.send(message)
      })
    }),
  )
  const counted: Run = {
    ...run,
    ended: (startedAt, isGood) => {
      if (isGood) puts++
      run.ended(startedAt, isGood)
    },
  }
  await Promise.all(
    Array.from(
      { length: putters },
      (_, at) =>
        new Promise<void>((resolve) => unaryLoop(clients[at % clients.length]!, counted, at, resolve)),
    ),
  )
  const deadline = performance.now() + eventsLateMs
  while (events < puts * streams && performance.now() < deadline) {
    await new Promise((resume) => setTimeout(resume, 5))
  }
  return events
}

function compact(client: WireClient, run: Run): void {
  if (!run.lastAnswer) return
  const revision = rpc.PutResponse.decode(run.lastAnswer).header!.revision
  const request = rpc.CompactionRequest.encode({ revision, physical: false }).finish()
  client.request('/etcdserverpb.KV/Compact', request, (error) => error && run.ended(0, false), run.options)
}

async function connectAll(workload: Workload, order: GeneratorOrder): Promise<WireClient[]> {
  const { host, port } = order
  const tls = order.ca ? { tls: { ca: readFileSync(order.ca) } } : {}
  const clients = Array.from({ length: workload.connections }, () => createWireClient({ host, port, ...tls }))
  await Promise.all(clients.map((client) => client.whenConnected(20_000)))
  return clients
}

if (import.meta.main) {
  process.stdout.write(JSON.stringify(await generate(JSON.parse(process.argv[2]!) as GeneratorOrder)))
}

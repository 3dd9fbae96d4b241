import { parseArgs } from 'node:util'
import { parentPort, Worker, workerData } from 'node:worker_threads'
import * as rpc from '@kiln/etcd-api/rpc'
import { type ClientStream, createWireClient, type WireClient } from '@kiln/wire'
import { startBenchMember } from './bench-member.ts'
import { measureGap, report, rssAnonBytes } from './gap-meter.ts'

/**
 * Ten thousand watchers and a hundred thousand leases on one member: memory of each, the pauses of the loop, and what
 * a stalled watcher costs. `node apps/kv/src/bench/crowd.ts [--watchers N] [--connections N] [--leases N]`.
 */
const { values } = parseArgs({
  options: {
    watchers: { type: 'string', default: '10000' },
    connections: { type: 'string', default: '100' },
    leases: { type: 'string', default: '100000' },
  },
})

type Order =
  | { kind: 'watch'; from: number; count: number; prefix: boolean }
  | { kind: 'put'; count: number; keys: number }
  | { kind: 'grant'; count: number; ttl: number }
  | { kind: 'keepalive'; count: number }
type Told = { kind: 'events'; count: number } | { kind: 'done' }

const keyOf = (at: number): Buffer => Buffer.from(`crowd/${String(at).padStart(8, '0')}`)

/** The clients, in a thread of their own. */
function serveOrders(url: string, connections: number): void {
  const { hostname, port } = new URL(url)
  const clients = Array.from({ length: connections }, () =>
    createWireClient({ host: hostname, port: Number(port) }),
  )
  const streams: ClientStream[] = []
  let events = 0
  setInterval(() => {
    if (events > 0) parentPort!.postMessage({ kind: 'events', count: events } satisfies Told)
    events = 0
  }, 20)
  const clientOf = (at: number): WireClient => clients[at % clients.length]!
  const many = async (count: number, one: (at: number) => Promise<unknown>): Promise<void> => {
    const width = 256
    let next = 0
    await Promise.all(
      Array.from({ length: width }, async () => {
        while (next < count) await one(next++)
      }),
    )
  }
  const run = async (order: Order): Promise<void> => {
    switch (order.kind) {
      case 'watch':
        return many(order.count, (at) => {
          const number = order.from + at
          const value = order.prefix
            ? { key: Buffer.from('crowd/'), rangeEnd: Buffer.from('crowd0') }
            : { key: keyOf(number) }
          return new Promise<void>((resolve, reject) => {
            const stream = clientOf(number).stream('/etcdserverpb.Watch/Watch', {
              onMessage: (bytes) => {
                const message = rpc.WatchResponse.decode(bytes)
                events += message.events.length
                if (message.created) resolve()
              },
              onClose: (error) => error && reject(error),
            })
            streams.push(stream)
            const ask = rpc.WatchRequest.fromPartial({ requestUnion: { $case: 'createRequest', value } })
            stream.send(rpc.WatchRequest.encode(ask).finish())
          })
        })
      case 'put':
        return many(order.count, (at) =>
          clientOf(at).unary(
            '/etcdserverpb.KV/Put',
            rpc.PutRequest.encode(
              rpc.PutRequest.fromPartial({ key: keyOf(at % order.keys), value: Buffer.alloc(64) }),
            ).finish(),
          ),
        )
      case 'grant':
        return many(order.count, (at) =>
          clientOf(at).unary(
            '/etcdserverpb.Lease/LeaseGrant',
            rpc.LeaseGrantRequest.encode({ ID: BigInt(at + 1), TTL: BigInt(order.ttl) }).finish(),
          ),
        )
      case 'keepalive':
        return many(order.count, (at) => keepAlive(clientOf(at), BigInt(at + 1)))
    }
  }
  parentPort!.on('message', (order: Order) => {
    run(order).then(
      () => parentPort!.postMessage({ kind: 'done' } satisfies Told),
      (error: unknown) => {
        throw error
      },
    )
  })
}

function keepAlive(client: WireClient, id: bigint): Promise<void> {
  return new Promise((resolve, reject) => {
    const stream = client.stream('/etcdserverpb.Lease/LeaseKeepAlive', {
      onMessage: () => {
        stream.end()
        resolve()
      },
      onClose: (error) => error && reject(error),
    })
    stream.send(rpc.LeaseKeepAliveRequest.encode({ ID: id }).finish())
  })
}

async function main(): Promise<void> {
  const server = await startBenchMember()
  const connections = Number(values.connections)
  const worker = new Worker(new URL(import.meta.url), { workerData: { url: server.url, connections } })
  let events = 0
  worker.on('message', (told: Told) => {
    if (told.kind === 'events') events += told.count
  })
  const order = (what: Order): Promise<void> =>
    new Promise((resolve) => {
      const onTold = (told: Told): void => {
        if (told.kind !== 'done') return
        worker.off('message', onTold)
        resolve()
      }
      worker.on('message', onTold)
      worker.postMessage(what)
    })
  const step = async (name: string, what: () => Promise<void>, per = 0): Promise<void> => {
    const memory = rssAnonBytes()
    const { ms, gap } = await measureGap(what)
    report(name, {
      s: ms / 1000,
      gapMs: gap.wallMs,
      gapCpuMs: gap.cpuMs,
      ...(per ? { bytesEach: (rssAnonBytes() - memory) / per } : {}),
    })
  }
  const told = async (count: number): Promise<void> => {
    const until = performance.now() + 120_000
    while (events < count) {
      if (performance.now() > until) throw new Error(`only ${events} of ${count} events arrived`)
      await new Promise((resume) => setTimeout(resume, 10))
    }
    events = 0
  }
  const watchers = Number(values.watchers)
  const leases = Number(values.leases)
  await order({ kind: 'put', count: 2000, keys: 1000 })
  await step(
    `${watchers} watchers of a key each`,
    () => order({ kind: 'watch', from: 0, count: watchers, prefix: false }),
    watchers,
  )
  await step('a put to each of them', async () => {
    await order({ kind: 'put', count: watchers, keys: watchers })
    await told(watchers)
  })
  const wide = Math.ceil(watchers / 10)
  await step(
    `${wide} watchers of a prefix`,
    () => order({ kind: 'watch', from: watchers, count: wide, prefix: true }),
    wide,
  )
  await step('100 puts to all of them', async () => {
    await order({ kind: 'put', count: 100, keys: 1 })
    await told(100 * (wide + 1))
  })
  await step(`${leases} leases granted`, () => order({ kind: 'grant', count: leases, ttl: 600 }), leases)
  await step('10000 keep-alives', () => order({ kind: 'keepalive', count: 10_000 }))
  await worker.terminate()
  await server.close()
}

if (!workerData) await main()
else serveOrders(workerData.url as string, workerData.connections as number)

import { createWireClient, type WireClient } from '@kiln/wire'
import { preload, type Workload, workloads } from './workloads.ts'

/** What a generator process is asked to do; a count instead of seconds ends after that many requests. */
export type GeneratorOrder = {
  workload: string
  host: string
  port: number
  seconds?: number
  count?: number
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

/** Keeps as many requests under way as the workload has streams, each followed by the next, and measures them. */
export async function generate(order: GeneratorOrder): Promise<GeneratorResult> {
  const workload = [preload, ...workloads].find(({ name }) => name === order.workload)
  if (!workload) throw new Error(`there is no workload ${order.workload}`)
  const clients = await connectAll(workload, order)
  const latencies: number[] = []
  let [requests, failures, sent] = [0, 0, 0]
  const countMax = order.count ?? Number.POSITIVE_INFINITY
  const began = performance.now()
  const until = order.seconds === undefined ? Number.POSITIVE_INFINITY : began + order.seconds * 1000
  const before = process.cpuUsage()
  const one = (client: WireClient, done: () => void): void => {
    const at = sent++
    const startedAt = performance.now()
    if (at >= countMax || startedAt >= until) {
      done()
      return
    }
    client.request(workload.path, workload.request(at), (error) => {
      if (error) failures++
      else {
        requests++
        if (latencies.length < samplesMax) latencies.push(performance.now() - startedAt)
        else latencies[at % samplesMax] = performance.now() - startedAt
      }
      one(client, done)
    })
  }
  const streams = Array.from({ length: workload.streams }, (_, at) => clients[at % clients.length]!)
  await Promise.all(streams.map((client) => new Promise<void>((resolve) => one(client, resolve))))
  const seconds = (performance.now() - began) / 1000
  const { user, system } = process.cpuUsage(before)
  for (const client of clients) client.close()
  latencies.sort((a, b) => a - b)
  const at = (part: number): number => latencies[Math.floor(latencies.length * part)] ?? 0
  return { requests, failures, seconds, p50Ms: at(0.5), p99Ms: at(0.99), cpuSeconds: (user + system) / 1e6 }
}

async function connectAll(workload: Workload, { host, port }: GeneratorOrder): Promise<WireClient[]> {
  const clients = Array.from({ length: workload.connections }, () => createWireClient({ host, port }))
  await Promise.all(clients.map((client) => client.whenConnected(20_000)))
  return clients
}

if (import.meta.main) {
  process.stdout.write(JSON.stringify(await generate(JSON.parse(process.argv[2]!) as GeneratorOrder)))
}

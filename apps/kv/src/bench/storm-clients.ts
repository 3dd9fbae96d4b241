import http2 from 'node:http2'
import tls from 'node:tls'
import { parentPort, Worker, workerData } from 'node:worker_threads'
import * as rpc from '@kiln/etcd-api/rpc'

/** Clients who mean harm, or have none to spare: in a thread of their own, until they are told to stop. */
export type StormClients = {
  /** What they got done so far. */
  stop(): Promise<StormCounts>
}
export type StormCounts = { handshakes: number; refusedPasswords: number; slowBytes: number }

export type StormPlan = {
  url: string
  tlsPort: number
  token: string
  handshakesPerSecond: number
  /** Wrong passwords under way at a time. */
  passwords: number
  /** Half of them watch, half read a large range; none takes more than a kilobyte a second. */
  slowReaders: number
  key: string
  rangeEnd: string
}

export function startStormClients(plan: StormPlan): StormClients {
  const worker = new Worker(new URL(import.meta.url), { workerData: { storm: plan } })
  return {
    stop: () =>
      new Promise((resolve) => {
        worker.once('message', (counts: StormCounts) => {
          void worker.terminate().then(() => resolve(counts))
        })
        worker.postMessage('stop')
      }),
  }
}

const grpc = (message: Uint8Array): Buffer => {
  const head = Buffer.alloc(5)
  head.writeUInt32BE(message.length, 1)
  return Buffer.concat([head, message])
}
const headersOf = (path: string, token?: string): http2.OutgoingHttpHeaders => ({
  ':method': 'POST',
  ':path': `/etcdserverpb.${path}`,
  'content-type': 'application/grpc',
  te: 'trailers',
  ...(token ? { token } : {}),
})

const beatMs = 20

function shakeHands(plan: StormPlan, counts: StormCounts): void {
  const perBeat = (plan.handshakesPerSecond * beatMs) / 1000
  let due = 0
  setInterval(() => {
    for (due += perBeat; due >= 1; due--) {
      const socket = tls.connect({
        host: '127.0.0.1',
        port: plan.tlsPort,
        rejectUnauthorized: false,
        ALPNProtocols: ['h2'],
      })
      socket.once('secureConnect', () => {
        counts.handshakes++
        socket.destroy()
      })
      socket.on('error', () => socket.destroy())
    }
  }, beatMs)
}

function tryPasswords(plan: StormPlan, counts: StormCounts): void {
  const session = http2.connect(plan.url)
  session.on('error', () => undefined)
  const request = rpc.AuthenticateRequest.encode({ name: 'root', password: 'wrong' }).finish()
  const next = (): void => {
    const stream = session.request(headersOf('Auth/Authenticate'))
    stream.on('data', () => undefined)
    stream.on('error', () => undefined)
    stream.on('close', () => {
      counts.refusedPasswords++
      next()
    })
    stream.end(grpc(request))
  }
  for (let at = 0; at < plan.passwords; at++) next()
}

function readSlowly(plan: StormPlan, counts: StormCounts, doesWatch: boolean): void {
  const session = http2.connect(plan.url, { settings: { initialWindowSize: 1024 } })
  session.on('error', () => undefined)
  const span = { key: Buffer.from(plan.key), rangeEnd: Buffer.from(plan.rangeEnd) }
  const stream = session.request(headersOf(doesWatch ? 'Watch/Watch' : 'KV/Range', plan.token))
  stream.on('error', () => undefined)
  if (doesWatch) {
    const value = { ...span, startRevision: 2n }
    const ask = rpc.WatchRequest.fromPartial({ requestUnion: { $case: 'createRequest', value } })
    stream.write(grpc(rpc.WatchRequest.encode(ask).finish()))
  } else {
    const ask = rpc.RangeRequest.fromPartial({ ...span, limit: 20_000n })
    stream.end(grpc(rpc.RangeRequest.encode(ask).finish()))
  }
  stream.pause()
  setInterval(() => {
    const chunk = stream.read() as Buffer | null
    counts.slowBytes += chunk?.length ?? 0
  }, 1000)
}

function serve(plan: StormPlan): void {
  const counts: StormCounts = { handshakes: 0, refusedPasswords: 0, slowBytes: 0 }
  if (plan.handshakesPerSecond > 0) shakeHands(plan, counts)
  tryPasswords(plan, counts)
  for (let at = 0; at < plan.slowReaders; at++) readSlowly(plan, counts, at % 2 === 0)
  parentPort!.on('message', () => parentPort!.postMessage(counts))
}

if (parentPort && workerData?.storm) serve(workerData.storm as StormPlan)

import http from 'node:http'
import https from 'node:https'
import { Fault } from '@kiln/service'
import { type CallEnd, type CallInfo, createWireServer, type WireServer } from '@kiln/wire'
import { serveAuth } from './api/auth-service.ts'
import { serveCluster } from './api/cluster-service.ts'
import type { ServiceContext } from './api/context.ts'
import { fail, statuses } from './api/errors.ts'
import { serveHealth } from './api/health-service.ts'
import { serveHistory } from './api/history-service.ts'
import { serveKv } from './api/kv-service.ts'
import { serveLease } from './api/lease-service.ts'
import { serveMaintenance } from './api/maintenance-service.ts'
import { MethodTable } from './api/method-table.ts'
import { serveReflection } from './api/reflection-service.ts'
import { serveSnapshot } from './api/snapshot-service.ts'
import { serveWatch, type WatchService } from './api/watch-service.ts'
import { readTls } from './client-tls.ts'
import { lazyRoutes } from './http/lazy-routes.ts'
import { httpListener } from './http/listener.ts'
import { CallMetrics, metricsPage } from './http/metrics.ts'
import { serveElection } from './recipes/election-service.ts'
import { serveLock } from './recipes/lock-service.ts'
import type { Endpoint } from './settings/settings.ts'

/** What gRPC itself may take beyond the request. */
const grpcOverheadBytes = 512 * 1024

export type Served = {
  /** Where clients are listened to, with the ports that were taken for 0. */
  clients: { host: string; port: number }[]
  /** Certificates changed: new connections use them. */
  renewTls(): void
  close(): Promise<void>
}

/** Opens the client side of a member: gRPC and HTTP on each client URL, and the metrics URLs. */
export async function serveClients(context: ServiceContext, watches: WatchService): Promise<Served> {
  const { settings, consensus, log } = context
  const calls = new CallMetrics()
  const servers: Pick<WireServer, 'stats'>[] = []
  let leaderChanges = 0
  const stopCounting = consensus.onLeaderChange(({ leader }) => {
    if (leader !== 0n) leaderChanges++
  })
  const routes = lazyRoutes(
    context,
    () =>
      metricsPage({
        context,
        calls,
        watches,
        leaderChanges: () => leaderChanges,
        clientBytes: () => {
          const stats = servers.map((server) => server.stats())
          return {
            bytesIn: stats.reduce((sum, { bytesIn }) => sum + bytesIn, 0),
            bytesOut: stats.reduce((sum, { bytesOut }) => sum + bytesOut, 0),
          }
        },
      }),
    log,
  )
  const hooks = {
    onCallStart: (path: string, kind: 'unary' | 'stream') => calls.onStart(path, kind),
    onCallEnd: (end: CallEnd, call?: CallInfo) => {
      calls.onEnd(end)
      if (end.kind === 'unary' && end.durationMs > settings.slowRequestMs) logSlow(context, end, call)
    },
    onHandlerError: (error: unknown, path: string) => log.error({ error, path }, 'request failed'),
  }
  const messageBytesMax = settings.requestBytesMax + grpcOverheadBytes
  const methods = new MethodTable({
    now: context.clock.now,
    ...hooks,
    admit: ({ hasLeader }) => {
      if (hasLeader && consensus.leader() === 0n) fail(statuses.noLeader)
    },
  })
  registerServices(methods, context, watches)
  calls.register(methods.methods())
  const listener = httpListener({ settings, methods, messageBytesMax, routes: routes.routing })
  const closers: (() => Promise<void>)[] = []
  const renewals: (() => void)[] = []
  const clients: Served['clients'] = []
  try {
    for (const endpoint of settings.listenClient) {
      if (settings.wire === 'grpc-js') {
        const { address, close } = await serveByGrpcJs(endpoint, methods, {
          settings,
          messageBytesMax,
          hooks,
        })
        clients.push(address)
        closers.push(close)
        continue
      }
      const server = createWireServer({
        ...(endpoint.secure ? { tls: readTls(settings.clientTls!, settings.tlsProtocol) } : {}),
        ...(settings.listenHttp.length > 0 ? {} : { http: listener }),
        clock: context.clock,
        limits: {
          streamsMax: settings.streamsMax,
          messageBytesMax,
          pingIntervalMinMs: settings.pingIntervalMinMs,
          keepAliveIntervalMs: settings.keepAliveIntervalMs,
          keepAliveTimeoutMs: settings.keepAliveTimeoutMs,
        },
        closeMessage: statuses.stopped.text,
        overloadMessage: statuses.tooManyRequests.text,
        ...hooks,
        onProtocolError: (error, peer) => log.debug({ reason: error.message, ...peer }, 'connection ended'),
      })
      servers.push(server)
      methods.serveOn(server)
      clients.push(await opened(endpoint, () => server.listen({ host: endpoint.host, port: endpoint.port })))
      closers.push(() => server.close({ graceMs: 2000 }))
      if (endpoint.secure)
        renewals.push(() => server.renewTls(readTls(settings.clientTls!, settings.tlsProtocol)))
    }
    for (const endpoint of settings.listenHttp) {
      closers.push(await opened(endpoint, () => listenHttp(endpoint, context, listener)))
    }
    for (const endpoint of settings.listenMetrics) {
      closers.push(await opened(endpoint, () => listenHttp(endpoint, context, routes.routing)))
    }
  } catch (error) {
    await Promise.all(closers.map((close) => close()))
    throw error
  }
  return {
    clients,
    renewTls: () => {
      for (const renew of renewals) renew()
    },
    close: async () => {
      stopCounting()
      watches.stop()
      await Promise.all(closers.map((close) => close()))
      await routes.close()
    },
  }
}

type GrpcJsContext = {
  settings: ServiceContext['settings']
  messageBytesMax: number
  hooks: { onHandlerError(error: unknown, path: string): void }
}

/** The same methods on the other engine, loaded only when it is asked for. */
async function serveByGrpcJs(
  endpoint: Endpoint,
  methods: MethodTable,
  { settings, messageBytesMax, hooks }: GrpcJsContext,
): Promise<{ address: { host: string; port: number }; close: () => Promise<void> }> {
  const { createGrpcJsServer } = await import('./grpc-js-server.ts')
  const server = createGrpcJsServer({
    ...(endpoint.secure ? { tls: settings.clientTls! } : {}),
    messageBytesMax,
    onHandlerError: hooks.onHandlerError,
  })
  methods.serveOn(server)
  const address = await opened(endpoint, () => server.listen({ host: endpoint.host, port: endpoint.port }))
  return { address, close: () => server.close() }
}

function registerServices(methods: MethodTable, context: ServiceContext, watches: WatchService): void {
  serveKv(methods, context)
  serveWatch(methods, context, watches)
  serveLease(methods, context)
  serveCluster(methods, context)
  serveMaintenance(methods, context)
  serveSnapshot(methods, context)
  serveAuth(methods, context)
  serveLock(methods, watches)
  serveElection(methods, context, watches)
  serveHistory(methods, context)
  serveHealth(methods)
  serveReflection(methods)
}

async function opened<T>(endpoint: Endpoint, open: () => Promise<T>): Promise<T> {
  try {
    return await open()
  } catch (cause) {
    throw new Fault('STORE_LISTEN', `cannot listen on ${endpoint.url}`, {
      cause,
      remedy: 'another program may have the port, or the address is not of this machine',
    })
  }
}

/** Methods that wait for their turn are not slow. */
const isWaiting = (path: string): boolean => path.endsWith('/Lock') || path.endsWith('/Campaign')

/** Says where the time went, as far as that is known. */
function logSlow({ measures, clock, log }: ServiceContext, end: CallEnd, call: CallInfo | undefined): void {
  const { path, code, durationMs } = end
  if (isWaiting(path)) return
  const now = clock.now()
  const line = measures.slowCalls.mayLog(now)
  if (!line) return
  log.warn(
    {
      path,
      code,
      durationMs: Math.round(durationMs),
      ...(call && measures.slowCalls.describe(call, now - durationMs, now)),
      ...(line.leftOut > 0 ? { leftOut: line.leftOut } : {}),
    },
    'request took long',
  )
}

async function listenHttp(
  endpoint: Endpoint,
  { settings }: ServiceContext,
  routing: http.RequestListener,
): Promise<() => Promise<void>> {
  const tls =
    endpoint.secure && settings.clientTls ? readTls(settings.clientTls, settings.tlsProtocol) : undefined
  const server = tls
    ? https.createServer({ ...tls, requestCert: tls.clientCertificate === 'require' }, routing)
    : http.createServer(routing)
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(endpoint.port, endpoint.host, resolve)
  })
  return () =>
    new Promise((resolve) => {
      server.close(() => resolve())
      server.closeAllConnections()
    })
}

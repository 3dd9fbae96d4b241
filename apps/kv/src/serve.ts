import { readFileSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import { Fault } from '@kiln/service'
import { createWireServer, type WireServer, type WireTls } from '@kiln/wire'
import { serveCluster } from './api/cluster-service.ts'
import type { ServiceContext } from './api/context.ts'
import { statuses } from './api/errors.ts'
import { serveKv } from './api/kv-service.ts'
import { serveLease } from './api/lease-service.ts'
import { serveMaintenance } from './api/maintenance-service.ts'
import { serveUnsupported } from './api/unsupported.ts'
import { serveWatch, type WatchService } from './api/watch-service.ts'
import { CallMetrics, metricsPage } from './http/metrics.ts'
import { createRoutes } from './http/routes.ts'
import type { Endpoint, TlsFiles } from './settings/settings.ts'

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
  let leaderChanges = 0
  const stopCounting = consensus.onLeaderChange(({ leader }) => {
    if (leader !== 0n) leaderChanges++
  })
  const routes = await createRoutes(context, () =>
    metricsPage({ context, calls, watches, leaderChanges: () => leaderChanges }),
  )
  const closers: (() => Promise<void>)[] = []
  const renewals: (() => void)[] = []
  const clients: Served['clients'] = []
  try {
    for (const endpoint of settings.listenClient) {
      const server = createWireServer({
        ...(endpoint.secure ? { tls: readTls(settings.clientTls!, settings.tlsMinVersion) } : {}),
        http: routes.routing,
        clock: context.clock,
        limits: {
          streamsMax: settings.streamsMax,
          messageBytesMax: settings.requestBytesMax + grpcOverheadBytes,
          pingIntervalMinMs: settings.pingIntervalMinMs,
          keepAliveIntervalMs: settings.keepAliveIntervalMs,
          keepAliveTimeoutMs: settings.keepAliveTimeoutMs,
        },
        closeMessage: statuses.stopped.text,
        overloadMessage: statuses.tooManyRequests.text,
        onCallStart: (path, kind) => calls.onStart(path, kind),
        onCallEnd: (end) => calls.onEnd(end),
        onHandlerError: (error, path) => log.error({ error, path }, 'request failed'),
        onProtocolError: (error, peer) => log.debug({ reason: error.message, ...peer }, 'connection ended'),
      })
      registerServices(server, context, watches)
      clients.push(await opened(endpoint, () => server.listen({ host: endpoint.host, port: endpoint.port })))
      closers.push(() => server.close({ graceMs: 2000 }))
      if (endpoint.secure)
        renewals.push(() => server.renewTls(readTls(settings.clientTls!, settings.tlsMinVersion)))
    }
    for (const endpoint of settings.listenMetrics) {
      closers.push(await opened(endpoint, () => listenMetrics(endpoint, context, routes.routing)))
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

function registerServices(server: WireServer, context: ServiceContext, watches: WatchService): void {
  serveKv(server, context)
  serveWatch(server, context, watches)
  serveLease(server, context)
  serveCluster(server, context)
  serveMaintenance(server, context)
  serveUnsupported(server, context)
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

async function listenMetrics(
  endpoint: Endpoint,
  { settings }: ServiceContext,
  routing: http.RequestListener,
): Promise<() => Promise<void>> {
  const tls =
    endpoint.secure && settings.clientTls ? readTls(settings.clientTls, settings.tlsMinVersion) : undefined
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

/** Reads certificates afresh: they may have been renewed. */
export function readTls(files: TlsFiles, minVersion: WireTls['minVersion']): WireTls {
  const read = (path: string): Buffer => {
    try {
      return readFileSync(path)
    } catch (cause) {
      throw new Fault('STORE_TLS_FILE', `cannot read ${path}`, { cause })
    }
  }
  return {
    cert: read(files.certFile),
    key: read(files.keyFile),
    ...(files.caFile ? { ca: read(files.caFile) } : {}),
    ...(files.crlFile ? { crl: read(files.crlFile) } : {}),
    clientCertificate: files.clientAuth ? 'require' : files.caFile ? 'request' : 'none',
    ...(minVersion ? { minVersion } : {}),
  }
}

import { mkdir } from 'node:fs/promises'
import { createServer as createPlainServer, type Server } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { join } from 'node:path'
import { caHash } from '@kiln/pki'
import { clientUrl } from '@kiln/schemas'
import { Fault, type Log } from '@kiln/service'
import fastify, { type FastifyInstance } from 'fastify'
import { openAuditLog } from './audit-log.ts'
import type { BootContext } from './boot-context.ts'
import { ChannelFiles } from './channel-files.ts'
import { ClusterFile } from './cluster-file.ts'
import { DataDirectory } from './data-directory.ts'
import { EnrolmentDesk } from './enrolment.ts'
import { bootRoutes } from './http-boot.ts'
import { channelRoutes } from './http-channels.ts'
import { handleErrors } from './http-errors.ts'
import { machineRoutes } from './http-machines.ts'
import { MachineRegistry } from './machine-registry.ts'
import { openReleaseShelf } from './release-shelf.ts'
import { acceptJson } from './request-body.ts'
import { openServerIdentity } from './server-identity.ts'
import type { BootSettings } from './settings.ts'
import { connectMembers } from './store-connection.ts'
import { storeMembership } from './store-membership.ts'

export type BootServer = {
  /** Where the two ports were bound, `http://HOST:PORT` and `https://HOST:PORT`. */
  url: string
  tlsUrl: string
  stop(): Promise<void>
}

const bodyBytesMax = 64 * 1024
const connectionsMax = 4096
const certificateCheckMs = 12 * 3_600_000

/** Opens the data directory and serves both ports until `stop`. */
export async function startBootServer(settings: BootSettings, log: Log): Promise<BootServer> {
  const at = (name: string): string => join(settings.dataPath, name)
  await mkdir(settings.dataPath, { recursive: true }).catch((cause: unknown) => {
    throw new Fault('DATA_PATH_UNUSABLE', `the data directory ${settings.dataPath} cannot be used`, { cause })
  })
  const identity = await openServerIdentity(at('pki'), settings.tlsNames)
  if (identity.isNew)
    log.warn({ folder: at('pki') }, 'made a new cluster CA: machines of another one do not trust it')
  const data = new DataDirectory(settings.dataPath, log)
  const machines = new MachineRegistry(at('machines'), log)
  const cluster = new ClusterFile(at('cluster.json'), log)
  const channels = new ChannelFiles(at('channels'), log)
  await machines.load()
  await cluster.load()
  await channels.load()
  await data.open(settings.rescanSeconds * 1000)
  let tlsPort = settings.tlsAddress.port
  const context: BootContext = {
    settings,
    log,
    data,
    machines,
    enrolments: new EnrolmentDesk(at('enrolments'), identity.ca),
    cluster,
    membership: storeMembership({
      cluster,
      log,
      connect: (endpoints) => connectMembers({ endpoints, ca: identity.ca.certificate, ...identity.admin }),
      endpointsOf: (record, without) =>
        settings.storeEndpoints.length > 0
          ? settings.storeEndpoints
          : [...record.members, ...record.joined]
              .filter((member) => member.address !== without)
              .map((member) => clientUrl(member.address)),
    }),
    channels,
    releases: openReleaseShelf(settings.assetsPath),
    audit: openAuditLog(at('audit.log'), log),
    ca: identity.ca,
    caHash: caHash(identity.ca.certificate),
    tlsPort: () => tlsPort,
  }

  const tlsServer = createTlsServer({
    ...identity.tlsOptions(),
    requestCert: true,
    rejectUnauthorized: false,
  })
  const plain = await application(context, createPlainServer())
  const secure = await application(context, tlsServer as unknown as Server)
  const renewal = setInterval(() => {
    void identity.renew(new Date()).then(
      (renewed) => renewed && tlsServer.setSecureContext(identity.tlsOptions()),
      (error: unknown) => log.error({ error }, 'server certificate not renewed'),
    )
  }, certificateCheckMs)
  const stop = async (): Promise<void> => {
    clearInterval(renewal)
    await Promise.all([plain.close(), secure.close()])
    await data.close()
    await machines.close()
  }
  try {
    const url = await listen(plain, settings.address, 'http')
    const tlsUrl = await listen(secure, settings.tlsAddress, 'https')
    tlsPort = Number(new URL(tlsUrl).port || 443)
    log.info({ url, tlsUrl, dataPath: settings.dataPath, caHash: context.caHash }, 'serving')
    return { url, tlsUrl, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

async function application(context: BootContext, server: Server): Promise<FastifyInstance> {
  server.maxConnections = connectionsMax
  server.headersTimeout = 15_000
  server.requestTimeout = 60_000
  const app = fastify({
    serverFactory: (handler) => server.on('request', handler),
    bodyLimit: bodyBytesMax,
    forceCloseConnections: true,
    routerOptions: { maxParamLength: 128 },
  })
  acceptJson(app)
  handleErrors(app, context.log)
  await bootRoutes(app, context)
  machineRoutes(app, context)
  channelRoutes(app, context)
  return app
}

async function listen(
  app: FastifyInstance,
  at: { host: string; port: number },
  scheme: 'http' | 'https',
): Promise<string> {
  try {
    await app.listen({ host: at.host, port: at.port })
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code === 'EADDRINUSE' ? 'PORT_TAKEN' : 'LISTEN_FAILED'
    throw new Fault(code, `cannot listen on ${at.host}:${at.port}`, { cause })
  }
  const bound = app.server.address()
  const port = typeof bound === 'object' && bound ? bound.port : at.port
  return `${scheme}://${at.host.includes(':') ? `[${at.host}]` : at.host}:${port}`
}

import { existsSync } from 'node:fs'
import { chmod, mkdir, rm } from 'node:fs/promises'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { connect } from 'node:net'
import { dirname } from 'node:path'
import { type PodStatus, parsePod } from '@kiln/schemas'
import { assert, describeError, Fault, type Log, version } from '@kiln/service'
import * as z from 'zod'
import type { NetworkLeft } from './cni/pod-networks.ts'
import { answerEvents } from './events/event-api.ts'
import type { EventLog } from './events/event-log.ts'
import { answerInLines, findImageWork } from './image-api.ts'
import type { ImageService } from './image-service.ts'
import type { PodLife } from './life/pod-life.ts'
import type { NetworksAnswer } from './network-commands.ts'
import type { ContainerStatistics } from './pod-kernel.ts'

/** What the daemon does for its command line, over HTTP and JSON on a unix socket that only root may open. */
export type RuntimeApi = {
  list(): PodStatus[]
  run(manifest: NonNullable<ReturnType<typeof parsePod>['pod']>): Promise<PodStatus>
  stop(name: string, graceSeconds?: number): Promise<PodStatus>
  start(name: string): Promise<PodStatus>
  remove(name: string, graceSeconds?: number): void
  /** Writes a plan that runs a program in a container, and says where. */
  planExec(name: string, wanted: ExecRequest): Promise<{ planFile: string; initPath: string }>
  /** Where a container's output goes on this machine. */
  logs(name: string, container?: string): { journal: boolean; files: string[]; containers: string[] }
  /** Withdraws services and ends pods before a reboot; answers the pods that still run. */
  drain(wanted: DrainRequest): Promise<string[]>
  /** There is no reboot: services and pods come back. */
  resume(): Promise<void>
  images: ImageService
  events: EventLog
  /** What the containers of a pod that runs use; fails on machines without cgroup v2. */
  statistics(name: string): Promise<ContainerStatistics[]>
  life: Omit<PodLife, 'adopt' | 'over' | 'imageUsers'>
  networks: {
    list(): Promise<NetworksAnswer>
    /** Undoes networks of sandboxes that are gone; answers those that stay. */
    collect(): Promise<NetworkLeft[]>
  }
  info(): { machine: string; runsPods: boolean; code?: string; message?: string }
}

export const ExecRequest = z.strictObject({
  container: z.string().optional(),
  args: z.array(z.string()).min(1).max(512),
  terminal: z
    .strictObject({
      rows: z.number().int().min(0).max(65_535),
      columns: z.number().int().min(0).max(65_535),
      /** What `TERM` is to be. */
      type: z.string().max(64).optional(),
    })
    .optional(),
})
export type ExecRequest = z.output<typeof ExecRequest>

const StopRequest = z.strictObject({ graceSeconds: z.number().int().min(0).max(3600).optional() })

export const DrainRequest = z.strictObject({
  graceSeconds: z.number().int().min(0).max(3600),
  forSeconds: z.number().int().min(1).max(7200),
})
export type DrainRequest = z.output<typeof DrainRequest>

const bodyBytesMax = 1 << 20

type Route = {
  method: string
  path: RegExp
  /** The signal: whoever asked has gone. */
  serve(api: RuntimeApi, name: string, body: unknown, gone: AbortSignal): unknown
}

const CollectBody = z.strictObject({
  graceSeconds: z.number().min(0).max(1e9),
  expirePreparedSeconds: z.number().min(0).max(1e9),
  markOnly: z.boolean(),
})

const text = z.string().max(253)
const RunBody = z.strictObject({
  net: text.optional(),
  hostname: text.optional(),
  dns: z.array(text).max(3).optional(),
  dnsSearch: z.array(text).max(32).optional(),
})

const grace = (body: unknown): number | undefined => StopRequest.parse(body ?? {}).graceSeconds

/** The life of pods by uuid: see `PodLife`. The pods of `/v1/pods` are those that run, by name or uuid. */
const lifeRoutes: Route[] = [
  { method: 'GET', path: /^\/v1\/life$/, serve: (api) => api.life.list() },
  {
    method: 'POST',
    path: /^\/v1\/life$/,
    serve: async (api, _, body, gone) => ({ uuid: await api.life.prepare(readManifest(body), gone) }),
  },
  {
    method: 'POST',
    path: /^\/v1\/life-gc$/,
    serve: (api, _, body) => api.life.collect(CollectBody.parse(body)),
  },
  { method: 'GET', path: /^\/v1\/life\/([^/]+)$/, serve: (api, id) => api.life.find(id) },
  {
    method: 'POST',
    path: /^\/v1\/life\/([^/]+)\/run$/,
    serve: async (api, id, body) => {
      const { uuid } = api.life.find(id)
      await api.life.runPrepared(uuid, RunBody.parse(body ?? {}))
      return api.life.find(uuid)
    },
  },
  {
    method: 'POST',
    path: /^\/v1\/life\/([^/]+)\/remove$/,
    serve: (api, id) => api.life.remove(api.life.find(id).uuid).then(() => ({})),
  },
  {
    method: 'GET',
    path: /^\/v1\/life\/([^/]+)\/manifest$/,
    serve: (api, id) => api.life.manifest(api.life.find(id).uuid),
  },
  {
    method: 'GET',
    path: /^\/v1\/life\/([^/]+)\/logs$/,
    serve: (api, id) => api.life.logs(api.life.find(id).uuid),
  },
  {
    method: 'POST',
    path: /^\/v1\/life\/([^/]+)\/layers$/,
    serve: async (api, id, body) => ({
      layers: await api.life.layers(
        api.life.find(id).uuid,
        z.strictObject({ app: z.string().optional() }).parse(body).app,
      ),
    }),
  },
]

const routes: Route[] = [
  ...lifeRoutes,
  { method: 'GET', path: /^\/v1\/info$/, serve: (api) => ({ version, ...api.info() }) },
  { method: 'GET', path: /^\/v1\/pods$/, serve: (api) => api.list() },
  { method: 'POST', path: /^\/v1\/pods$/, serve: (api, _, body) => api.run(readManifest(body)) },
  { method: 'GET', path: /^\/v1\/pods\/([^/]+)$/, serve: (api, name) => find(api, name) },
  {
    method: 'POST',
    path: /^\/v1\/pods\/([^/]+)\/stop$/,
    serve: (api, name, body) => api.stop(name, grace(body)),
  },
  { method: 'POST', path: /^\/v1\/pods\/([^/]+)\/start$/, serve: (api, name) => api.start(name) },
  {
    method: 'POST',
    path: /^\/v1\/pods\/([^/]+)\/remove$/,
    serve: (api, name, body) => {
      api.remove(name, grace(body))
      return {}
    },
  },
  {
    method: 'POST',
    path: /^\/v1\/pods\/([^/]+)\/exec$/,
    serve: (api, name, body) => api.planExec(name, ExecRequest.parse(body)),
  },
  { method: 'GET', path: /^\/v1\/pods\/([^/]+)\/logs$/, serve: (api, name) => api.logs(name) },
  {
    method: 'POST',
    path: /^\/v1\/drain$/,
    serve: async (api, _, body) => ({ running: await api.drain(DrainRequest.parse(body)) }),
  },
  { method: 'POST', path: /^\/v1\/resume$/, serve: (api) => api.resume().then(() => ({})) },
  { method: 'GET', path: /^\/v1\/images$/, serve: (api) => api.images.list() },
  { method: 'GET', path: /^\/v1\/networks$/, serve: (api) => api.networks.list() },
  {
    method: 'POST',
    path: /^\/v1\/networks\/gc$/,
    serve: async (api) => ({ left: await api.networks.collect() }),
  },
]

function find(api: RuntimeApi, name: string): PodStatus {
  const status = api.list().find((pod) => pod.name === name)
  if (!status) throw new Fault('POD_NOT_FOUND', `there is no pod ${name}`)
  return status
}

/** Pods that run have names; their uuids, or the beginnings of those, do as well. */
export function nameOf(api: RuntimeApi, id: string): string {
  if (api.list().some(({ name }) => name === id)) return id
  const entry = api.life.find(id)
  if (entry.supervised) return entry.name
  throw new Fault('POD_NOT_RUNNING', `pod ${entry.uuid} does not run: it is ${entry.state}`)
}

function readManifest(body: unknown): NonNullable<ReturnType<typeof parsePod>['pod']> {
  const { pod, problems } = parsePod(body)
  if (pod) return pod
  const text = problems.map((problem) => `${problem.path} ${problem.message}`).join('; ')
  throw new Fault('POD_INVALID', text)
}

/** Status and exit code belong together: see `exitCodeOf` in the client. */
function statusOf(error: unknown): number {
  if (error instanceof z.ZodError) return 400
  if (!(error instanceof Fault)) return 500
  if (error.code === 'POD_NOT_FOUND') return 404
  if (error.code === 'POD_INVALID') return 422
  return 409
}

export async function serveApi(input: {
  socket: string
  api: RuntimeApi
  log: Log
}): Promise<{ close(): Promise<void> }> {
  const { socket, api, log } = input
  await takeSocket(socket)
  const server = createServer((request, response) => {
    answer(request, response).catch((error: unknown) => {
      log.error({ error: describeError(error) }, 'answering a request failed')
      response.destroy()
    })
  })

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let status = 200
    let body: unknown
    try {
      const { pathname, searchParams } = new URL(request.url ?? '/', 'http://runtime')
      if (request.method === 'GET' && pathname === '/v1/events')
        return answerEvents(response, api.events, searchParams)
      const work = request.method === 'POST' ? findImageWork(pathname) : undefined
      if (work) {
        const asked = await readBody(request)
        return await answerInLines(response, log, (tell) => work(api.images, asked, tell))
      }
      const found = routes.find((route) => route.method === request.method && route.path.test(pathname))
      if (!found) throw new Fault('POD_NOT_FOUND', `there is nothing at ${request.method} ${pathname}`)
      const id = decodeURIComponent(found.path.exec(pathname)?.[1] ?? '')
      const name = pathname.startsWith('/v1/pods/') ? nameOf(api, id) : id
      const gone = new AbortController()
      const asked = await readBody(request)
      response.on('close', () => gone.abort())
      body = await found.serve(api, name, asked, gone.signal)
    } catch (error) {
      status = statusOf(error)
      const code = error instanceof Fault ? error.code : status === 400 ? 'REQUEST_INVALID' : 'UNEXPECTED'
      body = { code, message: describeError(error).replace(`${code}: `, '') }
      if (status === 500) log.error({ error: describeError(error) }, 'a request failed')
    }
    response.writeHead(status, { 'content-type': 'application/json' })
    response.end(JSON.stringify(body))
  }

  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(socket, resolve)
  })
  await chmod(socket, 0o600)
  return {
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

async function readBody(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of request) {
    length += (chunk as Buffer).length
    if (length > bodyBytesMax)
      throw new Fault('POD_INVALID', `the request is larger than ${bodyBytesMax} bytes`)
    chunks.push(chunk as Buffer)
  }
  if (length === 0) return undefined
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'))
  } catch (error) {
    throw new Fault('POD_INVALID', 'the request is not JSON', { cause: error })
  }
}

/** A socket that nobody answers is left from a crash; one that is answered is another daemon's. */
export async function takeSocket(socket: string): Promise<void> {
  assert(socket.length < 100, 'a socket path that the kernel takes')
  await mkdir(dirname(socket), { recursive: true })
  if (!existsSync(socket)) return
  const answered = await new Promise<boolean>((resolve) => {
    const client = connect(socket, () => resolve(true))
    client.on('error', () => resolve(false))
    client.on('connect', () => client.destroy())
  })
  if (answered) throw new Fault('RUNTIME_ALREADY_RUNS', `another kiln-runtime serves ${socket}`)
  await rm(socket)
}

import { watchCertificate } from '@kiln/pki/certificate-watch'
import { machineCertificate, operatorName, readMachineTls } from '@kiln/pki/machine'
import { runtimeService as service } from '@kiln/runtime-api'
import * as messages from '@kiln/runtime-api/messages'
import { type Clock, describeError, Fault, type Log } from '@kiln/service'
import {
  createWireServer,
  grpcCode,
  type StreamCall,
  type StreamListener,
  type UnaryHandler,
  type WireServer,
  type WireTls,
} from '@kiln/wire'
import { nameOf, type RuntimeApi, takeSocket } from '../api.ts'
import { parsePodText } from '../pod-files.ts'
import { fail, serveExec, serveLogs } from './child-streams.ts'
import { decode, eventMessage, grpcError, imageMessage, podMessage, statsMessage } from './messages.ts'

/**
 * Serves `kiln.runtime.v1.Runtime` (libs/runtime-api/proto/runtime.proto) on a unix socket that only its owner may open: root for the daemon of a machine. The
 * kernel checks whoever connects against that.
 */
export async function serveGrpc(input: {
  socket: string
  api: RuntimeApi
  log: Log
}): Promise<{ close(): Promise<void> }> {
  const { socket, api, log } = input
  await takeSocket(socket)
  const server = createWireServer()
  addMethods(server, api, log)
  // The socket is made within the call: nobody else may ever open it.
  const mask = process.umask(0o177)
  const listening = server.listen({ path: socket })
  process.umask(mask)
  await listening
  return { close: () => server.close({ graceMs: 0 }) }
}

/**
 * The same for the cluster's operator, over TLS, at all addresses of the machine. Whoever connects shows a certificate of the cluster's authority with
 * the operator's name; machines have others, so that one that was taken over does not rule the rest. It is tried again until it can be had: the
 * machine's own certificate may come later than the daemon.
 */
export function openOperatorPort(input: {
  port: number
  /** Folder of the machine's identity. */
  pkiDir: string
  clock: Clock
  api: RuntimeApi
  log: Log
  /** Hears where it listens. */
  onListening?: (port: number) => void
}): { close(): Promise<void> } {
  const { port, pkiDir, clock, api, log } = input
  const tls = (): WireTls => ({
    ...readMachineTls(pkiDir),
    clientCertificate: 'require',
    isAllowed: ({ subject }) => subject?.CN === operatorName,
    minVersion: 'TLSv1.3',
  })
  let closed = false
  let told = ''
  let cancel = (): void => undefined
  let server: WireServer | undefined
  const open = async (): Promise<void> => {
    const opening = createWireServer({ tls: tls() })
    addMethods(opening, api, log)
    // All of IPv6 is all of IPv4 as well; a kernel may be without.
    const listen = (host: string): Promise<{ port: number }> => opening.listen({ host, port })
    const at = await listen('::').catch(() => listen('0.0.0.0'))
    if (closed) return await opening.close({ graceMs: 0 })
    server = opening
    cancel = watchCertificate(machineCertificate(pkiDir), clock, log, () => opening.renewTls(tls()))
    log.info({ port: at.port }, 'the operator is served')
    input.onListening?.(at.port)
  }
  const attempt = (): void => {
    open().catch((error: unknown) => {
      const reason = describeError(error)
      if (reason !== told) log.warn({ reason }, 'the operator is not served yet')
      told = reason
      if (!closed) cancel = clock.after(openRetryMs, attempt)
    })
  }
  attempt()
  return {
    close: async () => {
      closed = true
      cancel()
      await server?.close({ graceMs: 0 })
    },
  }
}

const openRetryMs = 5_000

function addMethods(server: WireServer, api: RuntimeApi, log: Log): void {
  const unary = <Q, A>(
    name: string,
    request: { decode(bytes: Uint8Array): Q },
    response: { encode(message: A): { finish(): Uint8Array } },
    serve: (request: Q) => A | Promise<A>,
  ): void => {
    const handler: UnaryHandler = async (bytes) => {
      try {
        return response.encode(await serve(decode(request, bytes))).finish()
      } catch (error) {
        throw told(error, name)
      }
    }
    server.unary(`${service}/${name}`, handler)
  }
  /** One request, many answers. */
  const stream = <Q>(
    name: string,
    request: { decode(bytes: Uint8Array): Q },
    serve: (request: Q, call: StreamCall) => (() => void) | Promise<void>,
  ): void => {
    server.stream(`${service}/${name}`, (call): StreamListener => {
      let stop: (() => void) | undefined
      const begin = async (bytes: Uint8Array): Promise<void> => {
        const serving = serve(decode(request, bytes), call)
        if (typeof serving === 'function') stop = serving
        else await serving
      }
      return {
        onMessage: (bytes) => {
          begin(bytes).catch((error: unknown) => fail(call, told(error, name)))
        },
        onClose: () => stop?.(),
      }
    })
  }
  const told = (error: unknown, method: string): Error => {
    const known = error instanceof Fault
    if (!known) log.warn({ method, error: describeError(error) }, 'a call failed')
    return grpcError(error)
  }

  unary('ListPods', messages.ListPodsRequest, messages.ListPodsResponse, () => ({
    pods: api.life.list().map(podMessage),
  }))
  unary('InspectPod', messages.InspectPodRequest, messages.InspectPodResponse, ({ pod: id }) => {
    const entry = api.life.find(id)
    const status = entry.supervised ? api.list().find(({ name }) => name === entry.name) : undefined
    return {
      pod: podMessage(entry),
      manifestJson: JSON.stringify(api.life.manifest(entry.uuid)),
      statusJson: status && JSON.stringify(status),
    }
  })
  unary('RunPod', messages.RunPodRequest, messages.RunPodResponse, async ({ manifest: text, once }) => {
    const { pods, problems } = parsePodText(text)
    const [manifest, ...more] = pods
    if (problems.length > 0 || !manifest || more.length > 0)
      throw new Fault('POD_INVALID', problems.join('; ') || 'one pod at a time')
    if (!once) return { pod: podMessage(api.life.find((await api.run(manifest)).name)) }
    const uuid = await api.life.prepare(manifest, new AbortController().signal)
    await api.life.runPrepared(uuid)
    return { pod: podMessage(api.life.find(uuid)) }
  })
  unary('StopPod', messages.StopPodRequest, messages.StopPodResponse, async ({ pod, graceSeconds }) => {
    await api.stop(nameOf(api, pod), graceSeconds)
    return {}
  })
  unary('RemovePod', messages.RemovePodRequest, messages.RemovePodResponse, async ({ pod, graceSeconds }) => {
    const entry = api.life.find(pod)
    if (entry.supervised && !entry.once) api.remove(entry.name, graceSeconds)
    else await api.life.remove(entry.uuid)
    return {}
  })
  unary('ListImages', messages.ListImagesRequest, messages.ListImagesResponse, async () => ({
    images: (await api.images.list()).map(imageMessage),
  }))
  unary('RemoveImage', messages.RemoveImageRequest, messages.RemoveImageResponse, async ({ name }) => ({
    references: await api.images.remove({ names: [name] }),
  }))
  stream('PullImage', messages.PullImageRequest, async ({ reference, policy }, call) => {
    const answer = (message: messages.PullImageResponse): void => {
      // A reader that is slow misses how it goes, not the image.
      if (call.writable || message.image) call.send(messages.PullImageResponse.encode(message).finish())
    }
    const wanted = { reference, policy: pullPolicy(policy), insecure: false }
    const image = await api.images.fetch(wanted, (progress) =>
      answer({ progressJson: JSON.stringify(progress), image: undefined }),
    )
    answer({ progressJson: undefined, image: imageMessage(image) })
    call.end()
  })
  stream('ListenEvents', messages.ListenEventsRequest, ({ pod, after, follow }, call) => {
    const send = (event: Parameters<typeof eventMessage>[0]): void => {
      if (pod !== undefined && event.pod !== pod && event.uuid !== pod) return
      if (call.bufferedBytes > unreadBytesMax)
        call.end({ code: grpcCode.resourceExhausted, message: 'too many events are unread' })
      else call.send(messages.Event.encode(eventMessage(event)).finish())
    }
    for (const event of api.events.list({ pod, after: Number(after) })) send(event)
    if (follow) return api.events.follow(send)
    call.end()
    return () => undefined
  })
  unary('GetStats', messages.GetStatsRequest, messages.GetStatsResponse, async ({ pod }) => {
    const entries = api.life.list().filter(({ supervised }) => supervised)
    const wanted = pod === undefined ? entries : [api.life.find(pod)]
    const each = wanted.map(async ({ name, uuid }) =>
      (await api.statistics(name)).map((one) => statsMessage({ pod: name, uuid }, one)),
    )
    return { containers: (await Promise.all(each)).flat() }
  })
  server.stream(`${service}/GetLogs`, (call) => serveLogs(api, call))
  server.stream(`${service}/Exec`, (call) => serveExec(api, (id) => nameOf(api, id), call))
}

const unreadBytesMax = 4 << 20

function pullPolicy(policy: string): 'never' | 'new' | 'update' {
  if (policy === '' || policy === 'new') return 'new'
  if (policy === 'never' || policy === 'update') return policy
  throw new Fault('REQUEST_INVALID', `policy is never, new or update, not ${policy}`)
}

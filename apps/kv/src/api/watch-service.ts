import { type Demand, WatchHub, type WatchSink, type WatchStream } from '@kiln/mvcc'
import { GrpcError, grpcCode, type StreamCall } from '@kiln/wire'
import { headerOf, isLearner, type ServiceContext } from './context.ts'
import { statuses, toGrpcError } from './errors.ts'
import type { MethodRegistry } from './method-table.ts'
import { inOrder } from './ordered-messages.ts'
import { decodeWatch, type WatchAsk } from './requests.ts'
import { encodeEvents, encodeWatchHead } from './responses.ts'

/** Pause before watchers that could not go on are looked at again. */
const syncIntervalMs = 100
/** Watchers of one stream. */
const watchersMax = 100_000

/** Requests of one stream that wait while a large revision is sent to it. */
const heldMax = 10_000
const tooManyHeld = {
  code: grpcCode.resourceExhausted,
  message: 'too many requests while a large revision is sent',
}

export type WatchService = {
  hub: WatchHub
  /** Tells watchers what the last applied entries changed. */
  advance(): void
  /** The store was replaced. */
  reset(): void
  stop(): void
}

/** The hub and what drives it: synced watchers at each apply, the others in passes between other work. */
export function createWatchService(
  context: Pick<ServiceContext, 'state' | 'settings' | 'clock'>,
): WatchService {
  const { state, settings, clock } = context
  const hub = new WatchHub(state.store, { fragmentBytesMax: settings.requestBytesMax + 512 * 1024 })
  let isScheduled = false
  let isStopped = false
  let cancelRetry = (): void => undefined
  let cancelProgress = (): void => undefined

  const pump = (): void => {
    if (isScheduled || isStopped || !hub.hasWork) return
    isScheduled = true
    cancelRetry()
    setImmediate(() => {
      isScheduled = false
      if (isStopped) return
      const isMore = hub.sync()
      for (const { fetch, done } of hub.takeFetches()) {
        // A read that fails stops the member.
        void state.values.read(fetch).then(
          () => {
            done()
            pump()
          },
          () => undefined,
        )
      }
      if (isMore) pump()
      else if (hub.hasWork) cancelRetry = clock.after(syncIntervalMs, pump)
    })
  }
  const progress = (): void => {
    cancelProgress = clock.after(settings.progressIntervalMs * (1 + Math.random() / 10), () => {
      hub.notifyProgress()
      progress()
    })
  }
  progress()
  return {
    hub,
    advance: () => {
      hub.advance()
      pump()
    },
    reset: () => {
      hub.reset()
      pump()
    },
    stop: () => {
      isStopped = true
      cancelRetry()
      cancelProgress()
    },
  }
}

/** Watches: etcdserverpb.Watch (kv.md section 4). */
export function serveWatch(server: MethodRegistry, context: ServiceContext, watches: WatchService): void {
  const { hub } = watches
  server.stream('/etcdserverpb.Watch/Watch', (call) => {
    const stream = hub.open(sinkOf(call, context))
    const stopWaiting = endWithoutLeader(context, call)
    const take = (request: WatchAsk): void => {
      onRequest(watches, stream, request)
      if (stream.held.length > heldMax) call.end(tooManyHeld)
    }
    const handle = (bytes: Uint8Array): Promise<void> | undefined => {
      if (isLearner(context)) {
        call.end({ code: statuses.learner.code, message: statuses.learner.text })
        return undefined
      }
      const request = decodeWatch(bytes)
      const demand = demandOf(request)
      if (!demand || !context.auth.refusalOf(call, demand)) {
        take(request)
        return undefined
      }
      return context.auth.admit(call, demand).then(
        () => {
          if (!call.closed) take(request)
        },
        (error: unknown) => refuseWatch(watches, stream, { context, error }),
      )
    }
    return {
      onMessage: inOrder(call, handle),
      onEnd: () => call.end({ code: statuses.watchCanceled.code, message: statuses.watchCanceled.text }),
      onDrain: () => watches.advance(),
      onClose: () => {
        stopWaiting()
        hub.close(stream)
      },
    }
  })
}

/** Messages to a call; those too large for memory in parts. */
function sinkOf(call: StreamCall, context: ServiceContext): WatchSink {
  return {
    get writable(): boolean {
      return call.writable && !call.closed
    },
    send: (message) => {
      const head = encodeWatchHead(headerOf(context, message.revision), message)
      call.send(head, message.events.length > 0 ? encodeEvents(message.events) : undefined)
    },
    long: {
      bytesOf: (events) => encodeEvents(events).length,
      begin: (message, eventsBytes) => {
        const head = encodeWatchHead(headerOf(context, message.revision), message)
        call.beginMessage(head.length + eventsBytes)
        call.sendPart(head)
      },
      piece: (events) => void call.sendPart(encodeEvents(events)),
      // A client that lost its stream begins again where it was, and is then told of the compaction.
      abort: () => call.end({ code: grpcCode.unavailable, message: statuses.compacted.text }),
    },
  }
}

/** An empty key stands for the first one. */
function demandOf(request: WatchAsk): Demand | undefined {
  if (request.kind !== 'create') return undefined
  const { key, rangeEnd } = request.create
  return { kind: 'range', request: { key: key.length === 0 ? Buffer.alloc(1) : key, rangeEnd } }
}

const codeNames: Record<number, string> = {
  [grpcCode.invalidArgument]: 'InvalidArgument',
  [grpcCode.permissionDenied]: 'PermissionDenied',
  [grpcCode.unauthenticated]: 'Unauthenticated',
  [grpcCode.unavailable]: 'Unavailable',
}

/** The stream goes on without this watcher; the reason is worded as Go words the status. */
function refuseWatch(
  watches: WatchService,
  stream: WatchStream,
  { context, error: thrown }: { context: ServiceContext; error: unknown },
): void {
  const error = toGrpcError(thrown)
  if (!(error instanceof GrpcError)) throw error
  const code = codeNames[error.code] ?? 'Unknown'
  const { revision } = context.state.store
  watches.hub.refuse(stream, `rpc error: code = ${code} desc = ${error.message}`, revision)
}

function onRequest(watches: WatchService, stream: WatchStream, request: WatchAsk): void {
  switch (request.kind) {
    case 'create':
      if (stream.watchers.size >= watchersMax) {
        watches.hub.refuse(stream, `at most ${watchersMax} watchers a stream`, 0)
        return
      }
      watches.hub.create(stream, request.create)
      watches.advance()
      return
    case 'cancel':
      watches.hub.cancel(stream, request.watchId)
      return
    case 'progress':
      watches.hub.requestProgress(stream)
      return
    case 'none':
      return
  }
}

/** A stream that asked for a leader is refused without one, and ends when there was none for three election timeouts. */
export function endWithoutLeader(context: ServiceContext, call: StreamCall): () => void {
  if (!call.hasLeader) return () => undefined
  const { consensus, clock, settings } = context
  const patienceMs = 3 * settings.electionMs
  let cancel = (): void => undefined
  let lostAt = consensus.leader() === 0n ? Number.NEGATIVE_INFINITY : undefined
  const look = (): void => {
    if (consensus.leader() !== 0n) lostAt = undefined
    else lostAt ??= clock.now()
    if (lostAt !== undefined && clock.now() - lostAt >= patienceMs) {
      call.end({ code: statuses.noLeader.code, message: statuses.noLeader.text })
      return
    }
    cancel = clock.after(settings.electionMs, look)
  }
  look()
  return () => cancel()
}

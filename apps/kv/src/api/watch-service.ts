import { type Demand, WatchHub, type WatchMessage, type WatchStream } from '@kiln/mvcc'
import { GrpcError, grpcCode, type StreamCall } from '@kiln/wire'
import { headerOf, isLearner, type ServiceContext } from './context.ts'
import { statuses, toGrpcError } from './errors.ts'
import type { MethodRegistry } from './method-table.ts'
import { inOrder } from './ordered-messages.ts'
import { decodeWatch, type WatchAsk } from './requests.ts'
import { encodeWatch } from './responses.ts'

/** Pause before watchers that could not go on are looked at again. */
const syncIntervalMs = 100
/** Watchers of one stream. */
const watchersMax = 100_000

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
    if (isScheduled || isStopped || hub.unsyncedCount === 0) return
    isScheduled = true
    cancelRetry()
    setImmediate(() => {
      isScheduled = false
      if (isStopped) return
      if (hub.sync()) pump()
      else if (hub.unsyncedCount > 0) cancelRetry = clock.after(syncIntervalMs, pump)
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
    const sink = {
      get writable(): boolean {
        return call.writable && !call.closed
      },
      send: (message: WatchMessage): void => {
        const { head, events } = encodeWatch(headerOf(context, message.revision), message)
        call.send(head, events)
      },
    }
    const stream = hub.open(sink)
    const stopWaiting = endWithoutLeader(context, call)
    const handle = (bytes: Uint8Array): Promise<void> | undefined => {
      if (isLearner(context)) {
        call.end({ code: statuses.learner.code, message: statuses.learner.text })
        return undefined
      }
      const request = decodeWatch(bytes)
      const demand = demandOf(request)
      if (!demand || !context.auth.refusalOf(call, demand)) {
        onRequest(watches, stream, request)
        return undefined
      }
      return context.auth.admit(call, demand).then(
        () => {
          if (!call.closed) onRequest(watches, stream, request)
        },
        (error: unknown) => refuseWatch(context, stream, error),
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
function refuseWatch(context: ServiceContext, stream: WatchStream, thrown: unknown): void {
  const error = toGrpcError(thrown)
  if (!(error instanceof GrpcError)) throw error
  const code = codeNames[error.code] ?? 'Unknown'
  const { revision } = context.state.store
  sendCanceled(stream, `rpc error: code = ${code} desc = ${error.message}`, revision)
}

function sendCanceled(stream: WatchStream, cancelReason: string, revision: number): void {
  stream.sink.send({
    watchId: -1,
    revision,
    created: true,
    canceled: true,
    compactRevision: 0,
    cancelReason,
    fragment: false,
    events: [],
  })
}

function onRequest(watches: WatchService, stream: WatchStream, request: WatchAsk): void {
  switch (request.kind) {
    case 'create':
      if (stream.watchers.size >= watchersMax) {
        sendCanceled(stream, `at most ${watchersMax} watchers a stream`, 0)
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

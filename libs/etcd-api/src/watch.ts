import { type Clock, Fault } from '@kiln/service'
import type { ClientStream } from '@kiln/wire'
import { type Bytes, prefixRange, toBytes, toText } from './bytes.ts'
import type { Endpoints } from './endpoints.ts'
import { type StoreEntry, storeEntry } from './entry.ts'
import { type Event, Event_EventType } from './generated/mvcc.ts'
import { WatchRequest, WatchResponse } from './generated/rpc.ts'

export type WatchEvent =
  | { kind: 'put'; entry: StoreEntry; previous: StoreEntry | undefined }
  | {
      kind: 'delete'
      key: string
      keyBytes: Uint8Array
      modRevision: bigint
      previous: StoreEntry | undefined
    }

/** Events in order, whole revisions at a time; or the end, when what is asked for was compacted away: read anew and watch from there. */
export type WatchOutcome =
  | { kind: 'events'; revision: bigint; events: WatchEvent[] }
  | { kind: 'compacted'; compactRevision: bigint }

export type WatchOptions = {
  /** The first revision wanted; without it, what happens from now on. */
  startRevision?: bigint
  /** Watch the one key, not what begins with it. */
  exact?: boolean
  /** Watch from the key to before this one, not what begins with it; one zero byte: to the end of all keys. */
  rangeEnd?: Bytes
  /** Events carry the entry before the change. */
  previous?: boolean
  signal?: AbortSignal
  /** The connection was lost or refused; the watch goes on by itself. */
  onTrouble?(fault: Fault): void
}

/** Goes on over lost connections and leader changes without a gap or a repeat until it is closed or ends `compacted`. */
export type Watch = AsyncIterable<WatchOutcome> & { close(): void }

/** A reader that is further behind makes the server wait. */
const queueMax = 256
const retryMs = 500

export function openWatch(
  endpoints: Endpoints,
  clock: Clock,
  timeoutMs: number,
  key: Bytes,
  options: WatchOptions,
): Watch {
  const doing = `watch ${typeof key === 'string' ? key : toText(key)}`
  const range = rangeOf(key, options)
  const queue: WatchOutcome[] = []
  let next = options.startRevision ?? 0n
  let cluster: bigint | undefined
  let stream: ClientStream | undefined
  let paused = false
  let ended = false
  let failure: Fault | undefined
  let wake: (() => void) | undefined
  /** Why the present connection is given up, if it is us. */
  let trouble: Fault | undefined

  function push(outcome: WatchOutcome): void {
    queue.push(outcome)
    if (queue.length >= queueMax) {
      paused = true
      stream?.pause()
    }
    wake?.()
  }

  function end(fault?: Fault): void {
    if (ended) return
    ended = true
    failure = fault
    stream?.cancel()
    wake?.()
  }

  function onResponse(response: WatchResponse): void {
    const header = response.header
    if (header !== undefined && header.clusterId !== 0n) {
      cluster ??= header.clusterId
      if (cluster !== header.clusterId) {
        end(
          new Fault(
            'STORE_CLUSTER_CHANGED',
            `${doing}: another cluster answers now, its revisions mean nothing here`,
          ),
        )
        return
      }
    }
    if (response.compactRevision > 0n) {
      push({ kind: 'compacted', compactRevision: response.compactRevision })
      end()
    } else if (response.canceled) {
      const denied = response.cancelReason.includes('permission denied')
      const fault = new Fault(denied ? 'STORE_DENIED' : 'STORE_FAILED', `${doing}: ${response.cancelReason}`)
      if (denied) end(fault)
      else {
        trouble = fault
        stream?.cancel()
      }
    } else if (response.created) {
      // From now on means from here, also after a reconnect.
      if (next === 0n && header !== undefined) next = header.revision + 1n
    } else if (response.events.length > 0) {
      const revision = response.events.at(-1)!.kv?.modRevision ?? 0n
      next = revision + 1n
      push({ kind: 'events', revision, events: response.events.map(watchEvent) })
    }
  }

  /** One connection, from its opening to its end. */
  async function follow(): Promise<void> {
    const closed = Promise.withResolvers<void>()
    let impatient = () => {}
    let where = ''
    trouble = undefined
    paused = false
    const opened = await endpoints.open(
      '/etcdserverpb.Watch/Watch',
      doing,
      {
        onMessage(bytes) {
          impatient()
          if (!ended) onResponse(WatchResponse.decode(bytes))
        },
        onClose(cause) {
          impatient()
          if (cause === undefined) closed.resolve()
          else
            closed.reject(
              trouble ?? new Fault('STORE_UNREACHABLE', `${doing}${where} was interrupted`, { cause }),
            )
        },
      },
      { requireLeader: true },
    )
    where = ` at ${opened.url}`
    // Whatever happens below, the end of the stream is awaited here.
    const end = closed.promise.catch((error: unknown) => {
      opened.failed()
      throw error
    })
    if (ended) opened.stream.cancel()
    else {
      stream = opened.stream
      impatient = clock.after(timeoutMs, () => opened.stream.cancel())
      opened.stream.send(createRequest())
    }
    await end
  }

  function createRequest(): Uint8Array {
    const value = { ...range, startRevision: next, prevKv: options.previous === true }
    return WatchRequest.encode(
      WatchRequest.fromPartial({ requestUnion: { $case: 'createRequest', value } }),
    ).finish()
  }

  async function run(): Promise<void> {
    while (!ended) {
      try {
        await follow()
      } catch (error) {
        if (ended) return
        if (!(error instanceof Fault)) end(new Fault('STORE_FAILED', doing, { cause: error }))
        else if (error.code === 'STORE_CLOSED') end(error)
        else options.onTrouble?.(error)
      }
      if (!ended) await new Promise<void>((resolve) => clock.after(retryMs, resolve))
    }
  }

  const close = () => end()
  if (options.signal?.aborted) close()
  options.signal?.addEventListener('abort', close, { once: true })
  void run()

  return {
    close,
    async *[Symbol.asyncIterator]() {
      try {
        for (;;) {
          const outcome = queue.shift()
          if (outcome !== undefined) {
            if (queue.length < queueMax / 2 && paused) {
              paused = false
              stream?.resume()
            }
            yield outcome
          } else if (ended) {
            if (failure !== undefined) throw failure
            return
          } else {
            await new Promise<void>((resolve) => {
              wake = resolve
            })
            wake = undefined
          }
        }
      } finally {
        close()
        options.signal?.removeEventListener('abort', close)
      }
    },
  }
}

function rangeOf(key: Bytes, { exact, rangeEnd }: WatchOptions): { key: Uint8Array; rangeEnd?: Uint8Array } {
  if (exact) return { key: toBytes(key) }
  return rangeEnd === undefined ? prefixRange(key) : { key: toBytes(key), rangeEnd: toBytes(rangeEnd) }
}

function watchEvent(event: Event): WatchEvent {
  const previous = event.prevKv === undefined ? undefined : storeEntry(event.prevKv)
  const entry = storeEntry(event.kv!)
  return event.type === Event_EventType.DELETE
    ? { kind: 'delete', key: entry.key, keyBytes: entry.keyBytes, modRevision: entry.modRevision, previous }
    : { kind: 'put', entry, previous }
}

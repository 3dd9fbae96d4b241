import type { WatchCreate, WatchMessage } from '@kiln/mvcc'
import { GrpcError, grpcCode } from '@kiln/wire'
import { statuses } from '../api/errors.ts'
import type { WatchService } from '../api/watch-service.ts'

/** Messages that wait for whoever follows; beyond it the hub replays from the history. */
const waitingMax = 64

/** What happens to keys from a revision on, to code of this member. Ends by throwing when `signal` is aborted or history is gone. */
export async function* follow(
  watches: WatchService,
  from: Pick<WatchCreate, 'key' | 'rangeEnd' | 'startRevision'> & Partial<WatchCreate>,
  signal: AbortSignal,
): AsyncGenerator<WatchMessage> {
  const waiting: WatchMessage[] = []
  let wake = (): void => undefined
  const { hub } = watches
  const stream = hub.open({
    get writable() {
      return waiting.length < waitingMax
    },
    send: (message) => {
      waiting.push(message)
      wake()
    },
  })
  const onAbort = (): void => wake()
  signal.addEventListener('abort', onAbort)
  try {
    hub.create(stream, {
      watchId: 0,
      prevKv: false,
      noPut: false,
      noDelete: false,
      fragment: false,
      progressNotify: false,
      ...from,
    })
    for (;;) {
      if (signal.aborted) throw new GrpcError(grpcCode.cancelled, 'context canceled')
      const message = waiting.shift()
      if (!message) {
        // Whoever lags is served in passes between other work.
        watches.advance()
        if (waiting.length === 0) {
          await new Promise<void>((resume) => {
            wake = resume
          })
        }
        continue
      }
      if (message.canceled)
        throw new GrpcError(statuses.compacted.code, message.cancelReason || statuses.compacted.text)
      if (message.events.length > 0) yield message
    }
  } finally {
    signal.removeEventListener('abort', onAbort)
    hub.close(stream)
  }
}

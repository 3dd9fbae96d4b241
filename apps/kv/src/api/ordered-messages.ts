import { GrpcError, type StreamCall } from '@kiln/wire'
import { toGrpcError } from './errors.ts'

/** Messages of a stream that wait behind one that takes time; beyond it the stream is not read. */
const waitingMax = 100

/**
 * Handles the messages of a stream one after the other: at once where that is possible, else those that come meanwhile
 * wait. What a handler that takes time fails with ends the call.
 */
export function inOrder(
  call: StreamCall,
  handle: (message: Uint8Array) => Promise<void> | undefined,
): (message: Uint8Array) => void {
  const waiting: Uint8Array[] = []
  let isBusy = false
  const go = (first: Promise<void>): void => {
    isBusy = true
    const run = async (): Promise<void> => {
      await first
      while (waiting.length > 0 && !call.closed) {
        await handle(waiting.shift()!)
        if (waiting.length < waitingMax) call.resume()
      }
    }
    run()
      .catch((thrown: unknown) => {
        const error = toGrpcError(thrown)
        call.end(
          error instanceof GrpcError
            ? { code: error.code, message: error.message }
            : { code: 2, message: 'internal error' },
        )
      })
      .finally(() => {
        isBusy = false
      })
  }
  return (message) => {
    if (isBusy) {
      if (waiting.push(message) >= waitingMax) call.pause()
      return
    }
    const work = handle(message)
    if (work) go(work)
  }
}

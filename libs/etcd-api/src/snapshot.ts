import type { CallError } from '@kiln/wire'
import type { Endpoints } from './endpoints.ts'
import { SnapshotRequest, SnapshotResponse } from './generated/rpc.ts'
import { readFailure } from './store-fault.ts'

/** A part of a snapshot. The last 32 bytes of all parts are the SHA-256 of those before. */
export type SnapshotPart = { blob: Uint8Array; remainingBytes: bigint }

/** A reader that is further behind makes the member wait. */
const queueMax = 16

/** Streams a member's database; a reader that stops reading holds the member back. Ends with a fault if it breaks off. */
export async function* readSnapshot(endpoints: Endpoints): AsyncGenerator<SnapshotPart, void> {
  const doing = 'take a snapshot'
  const queue: Uint8Array[] = []
  const reading = { isOver: false, isPaused: false, failure: undefined as CallError | undefined }
  let wake = (): void => undefined
  const { stream, url, failed } = await endpoints.open('/etcdserverpb.Maintenance/Snapshot', doing, {
    onMessage(bytes) {
      queue.push(bytes)
      if (queue.length >= queueMax && !reading.isPaused) {
        reading.isPaused = true
        stream.pause()
      }
      wake()
    },
    onClose(cause) {
      reading.isOver = true
      reading.failure = cause
      wake()
    },
  })
  try {
    stream.send(SnapshotRequest.encode(SnapshotRequest.fromPartial({})).finish())
    stream.end()
    for (;;) {
      const bytes = queue.shift()
      if (bytes) {
        const { blob, remainingBytes } = SnapshotResponse.decode(bytes)
        yield { blob, remainingBytes }
        continue
      }
      if (reading.isOver) break
      const woken = new Promise<void>((resolve) => {
        wake = resolve
      })
      if (reading.isPaused) {
        reading.isPaused = false
        stream.resume()
      }
      if (queue.length === 0 && !reading.isOver) await woken
    }
  } finally {
    stream.cancel()
  }
  if (reading.failure === undefined) return
  failed()
  throw readFailure(reading.failure, doing, url).fault
}

import type { Connection } from './connection.ts'
import type { Http2Stream } from './stream.ts'

/** What waits for the end of the event loop's turn. */
export type Turn = {
  /** The connection wants `flush`. */
  dirty(connection: Connection): void
  /** The sink of this stream wants to hear `done`. */
  later(stream: Http2Stream): void
}

/** Gathers output over a turn of the event loop: sinks hear of streams that are done, then every dirty connection writes once. */
export function createTurn(): Turn {
  let dirty: Connection[] = []
  let ended: Http2Stream[] = []
  let scheduled = false

  function end(): void {
    scheduled = false
    const done = ended
    ended = []
    for (const stream of done) stream.sink?.onClose('done')
    const writing = dirty
    dirty = []
    for (const connection of writing) connection.flush()
  }

  function schedule(): void {
    if (scheduled) return
    scheduled = true
    setImmediate(end)
  }

  return {
    dirty(connection) {
      dirty.push(connection)
      schedule()
    },
    later(stream) {
      ended.push(stream)
      schedule()
    },
  }
}

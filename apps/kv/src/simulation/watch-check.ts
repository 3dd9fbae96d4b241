import type { WatchMessage, WatchSink } from '@kiln/mvcc'

export type WatchedEvent = { revision: number; type: 'put' | 'delete'; key: string; value: string }

/** What a watcher wants, from which revision on: that moves as it is told. */
export type Asked = {
  key: string
  rangeEnd: string
  nextRevision: number
  noPut: boolean
  noDelete: boolean
  fragment: boolean
}

/**
 * A client's watcher that knows what it has to be told: each event that matches, once and in order, whoever tells it; `breach` is
 * the first thing that was wrong.
 */
export class Watcher {
  readonly asked: Asked
  breach: string | undefined
  writable = true
  /** Compaction that it was sent away for, until it comes again. */
  cancelledAt: number | undefined
  #truth: readonly WatchedEvent[] = []
  /** Where in the truth it is. */
  #at = 0
  /** First revision that it asked the member for that it is with now. */
  #from = 0
  #close: () => void = () => undefined

  constructor(asked: Asked) {
    this.asked = asked
  }

  /** A stream to a member; `close` ends it. */
  connect(close: () => void): WatchSink {
    const watcher = this
    let isOpen = true
    this.#close = () => {
      isOpen = false
      close()
    }
    return {
      get writable() {
        return watcher.writable
      },
      send: (message) => {
        if (isOpen) this.#take(message)
        else this.#fail('was told something after it had gone')
      },
    }
  }

  close(): void {
    this.#close()
    this.#close = () => undefined
  }

  /** From now on it is told from `nextRevision` on. */
  expectFrom(truth: readonly WatchedEvent[]): void {
    this.#truth = truth
    if (this.cancelledAt !== undefined)
      this.asked.nextRevision = Math.max(this.asked.nextRevision, this.cancelledAt + 1)
    this.cancelledAt = undefined
    this.#from = this.asked.nextRevision
    // A client that goes away within a revision asks for all of that again.
    this.#at = truth.findIndex(({ revision }) => revision >= this.asked.nextRevision)
    if (this.#at < 0) this.#at = truth.length
  }

  /** Nothing may be left out. */
  complete(truth: readonly WatchedEvent[]): void {
    this.#truth = truth
    const left = this.#next()
    if (left !== undefined) this.#fail(`was never told of ${describe(left)}`)
  }

  #take({ events, canceled, compactRevision, fragment, revision }: WatchMessage): void {
    if (canceled) {
      if (compactRevision < this.asked.nextRevision)
        this.#fail(`was sent away for a compaction at ${compactRevision}`)
      this.cancelledAt = compactRevision
      return
    }
    for (const { type, kv } of events) {
      const told = {
        revision: kv.modRevision,
        type,
        key: Buffer.from(kv.key).toString('latin1'),
        value: Buffer.from(kv.value).toString('latin1'),
      }
      const expected = this.#next()
      if (expected === undefined || describe(expected) !== describe(told)) {
        this.#fail(`was told of ${describe(told)} instead of ${expected ? describe(expected) : 'nothing'}`)
        return
      }
      if (told.revision > revision) this.#fail(`was told of ${describe(told)} as of revision ${revision}`)
      this.#at++
    }
    const last = events.at(-1)
    if (last === undefined || fragment) return
    // The last part of a message ends with a whole revision.
    const left = this.#next()
    if (left && left.revision <= last.kv.modRevision) this.#fail(`was not told of ${describe(left)}`)
    this.asked.nextRevision = last.kv.modRevision + 1
  }

  /** The next event it has to be told. */
  #next(): WatchedEvent | undefined {
    while (this.#at < this.#truth.length && !this.#wants(this.#truth[this.#at]!)) this.#at++
    return this.#truth[this.#at]
  }

  #wants({ revision, type, key }: WatchedEvent): boolean {
    const { asked } = this
    const isWithin = asked.rangeEnd === '' ? key === asked.key : key >= asked.key && key < asked.rangeEnd
    return isWithin && revision >= this.#from && !(type === 'put' ? asked.noPut : asked.noDelete)
  }

  #fail(what: string): void {
    const { key, rangeEnd } = this.asked
    this.breach ??= `the watcher of ${key}${rangeEnd === '' ? '' : ` to ${rangeEnd}`} ${what}`
  }
}

const describe = ({ revision, type, key, value }: WatchedEvent): string =>
  `${type} ${key}=${value}@${revision}`

import type { History } from './history.ts'
import type { ValueFetch } from './value-memory.ts'

/** Bytes of values in one slice of an answer. */
export const sliceBytes = 1 << 20

type View = { history: History; sliceRecords: number }

/** Reads the values of records, in their order, and fetches those that are not in memory a slice at a time. */
export class ValueReader {
  readonly #view: View
  readonly #records: readonly number[]
  #values: Buffer[] = []
  #begin = 0

  constructor(view: View, records: readonly number[]) {
    this.#view = view
    this.#records = records
  }

  /** The value of the record at a place; undefined if `more` has to be asked for it. */
  take(at: number): Buffer | undefined {
    return this.#values[at - this.#begin]
  }

  *more(at: number): Generator<ValueFetch, Buffer> {
    const { history, sliceRecords } = this.#view
    this.#begin = at
    this.#values = yield* history.values(this.#records, at, { records: sliceRecords, bytes: sliceBytes })
    return this.#values[0]!
  }
}

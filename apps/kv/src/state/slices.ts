import type { Slices, ValueFetch } from '@kiln/mvcc'

/** Where values are read that are not in memory. */
export type ValueSource = {
  read(fetch: ValueFetch): Promise<void>
  /** Undefined if more values may come; else it resolves when they may. */
  room(): Promise<void> | undefined
}

/** Of a store whose values are all in memory. */
export const valuesInMemory: ValueSource = {
  read: () => Promise.reject(new Error('assertion failed: all values are in memory')),
  room: () => undefined,
}

/** Lets everything else that waits run. */
export const nextTurn = (): Promise<void> => new Promise((resume) => setImmediate(resume))

/** Goes on after a slice: at once in the next turn, or when what it needs is read. */
export const afterSlice = (values: ValueSource, fetch: ValueFetch | undefined): Promise<void> =>
  fetch ? values.read(fetch) : nextTurn()

/** Runs an operation of the store to its end, a slice in a turn; one of ordinary size ends in the first. */
export async function runSlices<T>(slices: Slices<T>, values: ValueSource): Promise<T> {
  for (let step = slices.next(); ; step = slices.next()) {
    if (step.done) return step.value
    try {
      await afterSlice(values, step.value)
    } catch (error) {
      // What it holds on to is let go.
      slices.return(undefined as never)
      throw error
    }
  }
}

import type { Slices } from '@kiln/mvcc'

/** Lets everything else that waits run. */
export const nextTurn = (): Promise<void> => new Promise((resume) => setImmediate(resume))

/** Runs an operation of the store to its end, a slice in a turn; one of ordinary size ends in the first. */
export async function runSlices<T>(slices: Slices<T>): Promise<T> {
  for (;;) {
    const step = slices.next()
    if (step.done) return step.value
    await nextTurn()
  }
}

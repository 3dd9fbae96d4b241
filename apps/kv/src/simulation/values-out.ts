import { type MvccStore, ValueFetch } from '@kiln/mvcc'

/** Moves all values out of a store's memory that may leave it. */
export function moveOut({ memory }: MvccStore): void {
  memory.bytesMax = 0
  for (let slab = memory.oldest(); slab; slab = memory.oldest()) {
    memory.moved(slab, { bytes: Buffer.from(slab.bytes!) })
  }
}

export function readOut(fetch: ValueFetch): void {
  for (const want of fetch.wants) {
    const { bytes } = want.slab.place as { bytes: Buffer }
    fetch.put(want, bytes.subarray(want.start, want.start + want.length))
  }
}

/** Runs an operation to its end; answers what it came to and what it handed out. */
export function runOut<Y, T>(slices: Generator<Y, T>): { result: T; pieces: Exclude<Y, ValueFetch>[] } {
  const pieces: Exclude<Y, ValueFetch>[] = []
  for (let step = slices.next(); ; step = slices.next()) {
    if (step.done) return { result: step.value, pieces }
    if (step.value instanceof ValueFetch) readOut(step.value)
    else pieces.push(step.value as Exclude<Y, ValueFetch>)
  }
}

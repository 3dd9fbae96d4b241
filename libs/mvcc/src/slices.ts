import { ValueFetch } from './value-memory.ts'

/**
 * Long operations are generators: each yield is a place where the caller may let others run. What they answer does not
 * depend on where those places are. An operation of ordinary size yields nowhere.
 * One that yields a fetch goes on when its values are put.
 */
export type Slices<T> = Generator<ValueFetch | undefined, T>

/** Runs an operation in one piece, which only one whose values are in memory can do. */
export function inOnePiece<T>(slices: Generator<unknown, T>): T {
  for (;;) {
    const step = slices.next()
    if (step.done) return step.value
    if (step.value instanceof ValueFetch) throw new Error('assertion failed: all values are in memory')
  }
}

/** Sorts stably as `sort` does, in runs that are then merged. */
export function* sortSlices<T>(items: T[], compare: (a: T, b: T) => number, runMax: number): Slices<T[]> {
  if (items.length <= runMax) return items.sort(compare)
  let from: T[] = []
  for (let at = 0; at < items.length; at += runMax) {
    for (const item of items.slice(at, at + runMax).sort(compare)) from.push(item)
    yield
  }
  for (let width = runMax; width < from.length; width *= 2) {
    const merged: T[] = []
    for (let start = 0; start < from.length; start += 2 * width) {
      yield* mergeRuns(from, start, width, { merged, compare, stepMax: runMax })
    }
    from = merged
  }
  return from
}

function* mergeRuns<T>(
  from: T[],
  start: number,
  width: number,
  { merged, compare, stepMax }: { merged: T[]; compare: (a: T, b: T) => number; stepMax: number },
): Slices<void> {
  const middle = Math.min(start + width, from.length)
  const end = Math.min(start + 2 * width, from.length)
  let left = start
  let right = middle
  for (let done = 1; left < middle || right < end; done++) {
    const isLeft = right === end || (left < middle && compare(from[left]!, from[right]!) <= 0)
    merged.push(from[isLeft ? left++ : right++]!)
    if (done % stepMax === 0) yield
  }
}

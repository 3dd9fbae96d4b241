/** Counts of what was measured, by upper bounds in seconds; the last count is of what is above all of them. */
export class Histogram {
  readonly bounds: readonly number[]
  readonly counts: number[]
  sum = 0

  constructor(bounds: readonly number[]) {
    this.bounds = bounds
    this.counts = new Array<number>(bounds.length + 1).fill(0)
  }

  observe(seconds: number): void {
    this.sum += seconds
    const bucket = this.bounds.findIndex((bound) => seconds <= bound)
    this.counts[bucket < 0 ? this.bounds.length : bucket]!++
  }
}

/** Bounds that double, as etcd's disk and network histograms have them. */
export const doublingBounds = (first: number, count: number): number[] =>
  Array.from({ length: count }, (_, at) => Number((first * 2 ** at).toPrecision(12)))

/** The store was at `revision` at that time: milliseconds since 1970 by the clock of the leader of then. */
export type TimeMark = { timeMs: number; revision: number }

/** etcd's first revision is that of the empty store. */
const emptyRevision = 1

/** More are thinned out: half a million seconds with writes, at 16 bytes. */
const marksMax = 65_536

/**
 * When the store was at which revision. Part of the replicated state: entries of the log bring the marks, at most one a second, and
 * what becomes of them depends on nothing else. Times never go back, whichever clock the next leader has.
 */
export class TimeMarks {
  #marks: TimeMark[] = []
  readonly #max: number

  constructor(max: number = marksMax) {
    this.#max = max
  }

  get last(): TimeMark | undefined {
    return this.#marks.at(-1)
  }

  list(): readonly TimeMark[] {
    return this.#marks
  }

  replace(marks: readonly TimeMark[]): void {
    this.#marks = [...marks]
  }

  add({ timeMs, revision }: TimeMark): void {
    const { last } = this
    this.#marks.push({ timeMs: Math.max(timeMs, last?.timeMs ?? 0), revision })
    if (this.#marks.length > this.#max) this.#thin()
  }

  /** The store has been this program's from its first revision on: whatever is before the next mark came after this one. */
  begin(): void {
    if (this.#marks.length === 0) this.#marks.push({ timeMs: 0, revision: emptyRevision })
  }

  /** History below `revision` is gone; the mark that says since when the oldest one stood is kept. */
  compact(revision: number): void {
    const kept = this.#marks.findIndex((mark) => mark.revision > revision)
    const from = (kept < 0 ? this.#marks.length : kept) - 1
    if (from > 0) this.#marks = this.#marks.slice(from)
  }

  /**
   * The mark in force at that time: what came later than `timeMs` has higher revisions than its own, and so may what came less than the
   * distance of two marks before. Undefined for a time before the first mark.
   */
  at(timeMs: number): TimeMark | undefined {
    let [low, high] = [0, this.#marks.length]
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#marks[middle]!.timeMs <= timeMs) low = middle + 1
      else high = middle
    }
    return this.#marks[low - 1]
  }

  /** Every second mark of the older half goes: the past is known less finely than the present. */
  #thin(): void {
    const half = this.#marks.length >>> 1
    this.#marks = this.#marks.filter((_, at) => at >= half || at % 2 === 0)
  }
}

/** Steps remembered: more than a busy member makes while a request is only slow, not lost. */
const stepsMax = 4096

/** When this member's log got as far as which index: of the last few thousand steps, in two columns that are written in a circle. */
export class LogTimes {
  #indexes = new Float64Array(stepsMax)
  #times = new Float64Array(stepsMax)
  #first = 0
  #count = 0

  /** The log is now at `index`; if that is behind where it was, it was cut off and what was known is forgotten. */
  reached(index: number, now: number): void {
    const newest = this.#count === 0 ? 0 : this.#indexes[this.#place(this.#count - 1)]!
    if (index === newest) return
    if (index < newest) this.#count = 0
    if (this.#count === stepsMax) this.#first = (this.#first + 1) % stepsMax
    else this.#count++
    const place = this.#place(this.#count - 1)
    this.#indexes[place] = index
    this.#times[place] = now
  }

  /** When `index` was reached; undefined if that is not known any more, or not yet so. */
  at(index: number): number | undefined {
    let low = 0
    let high = this.#count
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.#indexes[this.#place(middle)]! < index) low = middle + 1
      else high = middle
    }
    // The oldest step may stand for many before it that are forgotten.
    if (low === this.#count || (low === 0 && this.#count === stepsMax)) return undefined
    return this.#times[this.#place(low)]
  }

  #place(at: number): number {
    return (this.#first + at) % stepsMax
  }
}

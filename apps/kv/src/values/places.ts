/** Where in a file is room: places of whole blocks, the lowest first, which are used again once they are given back. */
export class Places {
  /** Free runs of blocks below `#end`, in order, none next to another. */
  readonly #free: { at: number; count: number }[] = []
  #end = 0

  /** Blocks the file has. */
  get blocks(): number {
    return this.#end
  }

  /** Answers the first block of a run of so many. */
  take(count: number): number {
    const place = this.#free.findIndex((run) => run.count >= count)
    if (place < 0) {
      const at = this.#end
      this.#end += count
      return at
    }
    const run = this.#free[place]!
    const { at } = run
    run.at += count
    run.count -= count
    if (run.count === 0) this.#free.splice(place, 1)
    return at
  }

  give(at: number, count: number): void {
    let place = this.#free.findIndex((run) => run.at > at)
    if (place < 0) place = this.#free.length
    this.#free.splice(place, 0, { at, count })
    this.#join(place)
    this.#join(place - 1)
    const last = this.#free.at(-1)
    if (last && last.at + last.count === this.#end) {
      this.#end = last.at
      this.#free.pop()
    }
  }

  #join(place: number): void {
    const run = this.#free[place]
    const next = this.#free[place + 1]
    if (!run || !next || run.at + run.count !== next.at) return
    run.count += next.count
    this.#free.splice(place + 1, 1)
  }
}

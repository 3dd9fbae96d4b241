/** Seeded pseudo-random numbers (sfc32): the same seed gives the same run on every machine. */
export class Random {
  #a: number
  #b: number
  #c: number
  #counter = 1

  constructor(seed: number) {
    this.#a = seed | 0
    this.#b = Math.floor(seed / 2 ** 32) | 0
    this.#c = 0x9e3779b9 | 0
    for (let n = 0; n < 12; n++) this.uint32()
  }

  uint32(): number {
    const sum = (((this.#a + this.#b) | 0) + this.#counter) | 0
    this.#counter = (this.#counter + 1) | 0
    this.#a = this.#b ^ (this.#b >>> 9)
    this.#b = (this.#c + (this.#c << 3)) | 0
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + sum
    return sum >>> 0
  }

  /** Uniform in [0, 1). */
  next(): number {
    return this.uint32() / 2 ** 32
  }

  /** Uniform in [min, max], both included. */
  integer(min: number, max: number): number {
    return min + Math.floor(this.next() * (max - min + 1))
  }

  chance(probability: number): boolean {
    return this.next() < probability
  }

  pick<Item>(items: readonly Item[]): Item {
    if (items.length === 0) throw new Error('nothing to pick from')
    return items[this.integer(0, items.length - 1)]!
  }

  shuffle<Item>(items: readonly Item[]): Item[] {
    const result = [...items]
    for (let at = result.length - 1; at > 0; at--) {
      const other = this.integer(0, at)
      const kept = result[at]!
      result[at] = result[other]!
      result[other] = kept
    }
    return result
  }

  /** A generator of its own, so that one part's draws do not move another's. */
  fork(): Random {
    return new Random(this.uint32() + this.uint32() * 2 ** 20)
  }
}

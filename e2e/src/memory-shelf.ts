/**
 * Memory promised to machines that were not started or have not touched it yet. Asking the host alone would give the
 * same free memory to two stories.
 */
export class MemoryShelf {
  readonly #totalMiB: number
  #reservedMiB = 0

  constructor(totalMiB: number) {
    this.#totalMiB = totalMiB
  }

  get freeMiB(): number {
    return this.#totalMiB - this.#reservedMiB
  }

  /** Takes memory and answers how to give it back, or `undefined` if there is not enough. */
  reserve(mib: number): (() => void) | undefined {
    if (mib > this.freeMiB) return undefined
    this.#reservedMiB += mib
    let held = true
    return () => {
      if (held) this.#reservedMiB -= mib
      held = false
    }
  }
}

type Timer = { at: number; order: number; fn: (() => void) | undefined }

/**
 * Time that moves only when told. Timers of one moment fire in the order they were set, so a run is the same each time.
 * It has the shape of `Clock` in @kiln/service.
 */
export class VirtualClock {
  #now = 0
  #order = 0
  #heap: Timer[] = []

  now(): number {
    return this.#now
  }

  after(ms: number, fn: () => void): () => void {
    const timer: Timer = { at: this.#now + Math.max(0, ms), order: this.#order++, fn }
    this.#push(timer)
    return () => {
      timer.fn = undefined
    }
  }

  /** Fires everything due up to `time`, and what that sets, then stands at `time`. */
  advanceTo(time: number): void {
    for (let timer = this.#heap[0]; timer !== undefined && timer.at <= time; timer = this.#heap[0]) {
      this.#pop()
      this.#now = timer.at
      timer.fn?.()
    }
    this.#now = time
  }

  advance(ms: number): void {
    this.advanceTo(this.#now + ms)
  }

  #push(timer: Timer): void {
    const heap = this.#heap
    let at = heap.length
    heap.push(timer)
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (!isBefore(timer, heap[parent]!)) break
      heap[at] = heap[parent]!
      at = parent
    }
    heap[at] = timer
  }

  #pop(): void {
    const heap = this.#heap
    const last = heap.pop()!
    if (heap.length === 0) return
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++
      if (!isBefore(heap[child]!, last)) break
      heap[at] = heap[child]!
      at = child
    }
    heap[at] = last
  }
}

/** Lets every promise that can go on do so; between two moments of virtual time. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

const isBefore = (a: Timer, b: Timer): boolean => a.at < b.at || (a.at === b.at && a.order < b.order)

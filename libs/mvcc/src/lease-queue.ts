/** What is known of a lease; `queued` is where it stands in the queue, which is never after its deadline. */
type Counted = { deadline: number; queued: number }
type Place = { id: bigint; at: number }

/** Places that nobody stands at any more, before the queue is made anew. */
const staleMin = 1024

/**
 * Leases by their deadlines. A lease that is kept alive stays where it stands and is moved when its turn comes, so that keeping alive is
 * cheap however many there are; what is due is found without looking at the others.
 */
export class LeaseQueue {
  readonly #counted = new Map<bigint, Counted>()
  /** A binary heap, the earliest first. */
  #heap: Place[] = []

  get size(): number {
    return this.#counted.size
  }

  clear(): void {
    this.#counted.clear()
    this.#heap = []
  }

  deadline(id: bigint): number | undefined {
    return this.#counted.get(id)?.deadline
  }

  set(id: bigint, deadline: number): void {
    this.#set(id, deadline, this.#counted.get(id))
  }

  /** Sets it unless its deadline has passed; false then. */
  extend(id: bigint, deadline: number, now: number): boolean {
    const known = this.#counted.get(id)
    if (known && known.deadline <= now) return false
    this.#set(id, deadline, known)
    return true
  }

  #set(id: bigint, deadline: number, known: Counted | undefined): void {
    if (known && known.queued <= deadline) {
      known.deadline = deadline
      return
    }
    this.#counted.set(id, { deadline, queued: deadline })
    this.#push({ id, at: deadline })
  }

  delete(id: bigint): void {
    this.#counted.delete(id)
    if (this.#heap.length > staleMin + 2 * this.#counted.size) this.#rebuild()
  }

  /** Up to `max` with a deadline not after `now`, the earliest first; they stay. */
  due(now: number, max: number): bigint[] {
    const found: Place[] = []
    while (found.length < max && this.#heap.length > 0 && this.#heap[0]!.at <= now) {
      const { id, at } = this.#pop()
      const known = this.#counted.get(id)
      if (known?.queued !== at) continue
      known.queued = known.deadline
      if (known.deadline > at) this.#push({ id, at: known.deadline })
      else {
        found.push({ id, at })
        // Should it stand there twice, it is not found again.
        known.queued = Number.NaN
      }
    }
    for (const place of found) {
      this.#counted.get(place.id)!.queued = place.at
      this.#push(place)
    }
    return found.map(({ id }) => id)
  }

  #rebuild(): void {
    this.#heap = []
    for (const [id, known] of this.#counted) {
      known.queued = known.deadline
      this.#heap.push({ id, at: known.deadline })
    }
    // What is in order is a heap.
    this.#heap.sort((a, b) => a.at - b.at)
  }

  #push(place: Place): void {
    const heap = this.#heap
    let at = heap.push(place) - 1
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (heap[parent]!.at <= place.at) break
      heap[at] = heap[parent]!
      at = parent
    }
    heap[at] = place
  }

  #pop(): Place {
    const heap = this.#heap
    const first = heap[0]!
    const last = heap.pop()!
    if (heap.length === 0) return first
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && heap[child + 1]!.at < heap[child]!.at) child++
      if (heap[child]!.at >= last.at) break
      heap[at] = heap[child]!
      at = child
    }
    heap[at] = last
    return first
  }
}

/**
 * Bytes of values that are allocated together. All chunks that refer to a slab share the object, so that its bytes leave memory by one
 * assignment.
 */
export type Slab = {
  /** Undefined while they are only at `place`. */
  bytes: Buffer | undefined
  readonly size: number
  /** Bytes of values that the history still refers to. */
  live: number
  /** No more values come in: from now on it may leave memory. */
  isFull: boolean
  /** The history has nothing of it any more; readers of earlier moments may. */
  isGone: boolean
  /** Where whoever moved it out has it. */
  place: object | undefined
}

/** Counts the slabs of a store and says which of them have to leave memory, the oldest first. */
export class ValueMemory {
  /** What slabs may take in memory; those that are not full yet stay whatever it is. */
  bytesMax = Number.POSITIVE_INFINITY
  /** Called when more is in memory than may be. */
  onOver: () => void = () => undefined
  #memoryBytes = 0
  #outBytes = 0
  /** Full, in memory, in the order in which they became full. */
  readonly #full = new Set<Slab>()

  /** Bytes of slabs in memory. */
  get memoryBytes(): number {
    return this.#memoryBytes
  }
  /** Bytes of slabs that are elsewhere. */
  get outBytes(): number {
    return this.#outBytes
  }
  get isOver(): boolean {
    return this.#memoryBytes > this.bytesMax
  }

  begin(bytes: Buffer): Slab {
    this.#memoryBytes += bytes.length
    return { bytes, size: bytes.length, live: 0, isFull: false, isGone: false, place: undefined }
  }

  full(slab: Slab): void {
    if (slab.isFull || slab.isGone) return
    slab.isFull = true
    if (slab.live === 0) this.drop(slab)
    else this.#full.add(slab)
    if (this.isOver) this.onOver()
  }

  /** The history does not refer to so many bytes of it any more. */
  release(slab: Slab, bytes: number): void {
    slab.live -= bytes
    if (slab.isFull && slab.live === 0) this.drop(slab)
  }

  drop(slab: Slab): void {
    if (slab.isGone) return
    slab.isGone = true
    this.#full.delete(slab)
    if (slab.bytes) this.#memoryBytes -= slab.size
    else this.#outBytes -= slab.size
  }

  /** The slab that has to leave next, undefined if what is in memory may be there. */
  oldest(): Slab | undefined {
    return this.isOver ? this.#full.values().next().value : undefined
  }

  /** Its bytes are at a place from which they can be fetched. False if nobody needs them any more. */
  moved(slab: Slab, place: object): boolean {
    if (slab.isGone) return false
    this.#full.delete(slab)
    slab.place = place
    slab.bytes = undefined
    this.#memoryBytes -= slab.size
    this.#outBytes += slab.size
    return true
  }
}

/** A value that is not in memory. */
export type Want = { slab: Slab; start: number; length: number; at: number }

/**
 * What a sliced operation yields when it needs values that are not in memory: whoever runs it puts each of them and goes on with it. Values
 * that are in memory are in it already, so that nothing depends on what leaves memory meanwhile.
 */
export class ValueFetch {
  readonly wants: Want[] = []
  readonly values: (Buffer | undefined)[] = []

  put({ at }: Want, value: Buffer): void {
    this.values[at] = value
  }

  /** All of them, once they are put. */
  get complete(): Buffer[] {
    for (const { at } of this.wants) {
      if (!this.values[at])
        throw new Error('assertion failed: values on the disk are fetched before they are used')
    }
    return this.values as Buffer[]
  }
}

import type { Key } from './key.ts'
import type { Slab, ValueMemory } from './value-memory.ts'

const firstBytes = 4096

/**
 * Bytes one after the other in slabs: no object and no header each. A slab that is full is left as it is, and goes when
 * nothing refers to it any more; the first ones are small, so that a small store is.
 */
export class SlabWriter {
  readonly #slabBytes: number
  /** Where the last bytes added are. */
  slab: Buffer = Buffer.alloc(0)
  #current: Buffer = Buffer.alloc(0)
  #used = 0
  #nextBytes: number
  /** Whether the last bytes added have a slab of their own. */
  isAlone = false

  constructor(slabBytes: number) {
    this.#slabBytes = slabBytes
    this.#nextBytes = Math.min(firstBytes, slabBytes)
  }

  /** Copies bytes in and answers where they start in `slab`. */
  add(bytes: Uint8Array): number {
    const at = this.#reserve(bytes.length)
    this.slab.set(bytes, at)
    return at
  }

  addKey(key: Key): number {
    const at = this.#reserve(key.length)
    this.slab.write(key, at, 'latin1')
    return at
  }

  #reserve(length: number): number {
    this.isAlone = length > this.#slabBytes >> 2
    if (this.isAlone) {
      this.slab = Buffer.allocUnsafeSlow(length)
      return 0
    }
    if (this.#used + length > this.#current.length) {
      this.#current = Buffer.allocUnsafeSlow(Math.max(this.#nextBytes, length))
      this.#nextBytes = Math.min(this.#nextBytes * 2, this.#slabBytes)
      this.#used = 0
    }
    const at = this.#used
    this.#used += length
    this.slab = this.#current
    return at
  }
}

/** Values in slabs that may leave memory once they are full. */
export class ValueWriter {
  readonly #memory: ValueMemory
  readonly #writer: SlabWriter
  #open: Slab
  /** Where the last value added is. */
  slab: Slab

  constructor(memory: ValueMemory, slabBytes: number) {
    this.#memory = memory
    this.#writer = new SlabWriter(slabBytes)
    this.#open = memory.begin(Buffer.alloc(0))
    this.slab = this.#open
  }

  /** Copies a value in and answers where it starts in `slab`. */
  add(value: Uint8Array): number {
    const at = this.#writer.add(value)
    const bytes = this.#writer.slab
    if (value.length === 0 || bytes === this.#open.bytes) this.slab = this.#open
    else {
      this.slab = this.#memory.begin(bytes)
      if (!this.#writer.isAlone) {
        this.#memory.full(this.#open)
        this.#open = this.slab
      }
    }
    this.slab.live += value.length
    if (this.#writer.isAlone) this.#memory.full(this.slab)
    return at
  }

  /** No more values come. */
  end(): void {
    this.#memory.full(this.#open)
  }
}

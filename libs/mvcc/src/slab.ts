import type { Key } from './key.ts'

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
    if (length > this.#slabBytes >> 2) {
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

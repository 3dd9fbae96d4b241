import { assert } from '@kiln/service'

/** Unit in which a disk writes whole or not at all. */
export const sectorBytes = 512
const blockBytes = 4096

type Write = { offset: number; data: Buffer }

/** What happens to one unsynced write when the power goes. */
export type Fate = { kind: 'kept' } | { kind: 'dropped' } | { kind: 'torn'; sectorsKept: number }

/** Durable bytes below the cache. */
export type BackingBytes = {
  read(offset: number, length: number): Buffer
  write(offset: number, data: Buffer): void
}

/**
 * The write cache of a disk: writes since the last flush, kept apart from the durable bytes. A real disk may make
 * any of them durable in any order before a flush; after the flush all are.
 */
export class VolatileWrites {
  readonly #backing: BackingBytes
  readonly #writes: Write[] = []
  readonly #blocks = new Map<number, Buffer>()
  readonly #bytesMax: number
  #bytes = 0

  constructor(backing: BackingBytes, bytesMax: number) {
    this.#backing = backing
    this.#bytesMax = bytesMax
  }

  /** Bytes that a power cut may take. */
  get bytes(): number {
    return this.#bytes
  }

  read(offset: number, length: number): Buffer {
    const result = this.#backing.read(offset, length)
    if (this.#blocks.size === 0) return result
    for (let at = offset; at < offset + length; ) {
      const block = Math.floor(at / blockBytes)
      const end = Math.min((block + 1) * blockBytes, offset + length)
      this.#blocks.get(block)?.copy(result, at - offset, at - block * blockBytes, end - block * blockBytes)
      at = end
    }
    return result
  }

  write(offset: number, data: Buffer): void {
    assert(offset % sectorBytes === 0 && data.length % sectorBytes === 0, 'writes are whole sectors')
    this.#writes.push({ offset, data })
    this.#bytes += data.length
    this.#overlay(offset, data)
    // A cache has a size: when it is full the disk writes everything back, which it may do at any time.
    if (this.#bytes > this.#bytesMax) this.flush()
  }

  flush(): void {
    for (const { offset, data } of this.#writes) this.#backing.write(offset, data)
    this.#forget()
  }

  /** Decides for every unsynced write, in order, whether it reached the platter; returns the fates. */
  cutPower(random: () => number): Fate[] {
    const fates = this.#writes.map(({ data }) => decideFate(random, data.length / sectorBytes))
    for (const [index, { offset, data }] of this.#writes.entries()) {
      const fate = fates[index]!
      if (fate.kind === 'kept') this.#backing.write(offset, data)
      if (fate.kind === 'torn' && fate.sectorsKept > 0) {
        this.#backing.write(offset, data.subarray(0, fate.sectorsKept * sectorBytes))
      }
    }
    this.#forget()
    return fates
  }

  #overlay(offset: number, data: Buffer): void {
    for (let at = offset; at < offset + data.length; ) {
      const block = Math.floor(at / blockBytes)
      const end = Math.min((block + 1) * blockBytes, offset + data.length)
      let bytes = this.#blocks.get(block)
      if (!bytes) {
        bytes =
          end - at === blockBytes
            ? Buffer.alloc(blockBytes)
            : this.#backing.read(block * blockBytes, blockBytes)
        this.#blocks.set(block, bytes)
      }
      data.copy(bytes, at - block * blockBytes, at - offset, end - offset)
      at = end
    }
  }

  #forget(): void {
    this.#writes.length = 0
    this.#blocks.clear()
    this.#bytes = 0
  }
}

function decideFate(random: () => number, sectors: number): Fate {
  const draw = random()
  if (draw < 0.4) return { kind: 'kept' }
  if (draw < 0.8) return { kind: 'dropped' }
  return { kind: 'torn', sectorsKept: Math.floor(random() * sectors) }
}

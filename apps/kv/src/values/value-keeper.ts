import { crc32c, type Slab, type ValueFetch, type ValueMemory, type Want } from '@kiln/mvcc'
import { type Clock, Fault, type Log } from '@kiln/service'
import { Places } from './places.ts'
import type { ScratchFile } from './scratch-file.ts'

/** Each block has a checksum of its own, so that a value is read without the rest of its slab. */
const blockBytes = 4096
/** Bytes of one read, if one value has no more. */
const readBytesMax = 1 << 20
/** Reads at a time: the thread pool has four threads, and the log must find one. */
const readsMax = 2
/** Pause after a write that failed, and between two lines in the log about that. */
const retryMs = 1000
const complainMs = 60_000
/** Writes wait when memory holds this part of the bound more than it may. */
const slackShare = 8

type Place = { block: number; crcs: Uint32Array }

export type ValueKeeperOptions = {
  memory: ValueMemory
  file: ScratchFile
  /** What values may take in memory, in bytes. */
  bytesMax: number
  clock: Clock
  log: Log
  /** A value on the disk is not what was written, or cannot be read: this member must not go on. */
  onFatal: (fault: Fault) => void
}

/**
 * Keeps the values of a store within a bound: slabs that are full go to a scratch file, the oldest first, and their values are read from
 * there. Log and snapshot stay the only truth. A disk that takes nothing leaves them in memory.
 */
export class ValueKeeper {
  readonly #options: ValueKeeperOptions
  readonly #places = new Places()
  /** Gives a place back when nobody can read it any more, readers of earlier moments included. */
  readonly #collected = new FinalizationRegistry<{ block: number; blocks: number }>(({ block, blocks }) =>
    this.#places.give(block, blocks),
  )
  #moving: Promise<void> | undefined
  #isFailing = false
  #complainedAt = Number.NEGATIVE_INFINITY
  #isStopped = false
  #running = 0
  readonly #queue: (() => void)[] = []
  readonly #counts = { reads: 0, readBytes: 0, moves: 0, failures: 0 }

  constructor(options: ValueKeeperOptions) {
    this.#options = options
    options.memory.bytesMax = options.bytesMax
    options.memory.onOver = () => this.#kick()
  }

  /** Since the start; `fileBytes` is how large the file is now. */
  get counts(): { reads: number; readBytes: number; moves: number; failures: number; fileBytes: number } {
    return { ...this.#counts, fileBytes: this.#places.blocks * blockBytes }
  }

  /** Undefined if there is room for more values; else it resolves when there is, or when the disk takes nothing. */
  room(): Promise<void> | undefined {
    const { memory, bytesMax } = this.#options
    if (memory.memoryBytes <= bytesMax + bytesMax / slackShare || this.#isFailing) return undefined
    this.#kick()
    return this.#moving
  }

  /** Puts all that is wanted. Fails, after `onFatal`, if something is not what was written. */
  async read(fetch: ValueFetch): Promise<void> {
    const bySlab = new Map<Slab, Want[]>()
    for (const want of fetch.wants) {
      const wants = bySlab.get(want.slab)
      if (wants) wants.push(want)
      else bySlab.set(want.slab, [want])
    }
    await Promise.all([...bySlab].map(([slab, wants]) => this.#readSlab(fetch, slab, wants)))
  }

  async stop(): Promise<void> {
    this.#isStopped = true
    await this.#moving
    while (this.#running > 0) await new Promise<void>((resume) => setImmediate(resume))
    await this.#options.file.close()
  }

  #kick(): void {
    if (this.#moving || this.#isStopped) return
    this.#moving = this.#move().finally(() => {
      this.#moving = undefined
    })
  }

  /** Moves slabs out, one at a time, until memory is within its bound. */
  async #move(): Promise<void> {
    const { memory, clock } = this.#options
    // Never within the call that filled a slab.
    await new Promise<void>((resume) => setImmediate(resume))
    while (!this.#isStopped) {
      const slab = memory.oldest()
      if (!slab) return
      if (await this.#moveSlab(slab)) continue
      // What waits for room goes on without; this is tried again when more comes.
      this.#isFailing = true
      clock.after(retryMs, () => {
        this.#isFailing = false
        if (memory.isOver) this.#kick()
      })
      return
    }
  }

  async #moveSlab(slab: Slab): Promise<boolean> {
    const { memory, file, log, clock } = this.#options
    const bytes = slab.bytes!
    const blocks = Math.ceil(slab.size / blockBytes)
    const block = this.#places.take(blocks)
    try {
      await file.write(bytes, block * blockBytes)
    } catch (error) {
      this.#places.give(block, blocks)
      this.#counts.failures++
      if (clock.now() - this.#complainedAt >= complainMs) {
        this.#complainedAt = clock.now()
        log.warn(
          { error, bytes: memory.memoryBytes },
          'values stay in memory: the scratch file takes no more',
        )
      }
      return false
    }
    this.#counts.moves++
    const crcs = Uint32Array.from({ length: blocks }, (_, at) =>
      crc32c(bytes.subarray(at * blockBytes, (at + 1) * blockBytes)),
    )
    const place: Place = { block, crcs }
    if (memory.moved(slab, place)) this.#collected.register(slab, { block, blocks })
    else this.#places.give(block, blocks)
    return true
  }

  /** Reads values of one slab: those whose blocks touch together. */
  async #readSlab(fetch: ValueFetch, slab: Slab, wants: Want[]): Promise<void> {
    wants.sort((a, b) => a.start - b.start)
    for (let from = 0; from < wants.length; ) {
      const first = Math.floor(wants[from]!.start / blockBytes)
      let end = first
      let to = from
      for (; to < wants.length; to++) {
        const { start, length } = wants[to]!
        const last = Math.ceil((start + length) / blockBytes)
        if (to > from && (start > end * blockBytes || (last - first) * blockBytes > readBytesMax)) break
        end = Math.max(end, last)
      }
      const bytes = await this.#readBlocks(slab, first, end)
      for (; from < to; from++) {
        const want = wants[from]!
        const start = want.start - first * blockBytes
        fetch.put(want, bytes.subarray(start, start + want.length))
      }
    }
  }

  async #readBlocks(slab: Slab, first: number, end: number): Promise<Buffer> {
    const { block, crcs } = slab.place as Place
    const length = Math.min(end * blockBytes, slab.size) - first * blockBytes
    await this.#turn()
    try {
      const bytes = await this.#options.file.read((block + first) * blockBytes, length)
      this.#counts.reads++
      this.#counts.readBytes += length
      if (bytes.length < length)
        throw new Error(`the scratch file ends after ${bytes.length} of ${length} bytes`)
      for (let at = first; at < end; at++) {
        const from = (at - first) * blockBytes
        if (crc32c(bytes.subarray(from, from + blockBytes)) !== crcs[at]) {
          throw new Error(`block ${block + at} of the scratch file has a wrong checksum`)
        }
      }
      return bytes
    } catch (cause) {
      const fault = new Fault('STORE_VALUES_UNREADABLE', 'values that had left memory cannot be read back', {
        cause,
        remedy: 'start this member again, it reads log and snapshot; if it happens again, look at the disk',
      })
      this.#options.onFatal(fault)
      throw fault
    } finally {
      this.#running--
      this.#queue.shift()?.()
    }
  }

  async #turn(): Promise<void> {
    while (this.#running >= readsMax) await new Promise<void>((resume) => void this.#queue.push(resume))
    this.#running++
  }
}

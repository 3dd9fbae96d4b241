import type { HardState } from '@kiln/raft'
import { assert, Fault, type Log } from '@kiln/service'
import { blockBytes, blocksFor, payloadBytesMax, type Stamp, writeBatch } from './block.ts'
import type { Disk, DiskFile } from './disk.ts'
import { type Batch, batchBytes, encodeBatch, entryRecordBytes } from './records.ts'
import { type RecoveredLog, recoverLog } from './recovery.ts'
import { encodeSegmentHeader } from './segment.ts'
import { openSegment, readSegments, zeroRange } from './segment-files.ts'

export type WalOptions = {
  disk: Disk
  clusterId: bigint
  memberId: bigint
  segmentBytes: number
  log: Log
  /** An I/O error of a write is never retried: what the disk holds now is unknown. */
  onFatal: (fault: Fault) => void
}

/** The open log. One write is in flight; what comes meanwhile goes out together in the next. */
export type Wal = {
  /** Calls `done` once this and everything before it is durable. */
  append(batch: Batch, done: () => void): void
  /** Entries up to `index` are in a durable snapshot: their segments may be used again. */
  release(index: number): void
  /** Tries again to have a segment in reserve, if the disk was full. */
  maintain(): void
  bytes(): number
  /** No segment is in reserve because the disk is full: stop taking proposals. */
  isFull(): boolean
  close(): Promise<void>
}

type Segment = { name: string; file: DiskFile; generation: number; maxIndex: number }
type Pending = { batch: Batch; bytes: number; done: () => void }

/** Bytes of records in one write. Only a single entry may be larger, up to what fits a segment. */
function writeBytesMax(segmentBytes: number): number {
  return Math.min(1 << 20, recordBytesMax(segmentBytes) / 2)
}

/** Reads the log and opens it for writing. `recovered` is what it says; see `recovery.ts` for what makes it refuse. */
export async function openWal(
  options: WalOptions,
): Promise<{ wal: Wal; recovered: RecoveredLog; refill: boolean }> {
  const { disk, segmentBytes, log } = options
  const files = await readSegments(disk)
  const recovered = recoverLog(files, { clusterId: options.clusterId, memberId: options.memberId })
  const writer = new Writer(options, recovered)
  for (const { name, generation, maxIndex } of recovered.live) {
    writer.live.push({
      name,
      generation,
      maxIndex,
      file: await disk.open(name, { create: false, durable: true }),
    })
  }
  for (const name of recovered.free) {
    writer.free.push({
      name,
      generation: 0,
      maxIndex: 0,
      file: await disk.open(name, { create: false, durable: true }),
    })
  }
  const { tail } = recovered
  if (tail !== undefined && tail.state !== 'clean') {
    log.warn({ segment: tail.name, offset: tail.offset, state: tail.state }, 'end of the log is cut off')
    // What may be missing must not be forgotten, so that is written down before its traces go.
    if (tail.state === 'damaged') await markRefill(disk)
    await zeroRange(writer.live[writer.live.length - 1]!.file, tail.offset, tail.blankUntil)
  }
  writer.nextName = 1 + Math.max(0, ...files.map((file) => Number.parseInt(file.name.slice(4), 10)))
  if (tail === undefined) await writer.beginFirst(segmentBytes)
  writer.reserve()
  const refill = (await disk.list()).includes(refillName)
  return { wal: writer, recovered, refill }
}

/** While this file exists the member may have forgotten what it acknowledged, and does not vote. */
const refillName = 'refill'

async function markRefill(disk: Disk): Promise<void> {
  const file = await disk.open(refillName, { create: true, durable: true })
  await file.close()
  await disk.syncDirectory()
}

/** A leader has given back whatever was missing. */
export async function clearRefill(disk: Disk): Promise<void> {
  await disk.remove(refillName)
  await disk.syncDirectory()
}

class Writer implements Wal {
  readonly live: Segment[] = []
  readonly free: Segment[] = []
  nextName = 1
  #options: WalOptions
  #writeMax: number
  #stamp: Stamp
  #offset: number
  #queue: Pending[] = []
  #writing = false
  #reserving = false
  #full = false
  #closed = false
  #wakeOnReserve = false
  #idle: (() => void)[] = []
  /** As the next segment's header has to repeat it. */
  #lastIndex: number
  #lastTerm: number
  #hardState: HardState

  constructor(options: WalOptions, recovered: RecoveredLog) {
    this.#options = options
    this.#writeMax = writeBytesMax(options.segmentBytes)
    this.#stamp = recovered.tail?.stamp ?? { generation: 0, batch: 1, previousCrc: 0 }
    this.#offset = recovered.tail?.offset ?? 0
    const last = recovered.entries[recovered.entries.length - 1]
    this.#lastIndex = last?.index ?? recovered.base.index
    this.#lastTerm = last?.term ?? recovered.base.term
    this.#hardState = recovered.hardState
  }

  async beginFirst(segmentBytes: number): Promise<void> {
    if (this.free.length === 0) this.free.push(await this.#create(segmentBytes))
    await new Promise<void>((resolve) => this.#rotate(resolve))
  }

  append(batch: Batch, done: () => void): void {
    if (this.#closed) return
    const bytes = batchBytes(batch)
    if (bytes === 0 && !this.#writing && this.#queue.length === 0) {
      done()
      return
    }
    if (bytes <= this.#writeMax || batch.entries.length < 2) this.#queue.push({ batch, bytes, done })
    else this.#queue.push(...split(batch, this.#writeMax, done))
    this.#pump()
  }

  release(index: number): void {
    while (this.live.length > 1 && this.live[0]!.maxIndex <= index) this.free.push(this.live.shift()!)
    if (this.free.length > 0) this.#full = false
    // One in reserve is enough; the rest of the space goes back.
    while (this.free.length > 2) this.#discard(this.free.pop()!)
  }

  maintain(): void {
    if (this.free.length === 0) this.reserve()
  }

  bytes(): number {
    return (this.live.length + this.free.length) * this.#options.segmentBytes
  }

  isFull(): boolean {
    return this.#full
  }

  async close(): Promise<void> {
    if (this.#writing) await new Promise<void>((resolve) => this.#idle.push(resolve))
    this.#closed = true
    for (const segment of [...this.live, ...this.free]) await segment.file.close()
  }

  /** Has the next segment ready before it is needed, so that rotation never waits for zero-filling. */
  reserve(): void {
    if (this.#reserving || this.free.length > 0 || this.#closed) return
    this.#reserving = true
    this.#create(this.#options.segmentBytes).then(
      (segment) => {
        this.#reserving = false
        this.#full = false
        this.free.push(segment)
        if (this.#wakeOnReserve) this.#pump()
      },
      (error) => {
        this.#reserving = false
        if (this.#closed) return
        if (isNoSpace(error) && !this.#wakeOnReserve) {
          if (!this.#full) this.#options.log.error({ error }, 'disk is full, no more proposals are taken')
          this.#full = true
        } else {
          this.#fail(error)
        }
      },
    )
  }

  async #create(segmentBytes: number): Promise<Segment> {
    const name = `wal-${String(this.nextName++).padStart(6, '0')}.log`
    const file = await openSegment(this.#options.disk, name, segmentBytes)
    return { name, file, generation: 0, maxIndex: 0 }
  }

  #discard(segment: Segment): void {
    segment.file
      .close()
      .then(() => this.#options.disk.remove(segment.name))
      .catch((error) =>
        this.#options.log.warn({ error, segment: segment.name }, 'unused log segment was not removed'),
      )
  }

  #pump(): void {
    if (this.#writing || this.#closed || this.#queue.length === 0) return
    const { taken, bytes } = this.#take()
    if (bytes === 0) {
      for (const pending of taken) pending.done()
      this.#pump()
      return
    }
    const size = blocksFor(bytes) * blockBytes
    assert(size + blockBytes <= this.#options.segmentBytes, 'a batch fits into a segment')
    if (this.#offset + size > this.#options.segmentBytes) {
      this.#queue.unshift(...taken)
      this.#rotate(() => this.#pump())
      return
    }
    this.#write(taken, bytes, size)
  }

  #take(): { taken: Pending[]; bytes: number } {
    let bytes = 0
    let count = 0
    for (; count < this.#queue.length; count++) {
      const next = this.#queue[count]!.bytes
      if (count > 0 && bytes + next > this.#writeMax) break
      bytes += next
    }
    return { taken: this.#queue.splice(0, count), bytes }
  }

  #write(taken: Pending[], bytes: number, size: number): void {
    const segment = this.live[this.live.length - 1]!
    const payload = new Uint8Array(bytes)
    let at = 0
    for (const { batch } of taken) {
      at = encodeBatch(batch, payload, at)
      this.#note(batch, segment)
    }
    assert(at === bytes, 'a batch has the size that was computed')
    const target = new Uint8Array(size)
    const crc = writeBatch(target, payload, this.#stamp)
    this.#writing = true
    segment.file.write(target, this.#offset, (error) => {
      if (error !== undefined) {
        this.#fail(error)
        return
      }
      this.#stamp = { ...this.#stamp, batch: this.#stamp.batch + 1, previousCrc: crc }
      this.#offset += size
      this.#writing = false
      for (const pending of taken) pending.done()
      this.#wakeIdle()
      this.#pump()
    })
  }

  #note(batch: Batch, segment: Segment): void {
    if (batch.origin) {
      this.#lastIndex = batch.origin.index
      this.#lastTerm = batch.origin.term
    }
    const last = batch.entries[batch.entries.length - 1]
    if (last !== undefined) {
      this.#lastIndex = last.index
      this.#lastTerm = last.term
      segment.maxIndex = Math.max(segment.maxIndex, last.index)
    }
    if (batch.hardState) this.#hardState = batch.hardState
  }

  /** Takes the reserved segment into use; `then` runs when its header is durable. */
  #rotate(then: () => void): void {
    const segment = this.free.shift()
    if (segment === undefined) {
      this.#wakeOnReserve = true
      this.reserve()
      return
    }
    this.#wakeOnReserve = false
    const generation = this.#stamp.generation + 1
    const header = encodeSegmentHeader({
      clusterId: this.#options.clusterId,
      memberId: this.#options.memberId,
      segmentBytes: this.#options.segmentBytes,
      generation,
      firstBatch: this.#stamp.batch,
      previousCrc: this.#stamp.previousCrc,
      lastIndex: this.#lastIndex,
      lastTerm: this.#lastTerm,
      hardState: this.#hardState,
    })
    this.#writing = true
    segment.file.write(header, 0, (error) => {
      if (error !== undefined) {
        this.#fail(error)
        return
      }
      segment.generation = generation
      segment.maxIndex = 0
      this.live.push(segment)
      this.#stamp = { ...this.#stamp, generation }
      this.#offset = blockBytes
      this.#writing = false
      this.reserve()
      this.#wakeIdle()
      then()
    })
  }

  #wakeIdle(): void {
    for (const resolve of this.#idle.splice(0)) resolve()
  }

  #fail(error: unknown): void {
    this.#closed = true
    this.#queue = []
    const fault = isNoSpace(error)
      ? new Fault('STORE_DISK_FULL', 'the disk has no room for the next segment of the log', {
          cause: error,
          remedy: 'free some space on the disk of the data directory, then start the store again',
        })
      : new Fault('STORE_WAL_WRITE_FAILED', 'writing the log failed', { cause: error })
    this.#options.onFatal(fault)
  }
}

/** Pieces of a batch that is too large for one write. The state goes with each, but never a commit beyond its entries. */
function split(batch: Batch, bytesMax: number, done: () => void): Pending[] {
  const pieces: Pending[] = []
  let start = 0
  while (start < batch.entries.length) {
    let bytes = entryRecordBytes(batch.entries[start]!)
    let end = start + 1
    while (end < batch.entries.length && bytes + entryRecordBytes(batch.entries[end]!) <= bytesMax) {
      bytes += entryRecordBytes(batch.entries[end]!)
      end++
    }
    const entries = batch.entries.slice(start, end)
    const lastIndex = entries[entries.length - 1]!.index
    const isLast = end === batch.entries.length
    const piece: Batch = {
      origin: start === 0 ? batch.origin : undefined,
      entries,
      hardState: batch.hardState && {
        ...batch.hardState,
        commit: Math.min(batch.hardState.commit, lastIndex),
      },
    }
    pieces.push({ batch: piece, bytes: batchBytes(piece), done: isLast ? done : () => undefined })
    start = end
  }
  return pieces
}

function isNoSpace(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ENOSPC' || error.code === 'EDQUOT')
}

/** The largest record that a segment of this size can hold. */
export function recordBytesMax(segmentBytes: number): number {
  return (segmentBytes / blockBytes - 1) * payloadBytesMax
}

import type { SnapshotMeta } from '@kiln/raft'
import type { Clock, Log } from '@kiln/service'
import type { Disk } from '../wal/disk.ts'
import { listSnapshots, receiveSnapshot, type SnapshotFile, type SnapshotSink } from '../wal/snapshot-file.ts'
import type { Frame } from './frame.ts'
import type { MemberId } from './types.ts'

type Chunk = Extract<Frame, { kind: 'chunk' }>

type Ports = {
  disk: Disk
  clock: Clock
  log: Log
  chunkBytes: number
  timeoutMs: number
  send(to: MemberId, frame: Frame): void
}

/** Sends snapshot files to members that are too far behind: one chunk at a time, each answered, each tried a few times. */
export class SnapshotSender {
  #ports: Ports
  #transfers: number
  #running = new Map<number, { to: MemberId; taken: (next: number) => void }>()
  #stopped = false

  /** Numbers start at random, so that those of an earlier run are not confused with ours. */
  constructor(ports: Ports, firstTransfer: number) {
    this.#ports = ports
    this.#transfers = firstTransfer
  }

  /** Resolves with whether the member has all of the newest snapshot. */
  async send(to: MemberId, term: number): Promise<boolean> {
    const { disk, log, chunkBytes } = this.#ports
    const name = (await listSnapshots(disk))[0]
    if (name === undefined) return false
    const transfer = ++this.#transfers
    const file = await disk.open(name, { create: false, durable: false })
    try {
      const total = await file.size()
      log.info({ to: to.toString(16), snapshot: name, bytes: total }, 'sending a snapshot')
      for (let offset = 0; offset < total; ) {
        const bytes = await file.read(offset, chunkBytes)
        const frame: Chunk = { kind: 'chunk', transfer, term, offset, total, bytes }
        const next = await this.#exchange(to, frame)
        if (next === undefined || next < offset || next > total) return false
        offset = next
      }
      return true
    } finally {
      this.#running.delete(transfer)
      await file.close()
    }
  }

  onTaken(from: MemberId, frame: Extract<Frame, { kind: 'chunk-taken' }>): void {
    const running = this.#running.get(frame.transfer)
    if (running?.to === from) running.taken(frame.next)
  }

  stop(): void {
    this.#stopped = true
    for (const running of this.#running.values()) running.taken(-1)
  }

  #exchange(to: MemberId, frame: Chunk): Promise<number | undefined> {
    const { clock, timeoutMs, send } = this.#ports
    return new Promise((resolve) => {
      let tries = 0
      let cancel = (): void => undefined
      const finish = (next: number | undefined): void => {
        cancel()
        resolve(next)
      }
      const attempt = (): void => {
        if (this.#stopped || tries++ >= triesMax) {
          finish(undefined)
          return
        }
        cancel = clock.after(timeoutMs / triesMax, attempt)
        send(to, frame)
      }
      this.#running.set(frame.transfer, {
        to,
        // An answer to an earlier try of an earlier chunk says nothing new.
        taken: (next) => {
          if (next < 0) finish(undefined)
          else if (next > frame.offset) finish(next)
        },
      })
      attempt()
    })
  }
}

const triesMax = 4

export type Received = { from: MemberId; term: number; meta: SnapshotMeta; file: SnapshotFile }

/** Takes a snapshot in, one at a time; a new transfer replaces an unfinished one. */
export class SnapshotReceiver {
  #ports: Ports
  #current: { from: MemberId; transfer: number; sink: SnapshotSink } | undefined
  #finished: { from: MemberId; transfer: number; total: number } | undefined
  /** Chunks are handled one after the other. */
  #chain: Promise<void> = Promise.resolve()
  #deliver: (received: Received) => void

  constructor(ports: Ports, deliver: (received: Received) => void) {
    this.#ports = ports
    this.#deliver = deliver
  }

  onChunk(from: MemberId, chunk: Chunk): void {
    this.#chain = this.#chain
      .then(() => this.#take(from, chunk))
      .catch((error) => {
        this.#current = undefined
        this.#ports.log.warn({ error, from: from.toString(16) }, 'a snapshot could not be received')
      })
  }

  /** Resolves when nothing is being written any more. */
  idle(): Promise<void> {
    return this.#chain
  }

  async #take(from: MemberId, chunk: Chunk): Promise<void> {
    const { disk, log, send } = this.#ports
    const { transfer, total } = chunk
    if (this.#finished?.from === from && this.#finished.transfer === transfer) {
      send(from, { kind: 'chunk-taken', transfer, next: total })
      return
    }
    if (this.#current?.from !== from || this.#current.transfer !== transfer) {
      if (chunk.offset !== 0) return
      await this.#current?.sink.abort()
      this.#current = { from, transfer, sink: await receiveSnapshot(disk, 'snapshot-incoming.new') }
    }
    const { sink } = this.#current
    if (chunk.offset === sink.bytes()) await sink.write(chunk.bytes)
    if (sink.bytes() < total) {
      send(from, { kind: 'chunk-taken', transfer, next: sink.bytes() })
      return
    }
    this.#current = undefined
    const file = await sink.check()
    if (file === undefined) {
      await sink.abort()
      log.warn({ from: from.toString(16) }, 'a snapshot arrived damaged')
      return
    }
    await sink.commit(file.meta.index)
    this.#finished = { from, transfer, total }
    this.#deliver({ from, term: chunk.term, meta: file.meta, file })
    send(from, { kind: 'chunk-taken', transfer, next: total })
  }
}

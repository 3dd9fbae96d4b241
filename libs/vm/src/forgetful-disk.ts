import { closeSync, ftruncateSync, openSync, readSync, rmSync, writeSync } from 'node:fs'
import { Fault } from '@kiln/service'
import { NbdServer } from './nbd-server.ts'
import { seededRandom } from './seeded.ts'
import { type Fate, VolatileWrites } from './volatile-writes.ts'

export type ForgetfulDiskOptions = {
  /** Sparse file with the durable bytes; created with `sizeBytes` if it is not there. */
  path: string
  sizeBytes: number
  /** Unix socket QEMU connects to (`-drive file=nbd:unix:...`). */
  socketPath: string
  /** Seed of what a power cut takes. */
  seed: number
  /** Size of the write cache. */
  cacheBytesMax?: number
}

export type PowerCut = { unsyncedBytes: number; kept: number; dropped: number; torn: number }

/**
 * A disk that forgets: a block server that keeps writes since the last flush apart and, when the power is cut,
 * drops or tears a seeded part of them. A flush and a write with force-unit-access are kept for good.
 */
export class ForgetfulDisk {
  readonly socketPath: string
  readonly #file: number
  readonly #writes: VolatileWrites
  readonly #server: NbdServer
  readonly #random: () => number
  #powered = true
  #flushes = 0

  private constructor(options: ForgetfulDiskOptions) {
    this.socketPath = options.socketPath
    this.#file = openSync(options.path, 'a+')
    closeSync(this.#file)
    this.#file = openSync(options.path, 'r+')
    ftruncateSync(this.#file, options.sizeBytes)
    this.#random = seededRandom(options.seed)
    const backing = {
      read: (offset: number, length: number): Buffer => {
        const buffer = Buffer.alloc(length)
        readSync(this.#file, buffer, 0, length, offset)
        return buffer
      },
      write: (offset: number, data: Buffer): void => writeWhole(this.#file, data, offset),
    }
    this.#writes = new VolatileWrites(backing, options.cacheBytesMax ?? 128 * 1024 * 1024)
    this.#server = new NbdServer({
      sizeBytes: options.sizeBytes,
      read: (offset, length) => {
        this.#refuseUnpowered()
        return this.#writes.read(offset, length)
      },
      write: (offset, data, forceUnitAccess) => {
        this.#refuseUnpowered()
        this.#writes.write(offset, data)
        // A forced write alone would do; writing all back is allowed too and keeps the order simple.
        if (forceUnitAccess) this.#writes.flush()
      },
      flush: () => {
        this.#refuseUnpowered()
        this.#flushes++
        this.#writes.flush()
      },
    })
  }

  static async open(options: ForgetfulDiskOptions): Promise<ForgetfulDisk> {
    const disk = new ForgetfulDisk(options)
    rmSync(options.socketPath, { force: true })
    try {
      await disk.#server.listen(options.socketPath)
    } catch (cause) {
      throw new Fault('DISK_LISTEN', `the disk cannot listen on ${options.socketPath}`, { cause })
    }
    return disk
  }

  /** Flushes seen so far, and bytes that are not synced now. */
  statistics(): { flushes: number; unsyncedBytes: number } {
    return { flushes: this.#flushes, unsyncedBytes: this.#writes.bytes }
  }

  /** The power goes, now: requests fail from here on, and part of what was not synced is lost. */
  cutPower(): PowerCut {
    this.#powered = false
    const unsyncedBytes = this.#writes.bytes
    const fates = this.#writes.cutPower(this.#random)
    this.#server.disconnectAll()
    const count = (kind: Fate['kind']): number => fates.filter((fate) => fate.kind === kind).length
    return { unsyncedBytes, kept: count('kept'), dropped: count('dropped'), torn: count('torn') }
  }

  restorePower(): void {
    this.#powered = true
  }

  async close(): Promise<void> {
    await this.#server.close()
    if (this.#powered) this.#writes.flush()
    closeSync(this.#file)
    rmSync(this.socketPath, { force: true })
  }

  #refuseUnpowered(): void {
    if (!this.#powered) throw new Fault('DISK_UNPOWERED', 'the disk has no power')
  }
}

function writeWhole(file: number, data: Buffer, offset: number): void {
  for (let written = 0; written < data.length; ) {
    written += writeSync(file, data, written, data.length - written, offset + written)
  }
}

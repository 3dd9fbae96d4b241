import type { VirtualClock } from './clock.ts'
import type { Random } from './random.ts'

const sectorBytes = 512

type Write = { offset: number; bytes: Uint8Array }
type Inode = {
  /** What a running process sees. */
  seen: Uint8Array
  seenBytes: number
  /** What would be left after a power cut with none of the unsynced writes. */
  kept: Uint8Array
  keptBytes: number
  unsynced: Write[]
}
type DirectoryChange = { kind: 'link'; name: string; inode: Inode } | { kind: 'unlink'; name: string }

export type DiskFaults = {
  /** How long a durable write or a sync takes, in ms, uniform. */
  delayMin: number
  delayMax: number
  /** Total size of files; beyond it writes fail with ENOSPC. */
  capacityBytes: number
  /** A disk that lies: it says that it has synced, and has not. */
  ignoreSync: boolean
}

/**
 * A disk that forgets: at a power cut of unsynced writes any subset of their sectors is left, and of unsynced
 * creations, renames and removals any prefix. It has the shape of `Disk` in apps/kv.
 */
export class SimulatedDisk {
  faults: DiskFaults = {
    delayMin: 0.1,
    delayMax: 4,
    capacityBytes: Number.MAX_SAFE_INTEGER,
    ignoreSync: false,
  }
  readonly counters = { writes: 0, syncs: 0, crashes: 0, tornSectors: 0, lostSectors: 0 }
  #clock: VirtualClock
  #random: Random
  #names = new Map<string, Inode>()
  #keptNames = new Map<string, Inode>()
  #changes: DirectoryChange[] = []
  /** Handles and callbacks of an earlier life are dead. */
  #life = 0

  constructor(clock: VirtualClock, random: Random) {
    this.#clock = clock
    this.#random = random
  }

  /** Power cut: what was not durable is lost or torn, what was running never hears back. */
  crash(): void {
    this.#life++
    this.counters.crashes++
    const names = new Map(this.#keptNames)
    const survive = this.#changes.slice(0, this.#random.integer(0, this.#changes.length))
    for (const change of survive) applyChange(names, change)
    for (const inode of new Set(names.values())) this.#tear(inode)
    this.#names = names
    this.#keptNames = new Map(names)
    this.#changes = []
  }

  /** Flips a bit of a file, behind everybody's back. */
  corrupt(name: string, offset: number): void {
    const inode = this.#names.get(name)
    if (inode === undefined || offset >= inode.seenBytes) throw new Error(`${name} has no byte ${offset}`)
    inode.seen[offset]! ^= 1
    inode.kept[offset]! ^= 1
  }

  names(): string[] {
    return [...this.#names.keys()].sort()
  }

  /** The bytes of a file as a running process sees them. */
  peek(name: string): Uint8Array | undefined {
    const inode = this.#names.get(name)
    return inode?.seen.subarray(0, inode.seenBytes)
  }

  usedBytes(): number {
    let bytes = 0
    for (const inode of this.#names.values()) bytes += inode.seenBytes
    return bytes
  }

  /** The disk as one run of a program has it: after the next power cut it never answers again. */
  mount(): SimulatedMount {
    const life = this.#life
    const alive = <Value>(fn: () => Value): Promise<Value> =>
      life === this.#life ? new Promise((resolve) => resolve(fn())) : new Promise<Value>(() => undefined)
    return {
      list: () => alive(() => [...this.#names.keys()].sort()),
      open: (name, options) => alive(() => this.#open(name, options)),
      rename: (names) => alive(() => this.#rename(names)),
      remove: (name) => alive(() => this.#remove(name)),
      syncDirectory: () => alive(() => this.#syncDirectory()),
    }
  }

  #open(name: string, options: { create: boolean; durable: boolean }): SimulatedFile {
    let inode = this.#names.get(name)
    if (options.create) {
      inode = { seen: new Uint8Array(0), seenBytes: 0, kept: new Uint8Array(0), keptBytes: 0, unsynced: [] }
      this.#change({ kind: 'link', name, inode })
    }
    if (inode === undefined) throw diskError('ENOENT', `no such file: ${name}`)
    return this.#handle(inode, options.durable)
  }

  #rename(names: { from: string; to: string }): void {
    const inode = this.#names.get(names.from)
    if (inode === undefined) throw diskError('ENOENT', `no such file: ${names.from}`)
    // One change for the journal of a real file system; two here, but the name never points nowhere.
    this.#change({ kind: 'link', name: names.to, inode })
    this.#change({ kind: 'unlink', name: names.from })
  }

  #remove(name: string): void {
    if (!this.#names.has(name)) throw diskError('ENOENT', `no such file: ${name}`)
    this.#change({ kind: 'unlink', name })
  }

  #syncDirectory(): void {
    if (this.faults.ignoreSync) return
    this.#keptNames = new Map(this.#names)
    this.#changes = []
  }

  #change(change: DirectoryChange): void {
    applyChange(this.#names, change)
    this.#changes.push(change)
  }

  #handle(inode: Inode, durable: boolean): SimulatedFile {
    const life = this.#life
    const alive = <Value>(fn: () => Value): Promise<Value> =>
      life === this.#life ? Promise.resolve(fn()) : new Promise<Value>(() => undefined)
    return {
      size: () => alive(() => inode.seenBytes),
      read: (offset, length) =>
        alive(() => inode.seen.slice(offset, Math.min(offset + length, inode.seenBytes))),
      write: (bytes, offset, done) => {
        if (life !== this.#life) return
        const growth = Math.max(0, offset + bytes.length - inode.seenBytes)
        if (growth > 0 && this.usedBytes() + growth > this.faults.capacityBytes) {
          this.#clock.after(
            0,
            () => life === this.#life && done(diskError('ENOSPC', 'no space left on device')),
          )
          return
        }
        this.counters.writes++
        const write = { offset, bytes: bytes.slice() }
        putSeen(inode, write)
        inode.unsynced.push(write)
        const delay = durable ? this.#delay() : 0
        this.#clock.after(delay, () => {
          if (life !== this.#life) return
          if (durable && !this.faults.ignoreSync) keep(inode, write)
          done(undefined)
        })
      },
      sync: () =>
        alive(() => {
          this.counters.syncs++
          if (this.faults.ignoreSync) return
          for (const write of [...inode.unsynced]) keep(inode, write)
        }),
      close: () => alive(() => undefined),
    }
  }

  #delay(): number {
    const { delayMin, delayMax } = this.faults
    return delayMin + this.#random.next() * (delayMax - delayMin)
  }

  #tear(inode: Inode): void {
    for (const write of inode.unsynced) {
      const fate = this.#random.next()
      for (let at = 0; at < write.bytes.length; at += sectorBytes) {
        const part = { offset: write.offset + at, bytes: write.bytes.subarray(at, at + sectorBytes) }
        // A third is lost, a third arrives, a third is torn.
        if (fate < 0.33 || (fate < 0.66 && this.#random.chance(0.5))) {
          this.counters.lostSectors++
          continue
        }
        this.counters.tornSectors++
        putKept(inode, part)
      }
    }
    inode.unsynced = []
    inode.seen = inode.kept.slice()
    inode.seenBytes = inode.keptBytes
  }
}

export type SimulatedMount = {
  list(): Promise<string[]>
  open(name: string, options: { create: boolean; durable: boolean }): Promise<SimulatedFile>
  rename(names: { from: string; to: string }): Promise<void>
  remove(name: string): Promise<void>
  syncDirectory(): Promise<void>
}

export type SimulatedFile = {
  size(): Promise<number>
  read(offset: number, length: number): Promise<Uint8Array>
  write(bytes: Uint8Array, offset: number, done: (error: Error | undefined) => void): void
  sync(): Promise<void>
  close(): Promise<void>
}

function applyChange(names: Map<string, Inode>, change: DirectoryChange): void {
  if (change.kind === 'link') names.set(change.name, change.inode)
  else names.delete(change.name)
}

function keep(inode: Inode, write: Write): void {
  const at = inode.unsynced.indexOf(write)
  if (at >= 0) inode.unsynced.splice(at, 1)
  putKept(inode, write)
}

function putSeen(inode: Inode, write: Write): void {
  const end = write.offset + write.bytes.length
  if (end > inode.seen.length) inode.seen = grow(inode.seen, end)
  inode.seen.set(write.bytes, write.offset)
  inode.seenBytes = Math.max(inode.seenBytes, end)
}

function putKept(inode: Inode, write: Write): void {
  const end = write.offset + write.bytes.length
  if (end > inode.kept.length) inode.kept = grow(inode.kept, end)
  inode.kept.set(write.bytes, write.offset)
  inode.keptBytes = Math.max(inode.keptBytes, end)
}

function grow(bytes: Uint8Array, size: number): Uint8Array {
  const larger = new Uint8Array(Math.max(size, bytes.length * 2))
  larger.set(bytes)
  return larger
}

function diskError(code: string, message: string): Error {
  return Object.assign(new Error(`${code}: ${message}`), { code })
}

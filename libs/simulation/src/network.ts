import type { VirtualClock } from './clock.ts'
import type { Random } from './random.ts'

export type NetworkFaults = {
  /** Probability that a frame is lost, or arrives twice. */
  loss: number
  duplication: number
  /** Delay in ms, uniform; frames overtake each other. */
  delayMin: number
  delayMax: number
  /** Probability of a delay ten times as long. */
  straggler: number
}

export const calm: NetworkFaults = { loss: 0, duplication: 0, delayMin: 0.2, delayMax: 2, straggler: 0 }

type Receive = (from: bigint, frame: Uint8Array) => void

/** Frames between nodes with loss, delay, duplication, reordering and cut directions. */
export class SimulatedNetwork {
  faults: NetworkFaults = { ...calm }
  readonly counters = { sent: 0, lost: 0, duplicated: 0, delivered: 0 }
  #clock: VirtualClock
  #random: Random
  #nodes = new Map<bigint, { receive: Receive; life: number }>()
  #cuts = new Set<string>()
  #lives = 0

  constructor(clock: VirtualClock, random: Random) {
    this.#clock = clock
    this.#random = random
  }

  /** A node comes up. Frames on their way to or from an earlier life of it are gone, as with a connection. */
  attach(id: bigint, receive: Receive): void {
    this.#nodes.set(id, { receive, life: ++this.#lives })
  }

  detach(id: bigint): void {
    this.#nodes.delete(id)
  }

  /** Cuts one direction. */
  cut(from: bigint, to: bigint): void {
    this.#cuts.add(`${from}>${to}`)
  }

  /** Cuts both directions between the groups. */
  partition(left: readonly bigint[], right: readonly bigint[]): void {
    for (const a of left) {
      for (const b of right) {
        this.cut(a, b)
        this.cut(b, a)
      }
    }
  }

  heal(): void {
    this.#cuts.clear()
  }

  /** False if the target is down, which a connection would notice. */
  send(from: bigint, to: bigint, frame: Uint8Array): boolean {
    this.counters.sent++
    const target = this.#nodes.get(to)
    if (target === undefined || this.#cuts.has(`${from}>${to}`) || this.#random.chance(this.faults.loss)) {
      this.counters.lost++
      return target !== undefined
    }
    const lives = { from: this.#nodes.get(from)?.life, to: target.life }
    this.#deliverLater(from, to, lives, frame)
    if (this.faults.duplication > 0 && this.#random.chance(this.faults.duplication)) {
      this.counters.duplicated++
      this.#deliverLater(from, to, lives, frame)
    }
    return true
  }

  #deliverLater(
    from: bigint,
    to: bigint,
    lives: { from: number | undefined; to: number },
    frame: Uint8Array,
  ): void {
    const { delayMin, delayMax, straggler } = this.faults
    let delay = delayMin + this.#random.next() * (delayMax - delayMin)
    if (straggler > 0 && this.#random.chance(straggler)) delay *= 10
    this.#clock.after(delay, () => {
      const target = this.#nodes.get(to)
      const sender = this.#nodes.get(from)
      // A connection ends with either of its sides, though one that is down for good may still be read out.
      const broken = target?.life !== lives.to || (sender !== undefined && sender.life !== lives.from)
      if (target === undefined || broken || this.#cuts.has(`${from}>${to}`)) {
        this.counters.lost++
        return
      }
      this.counters.delivered++
      target.receive(from, frame)
    })
  }
}

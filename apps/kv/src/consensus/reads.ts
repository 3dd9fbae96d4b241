import { Fault } from '@kiln/service'

type Read = { deadline: number; settle: (index: number, error: Fault | undefined) => void }

/**
 * Reads of this member. All that wait when a round begins share it; those that come later share the next. A round without an
 * answer is asked again, for a message may be lost or the leader gone.
 */
export class Reads {
  #next: Read[] = []
  #round: Read[] = []
  #context: number
  #askedAt = 0
  /** Confirmed, waiting until this member has applied that much. */
  #confirmed: { index: number; reads: Read[] }[] = []

  /** `firstContext` is drawn at random: a late answer to an earlier run of this member says nothing about our reads. */
  constructor(firstContext: number) {
    this.#context = firstContext
  }

  add(read: Read): void {
    this.#next.push(read)
  }

  /** The context to ask for now, if any. */
  begin(now: number, retryMs: number): number | undefined {
    if (this.#round.length > 0) {
      if (now - this.#askedAt < retryMs) return undefined
      // Asking anew is as good for those who came meanwhile.
      this.#round.push(...this.#next.splice(0))
    } else if (this.#next.length > 0) {
      this.#round = this.#next.splice(0)
    } else {
      return undefined
    }
    this.#askedAt = now
    return ++this.#context
  }

  /** The leader has gone or come: do not wait for the retry. */
  askAgain(): void {
    this.#askedAt = Number.NEGATIVE_INFINITY
  }

  answered(context: number, index: number): void {
    if (context !== this.#context || this.#round.length === 0) return
    this.#confirmed.push({ index, reads: this.#round })
    this.#round = []
  }

  applied(index: number): void {
    while (this.#confirmed.length > 0 && this.#confirmed[0]!.index <= index) {
      const { reads, index: at } = this.#confirmed.shift()!
      for (const read of reads) read.settle(at, undefined)
    }
  }

  hasWaiting(): boolean {
    return this.#next.length > 0 && this.#round.length === 0
  }

  expire(now: number): void {
    const keep = (reads: Read[]): Read[] =>
      reads.filter((read) => {
        if (read.deadline > now) return true
        read.settle(0, new Fault('STORE_TIMEOUT', 'no majority confirmed the leader in time'))
        return false
      })
    this.#next = keep(this.#next)
    this.#round = keep(this.#round)
    for (const group of this.#confirmed) group.reads = keep(group.reads)
  }

  failAll(fault: Fault): void {
    const groups = this.#confirmed.splice(0).flatMap((group) => group.reads)
    for (const read of [...this.#next.splice(0), ...this.#round.splice(0), ...groups]) read.settle(0, fault)
  }
}

import { Fault } from '@kiln/service'

/** A proposal of this member that has no result yet. */
export type OwnProposal = {
  entry: 'data' | 'config'
  data: Uint8Array
  addedAt: number
  deadline: number
  /** When it was given to a leader. */
  sentAt: number
  /** What it is reported for if it is slow. */
  call: object | undefined
  /** Term in which it was given to a leader, 0 while it waits for one. */
  sentTerm: number
  settle: (result: unknown, error: Fault | undefined) => void
}

/**
 * The proposals of this member: waiting for a leader, or sent and waiting to be applied. Each attempt has its own sequence number,
 * because a refused one must not be confused with the next, and a member ignores what it has seen before.
 */
export class Proposals {
  #sequence: number
  #waiting: OwnProposal[] = []
  #sent = new Map<number, OwnProposal>()

  /** `firstSequence` is drawn at random: a late refusal of what an earlier run of this member sent must not be taken for ours. */
  constructor(firstSequence: number) {
    this.#sequence = firstSequence
  }

  count(): number {
    return this.#waiting.length + this.#sent.size
  }

  add(proposal: OwnProposal): void {
    this.#waiting.push(proposal)
  }

  hasWaiting(): boolean {
    return this.#waiting.length > 0
  }

  /** Takes what waits, to be sent now. */
  takeWaiting(): OwnProposal[] {
    return this.#waiting.splice(0)
  }

  /** It could not be sent; it goes on waiting, in its old place. */
  putBack(proposals: readonly OwnProposal[]): void {
    this.#waiting.unshift(...proposals)
  }

  markSent(proposal: OwnProposal, term: number, now: number): number {
    proposal.sentTerm = term
    proposal.sentAt = now
    this.#sent.set(++this.#sequence, proposal)
    return this.#sequence
  }

  /** The leader took none of it: it certainly did not happen. */
  refused(sequence: number, fault: Fault | undefined): void {
    const proposal = this.#sent.get(sequence)
    if (proposal === undefined) return
    this.#sent.delete(sequence)
    proposal.sentTerm = 0
    if (fault === undefined) this.#waiting.unshift(proposal)
    else proposal.settle(undefined, fault)
  }

  /** Answers the proposal. */
  applied(sequence: number, result: unknown): OwnProposal | undefined {
    const proposal = this.#sent.get(sequence)
    if (proposal === undefined) return undefined
    this.#sent.delete(sequence)
    proposal.settle(result, undefined)
    return proposal
  }

  /** The first entry of `term` is applied: what was given to earlier leaders and is not applied by now never will be. */
  termBegan(term: number): void {
    for (const [sequence, proposal] of this.#sent) {
      if (proposal.sentTerm >= term) continue
      this.#sent.delete(sequence)
      const fault = new Fault('STORE_LEADER_CHANGED', 'the leader changed before the proposal was stored')
      proposal.settle(undefined, fault)
    }
  }

  expire(now: number): void {
    for (const [sequence, proposal] of this.#sent) {
      if (proposal.deadline > now) continue
      this.#sent.delete(sequence)
      proposal.settle(undefined, new Fault('STORE_TIMEOUT', 'the proposal was not applied in time'))
    }
    this.#waiting = this.#waiting.filter((proposal) => {
      if (proposal.deadline > now) return true
      proposal.settle(undefined, new Fault('STORE_NO_LEADER', 'no leader took the proposal in time'))
      return false
    })
  }

  failAll(fault: Fault): void {
    const all = [...this.#waiting.splice(0), ...this.#sent.values()]
    this.#sent.clear()
    for (const proposal of all) proposal.settle(undefined, fault)
  }
}

/** Remembers what other members have sent, so that a frame that arrives twice counts once. */
export class SeenSequences {
  #seen = new Map<bigint, { newest: number; recent: Set<number> }>()

  /** True the first time. */
  first(origin: bigint, sequence: number): boolean {
    let seen = this.#seen.get(origin)
    if (seen === undefined) {
      if (this.#seen.size >= originsMax) this.#seen.delete(this.#seen.keys().next().value!)
      seen = { newest: 0, recent: new Set() }
      this.#seen.set(origin, seen)
    }
    if (sequence <= seen.newest - recentMax || seen.recent.has(sequence)) return false
    seen.recent.add(sequence)
    seen.newest = Math.max(seen.newest, sequence)
    if (seen.recent.size > 2 * recentMax) {
      for (const old of seen.recent) if (old <= seen.newest - recentMax) seen.recent.delete(old)
    }
    return true
  }
}

const originsMax = 64
const recentMax = 50_000

import type { ProposalTimes } from '../consensus/types.ts'

/**
 * What a call waits for, in the order in which it happens. `admitted`: read, and its sender found to have the right. `sent`: given to
 * the leader. `synced`: durable in this member's log. `committed`: so on a majority. `applied`: part of the state. `confirmed`: a
 * majority was heard of before a read. `collected`: all that a large read answers was found. `answered`: encoded and handed over.
 */
export type Stage =
  | 'admitted'
  | 'sent'
  | 'synced'
  | 'committed'
  | 'applied'
  | 'confirmed'
  | 'collected'
  | 'answered'

type Mark = { stage: Stage; until: number }

/** A stage shorter than this part of what makes a call slow is not worth a note. */
const noteShare = 4
/** Lines a second; what is beyond them is counted. */
const linesMax = 20
const lineWindowMs = 1000

/**
 * Where the time of slow calls went. Nothing is kept of a call that is quick: a stage is noted when it was long itself, by whoever
 * waited for it, and looked up when the call ends.
 */
export class SlowCalls {
  readonly #marks = new WeakMap<object, Mark[]>()
  #window = { beganAt: Number.NEGATIVE_INFINITY, lines: 0, left: 0 }

  /** How long a wait is noted, of calls that are slow beyond `slowMs`. */
  static noteMs(slowMs: number): number {
    return slowMs / noteShare
  }

  /** The stage of a call that began when the one before it ended lasted until then (milliseconds of the member's clock). */
  note(call: object, stage: Stage, until: number): void {
    const marks = this.#marks.get(call)
    if (marks) marks.push({ stage, until })
    else this.#marks.set(call, [{ stage, until }])
  }

  noteProposal(call: object, times: ProposalTimes): void {
    this.note(call, 'admitted', times.addedAt)
    this.note(call, 'sent', times.sentAt)
    if (times.syncedAt !== undefined) this.note(call, 'synced', times.syncedAt)
    if (times.committedAt !== undefined) this.note(call, 'committed', times.committedAt)
    this.note(call, 'applied', times.appliedAt)
  }

  /** Milliseconds by stage and which took longest, of a call that was over at `endedAt`; nothing if no stage stood out. */
  describe(
    call: object,
    startedAt: number,
    endedAt: number,
  ): { slowest: Stage; stages: Partial<Record<Stage, number>> } | undefined {
    const marks = this.#marks.get(call)
    if (!marks) return undefined
    let from = startedAt
    const taken = new Map<Stage, number>()
    for (const { stage, until } of [...marks, { stage: 'answered' as const, until: endedAt }]) {
      taken.set(stage, (taken.get(stage) ?? 0) + Math.max(0, until - from))
      from = Math.max(from, until)
    }
    const [[slowest]] = [...taken].sort(([, a], [, b]) => b - a) as [[Stage, number]]
    return {
      slowest,
      stages: Object.fromEntries([...taken].map(([stage, ms]) => [stage, Math.round(ms)])),
    }
  }

  /** Whether one more line may be written now; how many were left out before it. */
  mayLog(now: number): { leftOut: number } | undefined {
    const window = this.#window
    if (now - window.beganAt >= lineWindowMs) this.#window = { beganAt: now, lines: 0, left: window.left }
    if (this.#window.lines >= linesMax) {
      this.#window.left++
      return undefined
    }
    this.#window.lines++
    const leftOut = this.#window.left
    this.#window.left = 0
    return { leftOut }
  }
}

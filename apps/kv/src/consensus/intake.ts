import { isActive, propose, type Raft } from '@kiln/raft'
import {
  decodeRosterChange,
  encodeRosterChange,
  type Roster,
  type RosterChange,
  refusalOf,
} from './members.ts'
import { encodePayload } from './payload.ts'
import type { MemberId } from './types.ts'

type Common = { from: MemberId; origin: bigint; sequence: number; bytes: Uint8Array }

/** What a leader was given in this turn, by its own clients and by other members. */
export class Intake {
  #raft: Raft
  #batch: Common[] = []
  /** Changes of the members wait for their turn: there is only one at a time. */
  #changes: (Common & { change: RosterChange })[] = []
  /** Tells whoever proposed it that nothing came of it, and why. */
  #refuse: (to: MemberId, sequence: number, code: string) => void

  constructor(raft: Raft, refuse: (to: MemberId, sequence: number, code: string) => void) {
    this.#raft = raft
    this.#refuse = refuse
  }

  add(proposal: {
    entry: 'data' | 'config'
    origin: bigint
    sequence: number
    data: Uint8Array
    from: MemberId
  }): void {
    const { entry, origin, sequence, data, from } = proposal
    if (entry === 'data') {
      this.#batch.push({ origin, sequence, from, bytes: encodePayload({ origin, sequence, data }) })
      return
    }
    const { change } = decodeRosterChange(data)
    this.#changes.push({
      change,
      origin,
      sequence,
      from,
      bytes: encodeRosterChange(change, origin, sequence),
    })
  }

  /** One append for all that came in this turn. */
  propose(roster: Roster, diskFull: boolean): void {
    const batch = this.#batch
    if (batch.length > 0) {
      this.#batch = []
      const proposals = batch.map(({ bytes }) => ({ kind: 'data' as const, data: bytes }))
      const refusal = diskFull ? 'disk-full' : refusalIn(propose(this.#raft, proposals))
      if (refusal !== undefined) for (const one of batch) this.#refuse(one.from, one.sequence, refusal)
    }
    if (this.#changes.length > 0) this.#proposeChange(roster)
  }

  /** This member does not lead any more: somebody else must take it. */
  handBack(): void {
    for (const one of [...this.#batch.splice(0), ...this.#changes.splice(0)]) {
      this.#refuse(one.from, one.sequence, 'not-leader')
    }
  }

  #proposeChange(roster: Roster): void {
    const raft = this.#raft
    const { change, bytes, from, sequence } = this.#changes[0]!
    const invalid = refusalOf(roster, change, {
      isActive: (id) => id === raft.id || isActive(raft, id),
      isCaughtUp: (id) => (raft.progress.get(id)?.match ?? 0) >= raft.committed * 0.9,
    })
    const refusal = invalid ?? refusalIn(propose(raft, [{ kind: 'config', data: bytes }]))
    if (refusal === 'change-pending' || refusal === 'not-ready') return
    this.#changes.shift()
    if (refusal !== undefined) this.#refuse(from, sequence, refusal)
  }
}

function refusalIn(outcome: ReturnType<typeof propose>): string | undefined {
  return outcome.accepted ? undefined : outcome.reason
}

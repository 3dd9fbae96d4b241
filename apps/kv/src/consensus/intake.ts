import { isActive, propose, type Raft } from '@kiln/raft'
import {
  decodeRosterEntry,
  encodeRosterChanges,
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
  #changes: (Common & { changes: readonly RosterChange[] })[] = []
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
    const decoded = decodeRosterEntry(data)
    // Only a leader itself leaves a joint configuration.
    if (decoded.kind === 'leave') return
    const changes = decoded.kind === 'change' ? [decoded.change] : decoded.changes
    const bytes = encodeRosterChanges(changes, origin, sequence)
    this.#changes.push({ changes, origin, sequence, from, bytes })
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
    const { changes, bytes, from, sequence } = this.#changes[0]!
    // What comes of the change under way decides about the next.
    if (roster.joint !== undefined) return
    const invalid = refusalOf(roster, changes, {
      isActive: (id) => id === raft.id || isActive(raft, id),
      // As etcd has it: at least nine tenths of the leader's own log.
      isCaughtUp: (id) => (raft.progress.get(id)?.match ?? 0) >= raft.log.stable * 0.9,
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

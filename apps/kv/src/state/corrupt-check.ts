import { type Clock, describeError, Fault, type Log } from '@kiln/service'
import type { Consensus } from '../consensus/types.ts'
import { encodeCommand } from './command.ts'
import type { Applied, StoreState } from './state-machine.ts'
import { hashStore } from './store-hash.ts'

/** First byte of a question about the store's hash, to tell it from questions about leases. */
const questionMagic = 0x48
const formatVersion = 1
const questionBytes = 10
const answerBytes = 14

export type CorruptCheckOptions = {
  state: StoreState
  consensus: () => Consensus<Applied>
  clock: Clock
  log: Log
}

export type Comparison = 'same' | 'different' | 'not-comparable'

/**
 * Finds out whether this member holds what the leader holds: both hash their history up to the same revision. Members that were
 * compacted at different revisions at that moment cannot be compared (kv.md section 7).
 */
export class CorruptCheck {
  readonly #options: CorruptCheckOptions

  constructor(options: CorruptCheckOptions) {
    this.#options = options
  }

  isQuestion(body: Uint8Array): boolean {
    return body[0] === questionMagic
  }

  /** Answers another member as the leader: hash and compact revision, or nothing if the revision is not to be had. */
  async onRequest(body: Uint8Array): Promise<Uint8Array> {
    const question = Buffer.from(body.buffer, body.byteOffset, body.byteLength)
    if (question.length !== questionBytes || question[1] !== formatVersion) {
      throw new Fault('STORE_FORMAT_UNKNOWN', 'a member asked about the store in an unknown format')
    }
    const outcome = await hashStore(this.#options.state, question.readDoubleLE(2))
    const answer = Buffer.alloc(outcome.ok ? answerBytes : 2)
    answer[0] = questionMagic
    answer[1] = formatVersion
    if (outcome.ok) {
      answer.writeUInt32LE(outcome.value.hash, 2)
      answer.writeDoubleLE(outcome.value.compactRevision, 6)
    }
    return answer
  }

  /** Compares this member with the leader. */
  async compare(): Promise<Comparison> {
    const { state } = this.#options
    const consensus = this.#options.consensus()
    await consensus.readIndex()
    if (consensus.isLeader()) return 'same'
    const revision = state.store.revision
    const question = Buffer.alloc(questionBytes)
    question[0] = questionMagic
    question[1] = formatVersion
    question.writeDoubleLE(revision, 2)
    const [own, reply] = await Promise.all([hashStore(state, revision), consensus.requestLeader(question)])
    const answer = Buffer.from(reply.buffer, reply.byteOffset, reply.byteLength)
    if (!own.ok || answer.length !== answerBytes || answer.readDoubleLE(6) !== own.value.compactRevision) {
      return 'not-comparable'
    }
    return answer.readUInt32LE(2) === own.value.hash ? 'same' : 'different'
  }

  /** Compares now and then; a member that differs raises the CORRUPT alarm for itself, and the cluster stops serving. */
  start(intervalMs: number): () => void {
    const { clock, log, state } = this.#options
    if (intervalMs <= 0) return () => undefined
    let cancel = (): void => undefined
    let isStopped = false
    const round = async (): Promise<void> => {
      if (state.alarms.has('corrupt') || (await this.compare()) !== 'different') return
      const consensus = this.#options.consensus()
      log.error({ revision: state.store.revision }, 'this member holds something else than the leader')
      const alarm = { kind: 'alarm', raise: true, member: consensus.id(), alarm: 'corrupt' } as const
      await consensus.propose(encodeCommand(alarm))
    }
    const schedule = (): void => {
      if (isStopped) return
      cancel = clock.after(intervalMs, () => {
        round()
          .catch((error: unknown) =>
            log.debug({ reason: describeError(error) }, 'members could not be compared'),
          )
          .finally(schedule)
      })
    }
    schedule()
    return () => {
      isStopped = true
      cancel()
    }
  }
}

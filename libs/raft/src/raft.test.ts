import { expect, test } from 'vitest'
import { lastIndex } from './log.ts'
import { propose, step, takeEffects } from './raft.ts'
import { createRaft, type Raft } from './state.ts'
import type { Entry, MessageOf, Persist } from './types.ts'

const entry = (index: number, term: number): Entry => ({
  index,
  term,
  kind: 'data',
  data: Uint8Array.of(index),
})

function createMember(voters: bigint[], entries: Entry[] = []): Raft {
  return createRaft(
    { id: 1n },
    {
      hardState: { term: entries.at(-1)?.term ?? 0, vote: 0n, commit: 0 },
      snapshot: { index: 0, term: 0, membership: { voters, learners: [] } },
      entries,
    },
  )
}

/** Acknowledges what has to be written. */
function persist(raft: Raft): Persist | undefined {
  const { persist: write } = takeEffects(raft)
  if (write) step(raft, { kind: 'persisted', seq: write.seq, lastIndex: write.lastIndex })
  return write
}

function elect(raft: Raft, from: bigint[]): void {
  step(raft, { kind: 'campaign' })
  for (const pre of [true, false]) {
    for (const id of from) {
      const term = pre ? raft.term + 1 : raft.term
      step(raft, {
        kind: 'message',
        message: { type: 'vote-response', from: id, to: 1n, term, pre, granted: true },
      })
    }
    persist(raft)
  }
  expect(raft.role).toBe('leader')
}

function acknowledge(raft: Raft, from: bigint, index: number): void {
  const message: MessageOf<'append-response'> = {
    type: 'append-response',
    from,
    to: 1n,
    term: raft.term,
    index,
    rejected: false,
    hintIndex: 0,
    hintTerm: 0,
    refill: false,
  }
  step(raft, { kind: 'message', message })
}

test('an entry of an older term is not committed by counting its copies', () => {
  const raft = createMember([1n, 2n, 3n, 4n, 5n], [entry(1, 1), entry(2, 1)])
  elect(raft, [2n, 3n])
  persist(raft)
  acknowledge(raft, 2n, 2)
  acknowledge(raft, 3n, 2)
  expect(raft.committed).toBe(0)
  acknowledge(raft, 2n, 3)
  acknowledge(raft, 3n, 3)
  expect(raft.committed).toBe(3)
})

test('a candidate counts its own vote only when that is durable, and asks for others only then', () => {
  const raft = createMember([1n, 2n, 3n])
  step(raft, { kind: 'campaign' })
  takeEffects(raft)
  const granted = { type: 'vote-response' as const, from: 2n, to: 1n, granted: true }
  step(raft, { kind: 'message', message: { ...granted, term: 1, pre: true } })
  const effects = takeEffects(raft)
  expect(effects.messages).toEqual([])
  expect(effects.persist?.hardState).toEqual({ term: 1, vote: 1n, commit: 0 })
  expect(effects.persist?.messages.map((message) => message.type)).toEqual(['vote', 'vote'])
  step(raft, { kind: 'message', message: { ...granted, term: 1, pre: false } })
  expect(raft.role).toBe('candidate')
  step(raft, { kind: 'persisted', seq: effects.persist!.seq, lastIndex: 0 })
  expect(raft.role).toBe('leader')
})

test('the acknowledgement of a write that was overtaken by a truncation does not count', () => {
  const raft = createMember([1n, 2n, 3n])
  const append = (term: number, entries: Entry[]): void =>
    step(raft, {
      kind: 'message',
      message: {
        type: 'append',
        from: 2n,
        to: 1n,
        term,
        previousIndex: 0,
        previousTerm: 0,
        commit: 0,
        entries,
      },
    })
  append(1, [entry(1, 1)])
  const first = takeEffects(raft).persist!
  append(2, [entry(1, 2)])
  takeEffects(raft)
  // The first entry comes back from a third leader while the disk has not even seen the second.
  append(3, [{ ...entry(1, 1) }])
  const third = takeEffects(raft).persist!
  step(raft, { kind: 'persisted', seq: first.seq, lastIndex: first.lastIndex })
  expect(raft.log.stable).toBe(0)
  step(raft, { kind: 'persisted', seq: third.seq, lastIndex: third.lastIndex })
  expect(raft.log.stable).toBe(1)
})

test('appends are bounded in size and in number, and go on with the acknowledgements', () => {
  const raft = createMember([1n, 2n, 3n])
  Object.assign(raft.options, { appendBytesMax: 200, windowMessages: 2 })
  elect(raft, [2n])
  persist(raft)
  acknowledge(raft, 2n, 1)
  takeEffects(raft)
  for (let n = 0; n < 10; n++) propose(raft, [{ kind: 'data', data: new Uint8Array(100) }])
  const appends = (): MessageOf<'append'>[] =>
    takeEffects(raft).messages.filter(
      (message) => message.type === 'append' && message.to === 2n,
    ) as MessageOf<'append'>[]
  const sent = appends()
  expect(sent.map((message) => message.entries.length)).toEqual([1, 1])
  acknowledge(raft, 2n, 2)
  expect(appends().map((message) => message.entries[0]?.index)).toEqual([4])
})

test('a leader refuses proposals beyond the bound on uncommitted bytes, but never the first', () => {
  const raft = createMember([1n, 2n, 3n])
  Object.assign(raft.options, { uncommittedBytesMax: 1000 })
  elect(raft, [2n])
  const large = { kind: 'data' as const, data: new Uint8Array(5000) }
  expect(propose(raft, [large]).accepted).toBe(true)
  expect(propose(raft, [large])).toEqual({ accepted: false, reason: 'too-many-uncommitted' })
  persist(raft)
  acknowledge(raft, 2n, lastIndex(raft.log))
  expect(propose(raft, [large]).accepted).toBe(true)
})

test('a single voter commits when its own disk has it', () => {
  const raft = createMember([1n])
  elect(raft, [])
  persist(raft)
  propose(raft, [{ kind: 'data', data: Uint8Array.of(1) }])
  const effects = takeEffects(raft)
  expect(raft.committed).toBe(1)
  step(raft, { kind: 'persisted', seq: effects.persist!.seq, lastIndex: effects.persist!.lastIndex })
  expect(takeEffects(raft).committed.map(({ index }) => index)).toEqual([2])
})

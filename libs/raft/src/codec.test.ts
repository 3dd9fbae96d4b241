import fc from 'fast-check'
import { expect, test } from 'vitest'
import { decodeMessage, encodeMessage } from './codec.ts'
import type { Membership } from './membership.ts'
import { decodeMembershipEntry, encodeMembershipEntry } from './membership-codec.ts'
import type { Entry, Message } from './types.ts'

const count = fc.nat({ max: Number.MAX_SAFE_INTEGER })
const id = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })
const envelope = { from: id, to: id, term: count }
const ids = fc.uniqueArray(id, { maxLength: 5 })

const plain = fc.record({ voters: ids, learners: ids })
const joint = fc.record({
  voters: ids,
  learners: ids,
  joint: fc.record({ outgoing: ids, learnersNext: ids }),
})
const membership: fc.Arbitrary<Membership> = fc.oneof(plain, joint)

const append = fc
  .record({
    type: fc.constant('append' as const),
    ...envelope,
    previousIndex: fc.nat(),
    previousTerm: count,
    commit: count,
    contents: fc.array(
      fc.record({
        kind: fc.constantFrom('data' as const, 'config' as const, 'empty' as const),
        term: count,
        data: fc.uint8Array({ maxLength: 300 }),
      }),
      { maxLength: 5 },
    ),
  })
  .map(({ contents, ...message }) => ({
    ...message,
    entries: contents.map((content, at): Entry => ({ ...content, index: message.previousIndex + 1 + at })),
  }))

const message: fc.Arbitrary<Message> = fc.oneof(
  append,
  fc.record({
    type: fc.constant('vote' as const),
    ...envelope,
    pre: fc.boolean(),
    transfer: fc.boolean(),
    lastIndex: count,
    lastTerm: count,
  }),
  fc.record({
    type: fc.constant('vote-response' as const),
    ...envelope,
    pre: fc.boolean(),
    granted: fc.boolean(),
  }),
  fc.record({
    type: fc.constant('append-response' as const),
    ...envelope,
    index: count,
    rejected: fc.boolean(),
    hintIndex: count,
    hintTerm: count,
    refill: fc.boolean(),
  }),
  fc.record({ type: fc.constant('heartbeat' as const), ...envelope, commit: count, round: count }),
  fc.record({ type: fc.constant('heartbeat-response' as const), ...envelope, round: count }),
  fc.record({
    type: fc.constant('snapshot' as const),
    ...envelope,
    snapshot: fc.record({ index: count, term: count, membership }),
  }),
  fc.record({ type: fc.constant('read-request' as const), ...envelope, context: count }),
  fc.record({ type: fc.constant('read-response' as const), ...envelope, context: count, index: count }),
  fc.record({ type: fc.constant('timeout-now' as const), ...envelope }),
)

test('a message comes back as it was', () => {
  fc.assert(
    fc.property(message, (sent) => {
      expect(decodeMessage(encodeMessage(sent))).toEqual(sent)
    }),
  )
})

test('bytes that are cut off or changed are refused or mean another message, and never hang', () => {
  fc.assert(
    fc.property(message, fc.nat(), fc.nat({ max: 255 }), (sent, place, byte) => {
      const bytes = encodeMessage(sent)
      const changed = bytes.slice(0, 1 + (place % bytes.length))
      changed[changed.length - 1] = byte
      try {
        decodeMessage(changed)
      } catch (error) {
        expect(error).toBeInstanceOf(Error)
      }
    }),
  )
})

const change = fc.record({
  op: fc.constantFrom('add', 'add-learner', 'promote', 'remove', 'update', 'demote'),
  id,
  context: fc.uint8Array({ maxLength: 40 }),
})

test('an entry that changes members comes back as it was', () => {
  const entry = fc.oneof(
    fc.record({ kind: fc.constant('change' as const), change }),
    fc.record({ kind: fc.constant('enter' as const), changes: fc.array(change, { maxLength: 5 }) }),
    fc.constant({ kind: 'leave' as const }),
  )
  fc.assert(
    fc.property(entry, (sent) => {
      expect(decodeMembershipEntry(encodeMembershipEntry(sent))).toEqual(sent)
    }),
  )
})

test('an entry of the time before joint configurations still means the same, and a newer one is refused', () => {
  const old = Uint8Array.of(2, 9, 0, 0, 0, 0, 0, 0, 0, 7)
  expect(decodeMembershipEntry(old)).toEqual({
    kind: 'change',
    change: { op: 'promote', id: 9n, context: Uint8Array.of(7) },
  })
  expect(() => decodeMembershipEntry(Uint8Array.of(66, 0, 0))).toThrow('unknown operation')
})

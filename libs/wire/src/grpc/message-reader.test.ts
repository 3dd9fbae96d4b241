import fc from 'fast-check'
import { expect, test } from 'vitest'
import { grpcMessage } from '../testing/raw-client.ts'
import { MessageReader, wholeMessage } from './message-reader.ts'

const budget = (messageBytesMax = 1e6, partialBytesMax = 1e6) => ({
  partialBytes: 0,
  limits: { messageBytesMax, partialBytesMax },
})

test('messages come out as they went in, however they are cut', () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 8 }),
      fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 1 }),
      (messages, cuts) => {
        const bytes = Buffer.concat(messages.map(grpcMessage))
        const counted = budget()
        const read: Uint8Array[] = []
        const reader = new MessageReader(counted, (message) => void read.push(Uint8Array.from(message)))
        for (let at = 0, cut = 0; at < bytes.length; cut++) {
          const end = Math.min(bytes.length, at + cuts[cut % cuts.length]!)
          expect(reader.push(bytes, at, end)).toBeUndefined()
          at = end
        }
        expect(read).toEqual(messages)
        expect(reader.incomplete).toBe(false)
        expect(counted.partialBytes).toBe(0)
      },
    ),
  )
})

test('a chunk that is one message needs no reader', () => {
  const bytes = grpcMessage(Buffer.from('abc'))
  expect(wholeMessage(bytes, 0, bytes.length)).toEqual(Buffer.from('abc'))
  expect(wholeMessage(bytes, 0, bytes.length - 1)).toBeUndefined()
  expect(wholeMessage(Buffer.concat([bytes, bytes]), 0, 2 * bytes.length)).toBeUndefined()
})

test('a message over the limit is refused by its prefix, before it costs memory', () => {
  const counted = budget(1000)
  const reader = new MessageReader(counted, () => {})
  expect(reader.push(Buffer.from([0, 0xff, 0xff, 0xff, 0xff]), 0, 5)).toEqual({
    code: 8,
    message: 'grpc: received message larger than max (4294967295 vs. 1000)',
  })
  expect(counted.partialBytes).toBe(0)
})

test('memory grows with what arrives, and is bounded over all calls', () => {
  const counted = budget(1e6, 100_000)
  const first = new MessageReader(counted, () => {})
  const second = new MessageReader(counted, () => {})
  const start = Buffer.concat([Buffer.from([0, 0, 0x0f, 0, 0]), Buffer.alloc(10)])
  expect(first.push(start, 0, start.length)).toBeUndefined()
  expect(counted.partialBytes).toBe(65_536)
  expect(second.push(start, 0, start.length)?.code).toBe(8)
  first.release()
  expect(counted.partialBytes).toBe(0)
})

test('a compressed message is refused', () => {
  const reader = new MessageReader(budget(), () => {})
  expect(reader.push(Buffer.from([1, 0, 0, 0, 0]), 0, 5)?.code).toBe(12)
})

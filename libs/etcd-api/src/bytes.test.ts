import fc from 'fast-check'
import { expect, test } from 'vitest'
import { prefixEnd, prefixRange, toBytes, toText } from './bytes.ts'

test('a prefix ends where its last byte goes up by one, carrying over 0xff', () => {
  expect(toText(prefixEnd(toBytes('/a/')))).toBe('/a0')
  expect([...prefixEnd(Uint8Array.of(1, 0xff, 0xff))]).toEqual([2])
  expect([...prefixEnd(Uint8Array.of(0xff))]).toEqual([0])
  expect(prefixRange('')).toEqual({ key: new Uint8Array(1), rangeEnd: new Uint8Array(1) })
})

test('a key lies in the range of a prefix exactly if it begins with it', () => {
  const bytes = fc.uint8Array({ minLength: 1, maxLength: 4 })
  fc.assert(
    fc.property(bytes, bytes, (prefix, key) => {
      const { rangeEnd } = prefixRange(prefix)
      const toTheEnd = rangeEnd.length === 1 && rangeEnd[0] === 0
      const inRange = Buffer.compare(key, prefix) >= 0 && (toTheEnd || Buffer.compare(key, rangeEnd) < 0)
      expect(inRange).toBe(Buffer.from(key).subarray(0, prefix.length).equals(prefix))
    }),
  )
})

test('the end of a prefix in a Buffer leaves the prefix as it was', () => {
  const prefix = Buffer.from('a/')
  expect(prefixEnd(prefix)).toEqual(new TextEncoder().encode('a0'))
  expect(prefix.toString()).toBe('a/')
})

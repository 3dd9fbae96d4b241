import fc from 'fast-check'
import { expect, test } from 'vitest'
import { fromKey, toKey, toSpan } from './key.ts'
import { KeyIndex } from './key-index.ts'

const scanned = (index: KeyIndex, start: string, end: string | undefined): string[] => {
  const keys: string[] = []
  index.scan({ start, end }, (key) => {
    keys.push(key)
    return true
  })
  return keys
}

test('keys stay sorted over many blocks, whatever order they arrive in', () => {
  for (const step of [1, 7919]) {
    const index = new KeyIndex()
    const names = Array.from({ length: 10_007 }, (_, i) => String((i * step) % 10_007).padStart(5, '0'))
    for (const [record, name] of names.entries()) index.set(name, record)
    expect(index.size).toBe(10_007)
    expect(scanned(index, '', undefined)).toEqual([...names].sort())
    expect(scanned(index, '05000', '05003')).toEqual(['05000', '05001', '05002'])
    expect(index.get(names[77]!)).toBe(77)
    expect(index.set(names[77]!, 5)).toBe(77)
    expect(index.get('x')).toBeUndefined()
    index.filter((key) => key.endsWith('0'))
    expect(index.size).toBe(1001)
    expect(scanned(index, '05000', '05020')).toEqual(['05000', '05010'])
    index.filter(() => false)
    expect(scanned(index, '', undefined)).toEqual([])
    index.set('a', 1)
    expect(scanned(index, '', undefined)).toEqual(['a'])
  }
})

test('string order of keys is byte order', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 4 }), fc.uint8Array({ maxLength: 4 }), (a, b) => {
      expect(Math.sign(Buffer.compare(a, b))).toBe(toKey(a) < toKey(b) ? -1 : toKey(a) > toKey(b) ? 1 : 0)
      expect(fromKey(toKey(a))).toEqual(Buffer.from(a))
    }),
  )
})

test('a range end of one zero byte has no end', () => {
  expect(toSpan(Buffer.from('a'), Buffer.from([0]))).toEqual({ start: 'a', end: undefined })
  expect(toSpan(Buffer.from('a'), Buffer.from([]))).toEqual({ start: 'a', end: 'a\0' })
})

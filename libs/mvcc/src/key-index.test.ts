import fc from 'fast-check'
import { expect, test } from 'vitest'
import { History } from './history.ts'
import { fromKey, toKey, toSpan } from './key.ts'
import { KeyIndex } from './key-index.ts'
import { defaultSizes } from './sizes.ts'

/** An index over a history of its own; small leaves, so that they split and join. */
function indexOf(leafKeys: number) {
  const history = new History({ ...defaultSizes, chunkRecords: 16, slabBytes: 256 })
  const index = new KeyIndex(history, leafKeys)
  const add = (key: string, version = 1): number => {
    const prev = index.get(key)
    const fields = { key, revision: history.next + 2, sub: 0, createRevision: 2, version, lease: 0n, prev }
    const record = history.append(fields, new Uint8Array(0))
    index.set(key, record)
    return record
  }
  const scanned = (start: string, end: string | undefined, visitMax?: number): string[] => {
    const keys: string[] = []
    const visit = (record: number): boolean => keys.push(history.key(record)) > 0
    let from: string | undefined = start
    while (from !== undefined) from = index.scan({ start: from, end }, visit, visitMax)
    return keys
  }
  return { index, history, add, scanned }
}

test('keys stay sorted over many leaves, whatever order they arrive in', () => {
  for (const step of [1, 7919]) {
    for (const leafKeys of [2, 5, 512]) {
      const { index, history, add, scanned } = indexOf(leafKeys)
      const names = Array.from({ length: 2003 }, (_, i) => String((i * step) % 2003).padStart(5, '0'))
      for (const name of names) add(name)
      expect(index.size).toBe(2003)
      const sorted = [...names].sort()
      expect(scanned('', undefined)).toEqual(sorted)
      expect(scanned('', undefined, 7)).toEqual(sorted)
      expect(scanned('01000', '01003')).toEqual(['01000', '01001', '01002'])
      expect(scanned('01000', '01000')).toEqual([])
      expect(history.key(index.get(names[77]!))).toBe(names[77])
      const again = add(names[77]!)
      expect(index.get(names[77]!)).toBe(again)
      expect(index.size).toBe(2003)
      expect(index.get('x')).toBe(-1)
      for (const name of names) if (!name.endsWith('0')) index.delete(name)
      index.delete('x')
      expect(index.size).toBe(201)
      expect(scanned('01000', '01020')).toEqual(['01000', '01010'])
      for (const name of names) index.delete(name)
      expect(index.size).toBe(0)
      expect(scanned('', undefined)).toEqual([])
      add('a')
      expect(scanned('', undefined)).toEqual(['a'])
    }
  }
})

test('a scan in parts goes on behind what it has seen, whatever came and went', () => {
  const { index, history, add } = indexOf(3)
  for (let i = 0; i < 50; i++) add(`k${String(i * 2).padStart(3, '0')}`)
  const seen: string[] = []
  const visit = (record: number): boolean => seen.push(history.key(record)) > 0
  const next = index.scan({ start: '', end: undefined }, visit, 20)
  expect(next).toBe('k040')
  add('k001')
  add('k041')
  index.delete('k040')
  index.scan({ start: next!, end: 'k045' }, visit)
  expect(seen.slice(20)).toEqual(['k041', 'k042', 'k044'])
})

test('what a tally hears and what is visited are together the keys that live', () => {
  const change = fc.record({ key: fc.nat(15), kind: fc.constantFrom('put', 'put', 'delete', 'forget') })
  fc.assert(
    fc.property(
      fc.array(change, { minLength: 20, maxLength: 100 }),
      fc.subarray([...Array(16).keys()]),
      fc.nat(15),
      fc.nat(17),
      fc.nat(3),
      (changes, gone, from, to, enough) => {
        const { index, history, add } = indexOf(8)
        const live = new Map<string, boolean>()
        const name = (at: number): string => String.fromCharCode(97 + at)
        for (const { key, kind } of changes) {
          if (kind !== 'forget') add(name(key), kind === 'put' ? 1 : 0)
          else if (live.get(name(key)) === false) index.delete(name(key))
          else continue
          live.set(name(key), kind === 'put')
        }
        const middle = history.next - 10
        for (const key of gone) {
          add(name(key), 0)
          index.delete(name(key))
          live.delete(name(key))
        }
        const [start, end] = [name(from), to > 15 ? undefined : name(to)]
        const isIn = (key: string): boolean => key >= start && (end === undefined || key < end)
        let [visited, taken] = [0, 0]
        const visit = (record: number): boolean => {
          if (history.version(record) > 0) visited++
          return true
        }
        const take = (count: number): boolean => {
          if (visited < enough) return false
          taken += count
          return true
        }
        const tally = { revision: history.next + 1, add: take }
        index.scan({ start, end }, visit, undefined, tally)
        expect(visited + taken).toBe([...live].filter(([key, lives]) => lives && isIn(key)).length)
        // As of an older revision a leaf that changed since is visited.
        taken = 0
        index.scan({ start: '', end: undefined }, visit, undefined, { revision: middle, add: take })
        const isOld = (key: string): boolean => history.revision(index.get(key)) <= middle
        expect(taken).toBeLessThanOrEqual([...live].filter(([key, lives]) => lives && isOld(key)).length)
      },
    ),
    { numRuns: 500 },
  )
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

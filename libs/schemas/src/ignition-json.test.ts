import fc from 'fast-check'
import { expect, test } from 'vitest'
import { parseJsonWithPositions, positionOfPath } from './ignition-json.ts'

test('every value has the position where it starts, brackets counted in', () => {
  const text = '{\n  "a": [1, {"b": "x"}],\n  "c": null\n}'
  const parsed = parseJsonWithPositions(text)
  if (!parsed.ok) throw new Error('does not parse')
  expect(parsed.value).toEqual({ a: [1, { b: 'x' }], c: null })
  expect(Object.fromEntries(parsed.positions)).toEqual({
    '': { line: 1, column: 2 },
    a: { line: 2, column: 9 },
    'a.0': { line: 2, column: 9 },
    'a.1': { line: 2, column: 13 },
    'a.1.b': { line: 2, column: 18 },
    c: { line: 3, column: 8 },
  })
})

test('a path that the text does not have is placed at its nearest ancestor', () => {
  const parsed = parseJsonWithPositions('{\n "a": {}\n}')
  if (!parsed.ok) throw new Error('does not parse')
  expect(positionOfPath(parsed.positions, ['a', 'b', 'c'])).toEqual({ line: 2, column: 8 })
})

test.each([
  ['{"a": 1,}', 1, 9, "invalid character '}' looking for beginning of object key string"],
  ['[1\n 2]', 2, 2, "invalid character '2' after array element"],
  ['{"a"\n}', 2, 1, "invalid character '}' after object key"],
  ['{"a": tru}', 1, 7, "invalid character 't' looking for beginning of value"],
  ['{"a": "x', 1, 9, 'unexpected end of JSON input'],
  ['{} x', 1, 4, "invalid character 'x' after top-level value"],
  ['"a\nb"', 1, 3, "invalid character '\n' in string literal"],
  ['{"a": 01}', 1, 8, "invalid character '1' after object key:value pair"],
  ['// note\n{}', 1, 1, "invalid character '/' looking for beginning of value"],
])('%j is refused with its place', (text, line, column, message) => {
  expect(parseJsonWithPositions(text)).toEqual({ ok: false, fault: { message, at: { line, column } } })
})

test('nesting is bounded', () => {
  expect(parseJsonWithPositions('['.repeat(100_000))).toMatchObject({ ok: false })
})

test('what JSON.parse accepts is read the same, and what it refuses is refused', () => {
  fc.assert(
    fc.property(fc.json(), (text) => {
      expect(parseJsonWithPositions(text)).toMatchObject({ ok: true, value: JSON.parse(text) })
    }),
  )
  fc.assert(
    fc.property(
      fc.json(),
      fc.nat(),
      fc.constantFrom('', ',', '}', '"', '\\', '1', ' '),
      (text, at, extra) => {
        const place = at % (text.length + 1)
        const broken = text.slice(0, place) + extra + text.slice(place + 1)
        let expected: unknown
        try {
          expected = { ok: true, value: JSON.parse(broken) }
        } catch {
          expected = { ok: false }
        }
        expect(parseJsonWithPositions(broken)).toMatchObject(expected as object)
      },
    ),
  )
})

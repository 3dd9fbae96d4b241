import fc from 'fast-check'
import { expect, test } from 'vitest'
import { childOf, type JsonNode, offsetOfKey, offsetOfPath, parseJson } from './ignition-json.ts'

test('what is there twice is kept, and has the place where it was written', () => {
  const text = '{\n  "a": [1, {"b": "x"}],\n  "a": -0.5e1\n}'
  const parsed = parseJson(text)
  if (!parsed.ok) throw new Error('does not parse')
  const { root, positionOf } = parsed
  expect(root).toMatchObject({
    kind: 'object',
    entries: [{ key: 'a' }, { key: 'a', value: { text: '-0.5e1' } }],
  })
  expect(childOf(root, 'a')).toMatchObject({ kind: 'number' })
  expect(positionOf(offsetOfKey(root, ['a'])!)).toEqual({ line: 3, column: 3 })
  expect(positionOf(root.end)).toEqual({ line: 4, column: 2 })
})

test('a finding is placed at the value, or at the nearest ancestor that the text has, behind its bracket', () => {
  const parsed = parseJson('{\n "a": {"x": [3]}\n}')
  if (!parsed.ok) throw new Error('does not parse')
  const place = (...path: (string | number)[]) => parsed.positionOf(offsetOfPath(parsed.root, path))
  expect(place('a', 'x', 0)).toEqual({ line: 2, column: 14 })
  expect(place('a', 'b', 'c')).toEqual({ line: 2, column: 8 })
  expect(place('a', 'x', 1)).toEqual({ line: 2, column: 14 })
  expect(place()).toEqual({ line: 1, column: 2 })
})

test.each([
  ['{"a": 1,}', 1, 10, "invalid character '}' looking for beginning of object key string"],
  ['[1\n 2]', 2, 3, "invalid character '2' after array element"],
  ['{"a"\n}', 2, 2, "invalid character '}' after object key"],
  ['{"a": tru}', 1, 11, "invalid character '}' in literal true (expecting 'e')"],
  ['{"a": "x', 1, 9, 'unexpected end of JSON input'],
  ['{"a": "\\x"}', 1, 10, "invalid character 'x' in string escape code"],
  ['{"a": "\\u12g4"}', 1, 13, "invalid character 'g' in \\u hexadecimal character escape"],
  ['{"a": -}', 1, 9, "invalid character '}' in numeric literal"],
  ['{"a": 1.}', 1, 10, "invalid character '}' after decimal point in numeric literal"],
  ['{"a": 1e}', 1, 10, "invalid character '}' in exponent of numeric literal"],
  ['{} x', 1, 5, "invalid character 'x' after top-level value"],
  ['"a\nb"', 2, 1, "invalid character '\n' in string literal"],
  ['{"a": 01}', 1, 9, "invalid character '1' after object key:value pair"],
  ['// note\n{}', 1, 2, "invalid character '/' looking for beginning of value"],
  ['{"é": é}', 1, 9, "invalid character 'é' looking for beginning of value"],
])('%j is refused with the place behind what cannot be', (text, line, column, message) => {
  expect(parseJson(text)).toEqual({ ok: false, fault: { message, at: { line, column } } })
})

test('nesting is bounded', () => {
  expect(parseJson(`${'['.repeat(10_000)}${']'.repeat(10_000)}`)).toMatchObject({ ok: true })
  expect(parseJson('['.repeat(100_000))).toMatchObject({
    ok: false,
    fault: { at: { line: 1, column: 10_002 } },
  })
})

test('what JSON.parse accepts is read the same, and what it refuses is refused', () => {
  fc.assert(
    fc.property(fc.json(), (text) => {
      expect(readValue(text)).toEqual(plain(JSON.parse(text)))
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
          expected = plain(JSON.parse(broken))
        } catch {
          expected = 'refused'
        }
        expect(readValue(broken)).toEqual(expected)
      },
    ),
  )
})

/** What the tree stands for, as JSON.parse would have it. */
function readValue(text: string): unknown {
  const parsed = parseJson(text)
  return parsed.ok ? plain(valueOfNode(parsed.root)) : 'refused'
}

function valueOfNode(node: JsonNode): unknown {
  switch (node.kind) {
    case 'object':
      return Object.fromEntries(node.entries.map(({ key, value }) => [key, valueOfNode(value)]))
    case 'list':
      return node.items.map(valueOfNode)
    case 'number':
      return Number(node.text)
    case 'null':
      return null
    case 'string':
    case 'bool':
      return node.value
  }
}

/** Half surrogate pairs are replaced, and the order of keys does not count. */
const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value).toWellFormed())

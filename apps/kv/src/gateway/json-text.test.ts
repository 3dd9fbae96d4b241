import { expect, test } from 'vitest'
import { JsonObjects, parseJson } from './json-text.ts'

test('integers that a number cannot hold keep their digits', () => {
  expect(parseJson('{"ID":9223372036854775807,"TTL":60,"x":1.5}')).toEqual({
    ID: '9223372036854775807',
    TTL: 60,
    x: 1.5,
  })
})

test('objects are cut out of a stream wherever its chunks end', () => {
  const text = ' {"a":"}{\\"\\\\"} {"b":[{"c":1}]}\n{"d":{}}'
  const expected = ['{"a":"}{\\"\\\\"}', '{"b":[{"c":1}]}', '{"d":{}}']
  for (let size = 1; size <= text.length; size++) {
    const objects = new JsonObjects(100)
    const found: string[] = []
    for (let at = 0; at < text.length; at += size) found.push(...objects.push(text.slice(at, at + size)))
    expect(found, `in chunks of ${size}`).toEqual(expected)
    expect(objects.isPartial).toBe(false)
  }
})

test('what is no object is refused, and so is one without end', () => {
  expect(() => new JsonObjects(10).push('[1]')).toThrow(SyntaxError)
  expect(() => new JsonObjects(10).push('{"a":"bbbbbbbbbb')).toThrow(RangeError)
  const partial = new JsonObjects(10)
  partial.push('{"a":')
  expect(partial.isPartial).toBe(true)
})

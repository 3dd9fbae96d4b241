import { expect, test } from 'vitest'
import { readUnitContents } from './ignition-unit-contents.ts'

test.each<[string, string, string | string[]]>([
  [
    'a line of an option has a bound behind its equals sign',
    `[U]\nA=${'b'.repeat(2049)}`,
    'line too long (max 2048 bytes)',
  ],
  ['so has a continued one', `[U]\nA=b\\\n${'c'.repeat(2049)}`, 'line too long (max 2048 bytes)'],
  ['so has a comment', `#${'c'.repeat(2049)}\n[U]\nA=b`, 'line too long (max 2048 bytes)'],
  ['each line counts by itself', `[U]\nA=${'b'.repeat(2047)}\\\n${'c'.repeat(2048)}`, ['U']],
  ['a comment that ends with a backslash goes on', '[U]\n# x\\\nfoo\nA=b', ['U']],
  ['also with a space behind it', '[U]\n# x\\ \nfoo', []],
  [
    'a comment that does not, ends',
    '[U]\n# x\nfoo',
    'unexpected newline encountered while parsing option name',
  ],
])('%s', (_, text, expected) => {
  const found = readUnitContents(text)
  expect(found.ok ? [...found.sections] : found.reason).toEqual(expected)
})

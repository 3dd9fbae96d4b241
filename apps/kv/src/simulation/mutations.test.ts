import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { mutate, mutations } from './mutations.ts'

const root = new URL('../../../../', import.meta.url)

test('each bug still fits the source that it is put into', () => {
  for (const mutation of mutations) {
    const text = readFileSync(new URL(mutation.file, root), 'utf8')
    expect(mutate(mutation, text), mutation.name).not.toBe(text)
  }
  expect(new Set(mutations.map(({ name }) => name)).size).toBe(mutations.length)
})

test('a bug that does not fit its source any more is told', () => {
  const [mutation] = mutations
  expect(() => mutate(mutation!, 'something else')).toThrow('occurs 0 times')
})

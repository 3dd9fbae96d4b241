import { expect, test } from 'vitest'
import { drawPrefix, indexIn, SimpleTokens } from './simple-tokens.ts'

function tokensAt(options: { tokensMax?: number } = {}) {
  const clock = { ms: 0 }
  return { clock, tokens: new SimpleTokens({ ttlMs: 300_000, now: () => clock.ms, ...options }) }
}

test('a token lives as long as it is used, and five minutes more', () => {
  const { clock, tokens } = tokensAt()
  tokens.give('alice', 'a.1')
  for (let i = 0; i < 4; i++) {
    clock.ms += 200_000
    expect(tokens.nameOf('a.1')).toBe('alice')
  }
  clock.ms += 300_000
  expect(tokens.nameOf('a.1')).toBeUndefined()
  expect(tokens.size).toBe(0)
})

test('tokens that are over go when others come, and at the bound the one that would end first', () => {
  const { clock, tokens } = tokensAt({ tokensMax: 3 })
  for (const token of ['a.1', 'a.2', 'a.3']) tokens.give('alice', token)
  clock.ms += 2000
  expect(tokens.nameOf('a.1')).toBe('alice')
  tokens.give('bob', 'b.4')
  expect(['a.1', 'a.2', 'a.3', 'b.4'].map((token) => tokens.nameOf(token))).toEqual([
    'alice',
    undefined,
    'alice',
    'bob',
  ])
  clock.ms += 299_000
  expect(tokens.nameOf('a.1')).toBe('alice')
  clock.ms += 2000
  tokens.give('bob', 'b.5')
  expect(tokens.size).toBe(2)
})

test('the tokens of a user can be forgotten without the others', () => {
  const { tokens } = tokensAt()
  tokens.give('alice', 'a.1')
  tokens.give('bob', 'b.2')
  tokens.give('alice', 'a.3')
  tokens.forgetUser('alice')
  expect(['a.1', 'b.2', 'a.3'].map((token) => tokens.nameOf(token))).toEqual([undefined, 'bob', undefined])
})

test('a token is sixteen letters that nobody guesses and a place in the log', () => {
  const prefixes = new Set(Array.from({ length: 100 }, drawPrefix))
  expect(prefixes.size).toBe(100)
  for (const prefix of prefixes) expect(indexIn(`${prefix}.42`)).toBe(42)
  expect(indexIn('nonsense.1')).toBeUndefined()
  expect(indexIn('a.b.c')).toBeUndefined()
})

import { expect, test } from 'vitest'
import { bothWays, everyNode, isolation, passage } from './switch-faults.ts'

const never = (): number => 0.999
const always = (): number => 0

test('without rules every frame passes', () => {
  expect(passage([], 'a', 'b', never)).toEqual({ kind: 'forward' })
})

test('a cut wins over a delay', () => {
  const rules = [...bothWays('a', 'b', { delayMs: 10 }), ...isolation('a')]
  expect(passage(rules, 'b', 'a', never)).toEqual({ kind: 'drop' })
  expect(passage(rules, 'b', 'c', never)).toEqual({ kind: 'forward' })
})

test('delays add up, and a rule for one direction leaves the other alone', () => {
  const rules = [
    { from: 'a', to: everyNode, fault: { delayMs: 10 } },
    { from: 'a', to: 'b', fault: { delayMs: 5 } },
  ]
  expect(passage(rules, 'a', 'b', never)).toEqual({ kind: 'delay', ms: 15 })
  expect(passage(rules, 'b', 'a', never)).toEqual({ kind: 'forward' })
})

test('loss follows the random numbers', () => {
  const rules = bothWays('a', 'b', { lossPercent: 30 })
  expect(passage(rules, 'a', 'b', always)).toEqual({ kind: 'drop' })
  expect(passage(rules, 'a', 'b', never)).toEqual({ kind: 'forward' })
})

import { expect, test } from 'vitest'
import { anyFailed, closingLines, resultLine, type StoryResult } from './report.ts'

const passed: StoryResult = {
  story: 'install',
  budgetSeconds: 100,
  outcome: { kind: 'passed', seconds: 42.4, figures: [{ name: 'CPU', value: '40 s' }] },
}
const failed: StoryResult = {
  story: 'update',
  budgetSeconds: 10,
  outcome: { kind: 'failed', seconds: 11, figures: [], reason: 'two were down' },
}
const skipped: StoryResult = {
  story: 'tap',
  budgetSeconds: 10,
  outcome: { kind: 'skipped', reason: 'needs root' },
}

test('a line has name, result, seconds and budget', () => {
  expect(resultLine(passed)).toBe('passed   install             42 s of 100 s  CPU 40 s')
  expect(resultLine(failed)).toBe(
    'FAILED   update              11 s of 10 s, over budget\n         two were down',
  )
  expect(resultLine(skipped)).toBe('SKIPPED  tap              needs root')
})

test('the run ends with the reasons of skips and the counts', () => {
  expect(closingLines([passed, failed, skipped])).toEqual([
    'skipped tap: needs root',
    '1 passed, 1 failed, 1 skipped',
  ])
  expect(anyFailed([passed, skipped])).toBe(false)
  expect(anyFailed([passed, failed])).toBe(true)
})

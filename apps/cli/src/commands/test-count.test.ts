import { expect, test } from 'vitest'
import { closingLines } from './test.ts'
import { readCount } from './test-count.ts'

test('our own closing line counts, the last one', () => {
  const output = 'x\n1 passed, 0 failed, 0 skipped\nskipped: no KVM here\n12 passed, 1 failed, 2 skipped\n'
  expect(readCount(output, 1)).toEqual({
    passed: 12,
    failed: 1,
    skipped: 2,
    reasons: ['no KVM here'],
    failures: [],
    flaky: [],
  })
})

test('the line of vitest counts, with colours', () => {
  const output =
    '\u001b[2m Test Files \u001b[22m 2 passed (2)\n\u001b[2m      Tests \u001b[22m 3 failed | 26 passed | 4 skipped (33)\n'
  expect(readCount(output, 1)).toMatchObject({ passed: 26, failed: 3, skipped: 4 })
})

test('without a count the exit code is one test', () => {
  expect(readCount('', 0)).toMatchObject({ passed: 1, failed: 0 })
  expect(readCount('', 2)).toMatchObject({ passed: 0, failed: 1 })
})

test('a runner that dies after counting failed', () => {
  expect(readCount('3 passed, 0 failed, 0 skipped', 139)).toMatchObject({ passed: 3, failed: 1 })
})

test('a runner that counts what it skipped on a line of its own is understood', () => {
  const output = 'SKIP get: x (not served yet)\n1 skipped\n170 passed, 0 failed\n'
  expect(readCount(output, 0)).toEqual({
    passed: 170,
    failed: 0,
    skipped: 1,
    reasons: ['get: x (not served yet)'],
    failures: [],
    flaky: [],
  })
})

test('a story that was skipped is named with its reason', () => {
  const output = 'SKIPPED  tap    needs root\nskipped tap: needs root\n3 passed, 0 failed, 1 skipped\n'
  expect(readCount(output, 0).reasons).toEqual(['tap: needs root'])
})

test('what failed and what needed a second try is kept by name, and one of a second try did not fail', () => {
  const output =
    ' FAIL  |kv| src/a.test.ts > it holds\n FAIL  |kv| src/a.test.ts > it holds\n' +
    'FAILED   install 3 s of 9 s\nflaky kv: b: expected 1\n5 passed, 2 failed, 0 skipped\n'
  expect(readCount(output, 1)).toMatchObject({
    failures: ['|kv| src/a.test.ts > it holds', 'install 3 s of 9 s'],
    flaky: ['kv: b: expected 1'],
  })
})

test('the last line counts everything, after the reasons', () => {
  const part = {
    title: 'unit',
    seconds: 10,
    budgetSeconds: 9,
    failed: 0,
    reasons: [] as string[],
    failures: ['|kv| a'],
    flaky: ['kv: b'],
  }
  const lines = closingLines(
    [
      { ...part, passed: 5, failed: 1, skipped: 1, reasons: ['no root'] },
      { ...part, title: 'stories', passed: 2, skipped: 3 },
    ],
    20,
  )
  expect(lines.slice(2)).toEqual([
    'total 20 s',
    'skipped: unit: no root',
    'skipped: stories: 3 gave no reason',
    'failed: unit: |kv| a',
    'flaky: unit: kv: b',
    'flaky: stories: kv: b',
    '7 passed, 1 failed, 4 skipped',
  ])
  expect(lines[1]).toContain('9 exceeded')
})

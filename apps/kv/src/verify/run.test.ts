import { expect, test } from 'vitest'
import { verify } from './run.ts'
import { timelinePage } from './timeline.ts'

test('members that are killed, paused and cut off tell nobody anything wrong', {
  timeout: 240_000,
}, async () => {
  const run = await verify({
    seed: 11,
    operations: 300,
    clients: 8,
    faults: ['kill', 'pause', 'partition'],
    secondsMax: 120,
    faultsMin: 3,
    signal: new AbortController().signal,
    note: () => undefined,
  })
  expect(run.violations).toEqual([])
  expect(run.acknowledged).toBeGreaterThan(0)
  expect(run.faults.length).toBeGreaterThan(0)
  expect(new Set(run.hashes).size).toBe(1)
  const page = timelinePage({ ...run, title: 'a run', summary: 'as it was' })
  expect(page).toContain('<rect')
  expect(page).toContain('No violations')
})

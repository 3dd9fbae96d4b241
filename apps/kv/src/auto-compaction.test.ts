import { expect, test } from 'vitest'
import { startAutoCompaction } from './auto-compaction.ts'
import type { AutoCompaction } from './settings/settings.ts'
import { manualClock } from './testing/manual-clock.ts'

const minuteMs = 60_000

function setUp(mode: AutoCompaction) {
  const clock = manualClock()
  const compacted: number[] = []
  const target = {
    leads: true,
    now: 100,
    isLeader: () => target.leads,
    revision: () => target.now,
    compact: async (revision: number) => void compacted.push(revision),
  }
  const stop = startAutoCompaction(mode, target, clock)
  return { clock, compacted, target, stop }
}

test('by revision it keeps the newest, every five minutes, and only the leader does it', async () => {
  const { clock, compacted, target } = setUp({ kind: 'revision', keep: 10 })
  await clock.advance(5 * minuteMs)
  expect(compacted).toEqual([90])
  await clock.advance(5 * minuteMs)
  expect(compacted).toEqual([90])
  target.now = 200
  target.leads = false
  await clock.advance(5 * minuteMs)
  expect(compacted).toEqual([90])
  target.leads = true
  await clock.advance(5 * minuteMs)
  expect(compacted).toEqual([90, 190])
})

test('by period it compacts to what was current one period ago', async () => {
  const { clock, compacted, target, stop } = setUp({ kind: 'periodic', periodMs: 30 * minuteMs })
  await clock.advance(30 * minuteMs)
  expect(compacted).toEqual([])
  target.now = 200
  await clock.advance(30 * minuteMs)
  expect(compacted).toEqual([100])
  stop()
  await clock.advance(120 * minuteMs)
  expect(compacted).toEqual([100])
})

import { mkdtempSync, readdirSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { fallbackReason, readFallbackReason, removeGateNote, writeGateNote } from './gate-note.ts'

const red = { bootId: 'b3', problems: ['kiln-runtime.service is failed (failed)'], settling: false }
const settling = { bootId: 'b3', problems: [], settling: true }

test('a boot that its deadline ended failed for its health', () => {
  expect(fallbackReason({ note: red, deadlineBootId: 'b3', triesDone: 2 })).toBe(
    'health gate stayed red until the deadline in 2 boots: kiln-runtime.service is failed (failed)',
  )
  expect(fallbackReason({ note: undefined, deadlineBootId: 'b3', triesDone: 2 })).toMatch(
    /^kiln-update did not look at the health/,
  )
})

test('a boot that ended otherwise is not said to have failed for a gate that was red or settling then', () => {
  for (const note of [red, settling, { ...settling, settling: false }]) {
    const reason = fallbackReason({ note, deadlineBootId: undefined, triesDone: 1 })
    expect(reason).toMatch(/^ended before the health gate decided in 1 boots \(kernel panic, hang,/)
    expect(reason).not.toMatch(/stayed red|healthy since/)
  }
  expect(fallbackReason({ note: settling, deadlineBootId: undefined, triesDone: 1 })).toMatch(
    /had just begun to be green$/,
  )
  // The first boot met its deadline, the second one panicked.
  expect(fallbackReason({ note: red, deadlineBootId: 'b2', triesDone: 2 })).toMatch(/^ended before/)
  expect(fallbackReason({ note: undefined, deadlineBootId: undefined, triesDone: 2 })).toMatch(
    /^did not reach the health gate in 2 boots \(verity error, kernel panic/,
  )
})

test('what a boot left is read by the next and gone once one is blessed', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'kiln-gate-'))
  await writeGateNote(folder, 2, red)
  expect(await readFallbackReason(folder, 2, 1)).toMatch(/^ended before.*is failed \(failed\)$/)
  writeFileSync(join(folder, 'deadline-2'), 'b3\n')
  expect(await readFallbackReason(folder, 2, 1)).toMatch(/^health gate stayed red/)
  expect(await readFallbackReason(folder, 3, 0)).toMatch(/^did not reach/)
  await removeGateNote(folder, 2)
  expect(readdirSync(folder)).toEqual([])
})

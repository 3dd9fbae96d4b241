import { expect, test } from 'vitest'
import { checkWrites } from './demo.ts'

const writes = { acknowledged: 3, unknown: 0, refused: 0, lost: 0, longestPauseSeconds: 1 }

test('a demonstration whose writes are not all there has failed', () => {
  expect(checkWrites(writes)).toBe(writes)
  for (const bad of [undefined, { ...writes, lost: 1 }])
    expect(() => checkWrites(bad)).toThrow(expect.objectContaining({ code: 'WRITES_LOST' }))
})

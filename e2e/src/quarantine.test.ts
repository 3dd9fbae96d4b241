import { expect, test } from 'vitest'
import { Quarantine, quarantineReason, readQuarantine } from './quarantine.ts'
import { stories } from './stories.ts'

test('the list in the repository can be read and names stories that exist', () => {
  const list = readQuarantine(new URL('../quarantine.json', import.meta.url))
  expect(list.filter(({ story }) => !stories.some(({ name }) => name === story))).toEqual([])
})

test('an entry needs a reason and a date', () => {
  expect(Quarantine.safeParse([{ story: 'a', reason: 'hm', since: '2026-01-02' }]).success).toBe(false)
  expect(Quarantine.safeParse([{ story: 'a', reason: 'fails now and then', since: 'today' }]).success).toBe(
    false,
  )
  expect(
    quarantineReason([{ story: 'a', reason: 'fails now and then', since: '2026-01-02' }], 'b'),
  ).toBeUndefined()
})

import { expect, test } from 'vitest'
import { parseWindow, windowOpen } from './window.ts'

const at = (text: string): number => Date.parse(text)

test('no window means always', () => {
  expect(windowOpen([], at('2026-01-01T00:00:00Z'))).toBe(true)
})

test('a window of one day is open only there', () => {
  const saturday = parseWindow('Sat 02:00+120')!
  expect(windowOpen(saturday, at('2026-01-03T03:59:00Z'))).toBe(true)
  expect(windowOpen(saturday, at('2026-01-03T04:00:00Z'))).toBe(false)
  expect(windowOpen(saturday, at('2026-01-02T03:00:00Z'))).toBe(false)
})

test('a window crosses midnight and the end of the week', () => {
  const daily = parseWindow('23:30+60')!
  expect(windowOpen(daily, at('2026-01-04T00:15:00Z'))).toBe(true)
  expect(windowOpen(daily, at('2026-01-04T00:45:00Z'))).toBe(false)
  expect(windowOpen(parseWindow('Sat 23:00+120')!, at('2026-01-04T00:30:00Z'))).toBe(true)
})

test('what is not a window is refused', () => {
  for (const text of ['', 'Sat', '25:00+10', '02:00', '02:00+0', 'Sam 02:00+10'])
    expect(parseWindow(text)).toBeUndefined()
})

import { expect, test } from 'vitest'
import { LogTimes } from './log-times.ts'

test('an index was reached with the first step at or beyond it', () => {
  const times = new LogTimes()
  times.reached(3, 10)
  times.reached(3, 11)
  times.reached(7, 20)
  expect([1, 3, 4, 7, 8].map((index) => times.at(index))).toEqual([10, 10, 20, 20, undefined])
})

test('old steps are forgotten, and so is what was cut off', () => {
  const times = new LogTimes()
  for (let index = 1; index <= 5000; index++) times.reached(index, 1000 + index)
  expect([times.at(1), times.at(4000), times.at(5000)]).toEqual([undefined, 5000, 6000])
  times.reached(4500, 7000)
  expect([times.at(4400), times.at(4500), times.at(5000)]).toEqual([7000, 7000, undefined])
})

import { expect, test } from 'vitest'
import { DownTimes, overlaps } from './down-times.ts'

test('a machine is down from its first boot line until it is ready', () => {
  const down = new DownTimes()
  down.line('a', 'some service says something', 1)
  down.line('a', 'BdsDxe: loading Boot0001', 2)
  down.line('a', '[    0.000000] Linux version 6.1', 3)
  down.line('a', 'MARK:units uptime=5 status=running', 4)
  down.line('a', 'MARK:ready uptime=9 version=0.2.0 slot=b generation=2', 5)
  expect(down.times).toEqual([{ machine: 'a', fromMs: 2, toMs: 5 }])
})

test('down times of two machines that touch in time overlap, an unfinished one with all later ones', () => {
  const one = { machine: 'a', fromMs: 0, toMs: 10 }
  const two = { machine: 'b', fromMs: 9, toMs: undefined }
  const three = { machine: 'c', fromMs: 50, toMs: 60 }
  expect(overlaps([one, two, three])).toEqual([
    [one, two],
    [two, three],
  ])
  expect(overlaps([one, { machine: 'b', fromMs: 10, toMs: 20 }])).toEqual([])
  expect(overlaps([one, { ...one, fromMs: 5 }])).toEqual([])
})

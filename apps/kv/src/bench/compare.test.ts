import { expect, test } from 'vitest'
import { describeRow, median, type Row, shortfalls } from './compare.ts'
import { workloads } from './workloads.ts'

const window = (ratePerSecond: number, cpuMicros: number, isVoid = false) => ({
  ...{ ratePerSecond, cpuMicros, isVoid },
  ...{ p50Ms: 1, p99Ms: 2, perSync: 4, failures: 0 },
})

const row = (kiln: ReturnType<typeof window>[]): Row => ({
  workload: workloads.find(({ name }) => name === 'put-streams')!,
  etcd: { windows: [window(1000, 100), window(900, 110), window(1100, 90)], rssMiB: 50 },
  kiln: { windows: kiln, rssMiB: 60 },
})

test('windows in which the generator was the bottleneck do not count', () => {
  const side = row([window(9000, 10, true), window(2500, 40), window(2700, 42)]).kiln
  expect(median(side, (one) => one.ratePerSecond)).toBe(2600)
})

test('a row that reaches both ratios falls short of nothing', () => {
  expect(shortfalls(row([window(2600, 45)]))).toEqual([])
  expect(describeRow(row([window(2600, 45)])).at(-1)).toContain('2.60 x the rate, 0.45 x the CPU; at least')
})

test('what falls short is named, and so are failed requests and void rows', () => {
  expect(shortfalls(row([window(2400, 60)]))).toEqual([
    'rate 2.40 x, at least 2.5 x',
    'CPU 0.60, at most 0.5',
  ])
  expect(shortfalls(row([{ ...window(2600, 45), failures: 1 }]))).toEqual(['requests failed'])
  expect(shortfalls(row([window(2600, 45, true)]))).toEqual(['void: the generator was the bottleneck'])
})

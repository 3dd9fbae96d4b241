import { expect, test } from 'vitest'
import { readLatencies, readSummary } from './h2load.ts'

// Output of h2load 1.64.
const output = `finished in 2.03s, 12047.50 req/s, 1.46MB/s
requests: 24095 total, 24351 started, 24095 done, 24093 succeeded, 2 failed, 0 errored, 1 timeout
status codes: 24095 2xx, 0 3xx, 0 4xx, 0 5xx
`

test('what h2load reports is read', () => {
  expect(readSummary(output)).toEqual({ requests: 24_093, failures: 3 })
  expect(() => readSummary('connection refused')).toThrow('said nothing')
})

test('percentiles come from its log', () => {
  const lines = Array.from({ length: 100 }, (_, at) => `1732550000${at}\t200\t${(at + 1) * 1000}`)
  expect(readLatencies(`${lines.reverse().join('\n')}\n`)).toEqual({ p50Ms: 51, p99Ms: 100 })
})

import { existsSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import type { IgnitionConfig } from './ignition.ts'
import { mergeIgnition } from './ignition-merge.ts'
import { describeIgnitionProblem, parseIgnition } from './ignition-parse.ts'

/** Case data of the reference validator, outside of this repository. */
const folder = new URL('../../../../shared/cases/ignition/', import.meta.url)
const there = existsSync(folder)
if (!there) console.log('skipped: no case data beside the repository (shared/cases/ignition)')

type ReportCase = { fromTest: string; version: string; config: string; report: string }
type TableCase = { test: string; case: { in1: IgnitionConfig; in2: IgnitionConfig; out: IgnitionConfig } }
const read = <T>(name: string): T => JSON.parse(readFileSync(new URL(name, folder), 'utf8')) as T

/** Reports that differ on purpose: ours say more, or the source's scheme is refused later as unsupported. */
const knownDifferences = [
  /invalid S3 ARN format/,
  /invalid S3 object VersionId/,
  /^couldn't parse config: unsupported config version$/,
  /^error at line 0 col 0/,
]

describe.skipIf(!there)('reference cases', () => {
  test('configs are reported as the reference validator reports them, text and position', () => {
    const wrong: string[] = []
    for (const { fromTest, version, config, report } of read<ReportCase[]>('validate-reports.json')) {
      const expected = report.split('\n').filter((line) => line !== '')
      if (expected.some((line) => knownDifferences.some((known) => known.test(line)))) continue
      const actual = parseIgnition(config).problems.map(describeIgnitionProblem)
      if (actual.sort().join('\n') !== expected.sort().join('\n')) {
        wrong.push(`${fromTest} ${version}: ${actual.join('; ')} instead of ${expected.join('; ')}`)
      }
    }
    expect(wrong).toEqual([])
  })

  test('configs merge as the reference merges them', () => {
    const rows = read<TableCase[]>('unit-tables.json').filter(({ test: name }) => name === 'TestMerge')
    expect(rows.length).toBeGreaterThan(0)
    for (const { case: row } of rows) expect(mergeIgnition(row.in1, row.in2)).toEqual(row.out)
  })
})

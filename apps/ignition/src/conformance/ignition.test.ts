import { linkSync, mkdtempSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { nodeDifferences } from './blackbox-compare.ts'
import { runButaneCases } from './butane.ts'
import { dataFile, exitCodeOf } from './case-result.ts'
import { type IgnitionCounts, runIgnitionConformance } from './ignition.ts'
import { type ReportCase, runReports } from './reports.ts'
import { runUnitTables, type UnitRow } from './unit-tables.ts'

const text = '{"ignition": {"version": "3.3.0"}, "storage": {"files": [{"path": "f"}]}}'
const report = 'error at $.storage.files.0.path, line 1 col 67: path not absolute\n'
const reportCase: ReportCase = { fromTest: 'T', version: '3.3.0', config: text, exitCode: 1, report }
const outcomes = (change: Partial<ReportCase>): string[] =>
  runReports('f', [{ ...reportCase, ...change }]).map(({ outcome }) => outcome)

const pathRow = (out: unknown): UnitRow => ({
  file: 'types/path_test.go',
  test: 'TestPathValidate',
  types: 'struct { in string; out error }',
  versions: ['3.0.0', '3.6.0'],
  case: { in: 'not/absolute', ...(out ? { out } : {}) },
})

describe('comparing with the reference', () => {
  test('a report of the same level, path and place passes whatever its words', () => {
    expect(outcomes({})).toEqual(['passed'])
    expect(outcomes({ report: report.replace('path not absolute', 'other words') })).toEqual(['passed'])
  })

  test('another level, path, line, column, count or exit code fails', () => {
    for (const [one, other] of [
      ['error', 'warning'],
      ['.path', ''],
      ['line 1', 'line 2'],
      ['col 67', 'col 66'],
    ] as const) {
      expect(outcomes({ report: report.replace(one, other) }), one).toEqual(['failed'])
    }
    expect(outcomes({ report: report + report })).toEqual(['failed'])
    expect(outcomes({ report: '' })).toEqual(['failed'])
    expect(outcomes({ exitCode: 0 })).toEqual(['failed'])
  })

  test('a unit row is met by a finding at its place, and by none when none is expected', () => {
    const [met, missed] = runUnitTables('f', [pathRow({ error: 'path not absolute' }), pathRow(undefined)])
    expect(met).toMatchObject({ outcome: 'passed' })
    expect(missed).toMatchObject({ outcome: 'failed' })
  })

  test('a row of an unknown shape fails instead of counting as passed', () => {
    const [result] = runUnitTables('f', [
      { ...pathRow(undefined), test: 'TestX', types: 'struct { in Nothing }' },
    ])
    expect(result).toMatchObject({ outcome: 'failed' })
  })
})

describe('the runner', () => {
  const run = async (cases: string): Promise<{ counts: IgnitionCounts; lines: string[] }> => {
    const lines: string[] = []
    const counts = await runIgnitionConformance({ cases, full: false, print: (line) => lines.push(line) })
    return { counts, lines }
  }

  test('takes every file of its names in the folder and counts', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'kiln-cases-'))
    const write = (name: string, value: unknown): void =>
      writeFileSync(join(folder, name), JSON.stringify(value))
    write('validate-reports.json', [reportCase])
    write('validate-reports-2.json', [{ ...reportCase, exitCode: 0 }])
    write('unit-tables.json', [pathRow({ error: 'x' })])
    write('other.json', [])
    const { counts, lines } = await run(folder)
    expect(counts).toEqual({ passed: 2, failed: 1, skipped: 0 })
    expect(lines.some((line) => line.startsWith('FAIL validate-reports-2.json'))).toBe(true)
  })

  test('says that there is no case data and counts nothing', async () => {
    const { counts, lines } = await run('/nowhere/at/all')
    expect(counts).toEqual({ passed: 0, failed: 0, skipped: 0 })
    expect(lines).toHaveLength(1)
  })

  test('a folder that was asked for and holds no case is no success, one that is skipped or absent by default is', async () => {
    const none = await runButaneCases({ casesDir: '/nowhere/at/all', print: () => {} })
    expect(exitCodeOf(none, '/nowhere/at/all')).toBe(2)
    expect(exitCodeOf({ passed: 0, failed: 0, skipped: 0 }, undefined)).toBe(0)
    expect(exitCodeOf({ passed: 0, failed: 0, skipped: 3 }, 'cases')).toBe(0)
    expect(exitCodeOf({ passed: 3, failed: 0, skipped: 0 }, 'cases')).toBe(0)
    expect(exitCodeOf({ passed: 3, failed: 1, skipped: 0 }, undefined)).toBe(1)
  })
})

test('another name of a symbolic link is a hard link, another of the same target is none', () => {
  const root = mkdtempSync(join(tmpdir(), 'kiln-compare-'))
  symlinkSync('nowhere', join(root, 'bar'))
  linkSync(join(root, 'bar'), join(root, 'foo'))
  symlinkSync('nowhere', join(root, 'other'))
  const owner = { uid: process.getuid!(), gid: process.getgid!() }
  const link = (name: string) => ({ dir: '/', name, ...owner, target: '/bar', hard: true })
  expect(nodeDifferences(root, { lengthSectors: 0, links: [link('foo')] })).toEqual([])
  expect(nodeDifferences(root, { lengthSectors: 0, links: [link('other')] })).toEqual([
    'other is not a hard link to /bar',
  ])
})

test('data that cases refer to are their own, else those of the default folder', () => {
  const [cases, fallback] = [1, 2].map(() => mkdtempSync(join(tmpdir(), 'kiln-cases-')))
  writeFileSync(join(cases!, 'own.json'), '{}')
  const path = (name: string) => dataFile(name, { cases: cases!, fallback: fallback! })
  expect(path('own.json')).toBe(join(cases!, 'own.json'))
  expect(path('other.json')).toBe(join(fallback!, 'other.json'))
})

/**
 * Runs Ignition's case data against what is built.
 *
 *   node apps/ignition/src/conformance/ignition.ts [--cases DIR] [--full]
 *
 * DIR holds validate-reports*.json, unit-tables*.json and blackbox-*.json. Prints the cases that fail or are skipped
 * with their reasons, the counts of each kind, and `N passed, M failed, K skipped` at the end. `--full` runs black-box
 * cases for every version they list, otherwise for the lowest and the highest.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { type BlackboxFile, runBlackbox } from './blackbox.ts'
import { type CaseResult, dataFile, exitCodeOf } from './case-result.ts'
import { type ReportCase, runReports } from './reports.ts'
import { runUnitTables, type UnitRow } from './unit-tables.ts'

const casesDefault = resolve(import.meta.dirname, '../../../../../shared/cases/ignition')

const usage = `kiln conformance ignition: case data of the real Ignition against ours.

  --cases DIR   validate-reports*.json, unit-tables*.json and blackbox-*.json (default: the shared cases); images and
                served bodies are those of the shared cases where DIR has no fs-images.json or served-fixtures.json
  --full        black-box cases in every version they list, not only the lowest and the highest

Ends with "N passed, M failed, K skipped"; exit 1 when one failed, 2 when the folder named by --cases holds none.
`

export type IgnitionConformanceOptions = { cases: string; full: boolean; print: (line: string) => void }
export type IgnitionCounts = { passed: number; failed: number; skipped: number }

type CaseFile = { name: string; cases: unknown[] }

export async function runIgnitionConformance(options: IgnitionConformanceOptions): Promise<IgnitionCounts> {
  const { cases: folder, print } = options
  const total: IgnitionCounts = { passed: 0, failed: 0, skipped: 0 }
  if (!existsSync(folder)) {
    print(`there is no ${folder}; --cases DIR names a folder of case data`)
    return total
  }
  const read = (prefix: string): CaseFile[] =>
    readdirSync(folder)
      .filter((name) => name.startsWith(prefix) && name.endsWith('.json'))
      .sort()
      .map((name) => ({ name, cases: JSON.parse(readFileSync(join(folder, name), 'utf8')) as unknown[] }))
  const folders = { cases: folder, fallback: casesDefault }
  const data = {
    images: dataFile('fs-images.json', folders),
    served: dataFile('served-fixtures.json', folders),
  }
  const kinds: [string, AsyncIterable<CaseResult> | Iterable<CaseResult>][] = [
    [
      'reports',
      read('validate-reports').flatMap((file) => runReports(file.name, file.cases as ReportCase[])),
    ],
    ['unit tables', read('unit-tables').flatMap((file) => runUnitTables(file.name, file.cases as UnitRow[]))],
    ['black box', runBlackbox(read('blackbox-') as BlackboxFile[], { full: options.full, data })],
  ]
  for (const [kind, results] of kinds) {
    const counts: IgnitionCounts = { passed: 0, failed: 0, skipped: 0 }
    for await (const { name, outcome, detail } of results) {
      counts[outcome]++
      total[outcome]++
      if (outcome !== 'passed') print(`${outcome === 'failed' ? 'FAIL' : 'SKIP'} ${name}: ${detail ?? ''}`)
    }
    print(`${kind}: ${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`)
  }
  return total
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      cases: { type: 'string' },
      full: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  if (values.help) {
    process.stdout.write(usage)
    process.exit(0)
  }
  const counts = await runIgnitionConformance({
    cases: values.cases ? resolve(values.cases) : casesDefault,
    full: values.full,
    print: (line) => console.log(line),
  })
  console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`)
  process.exitCode = exitCodeOf(counts, values.cases)
}

import { isDeepStrictEqual } from 'node:util'
import {
  duplicateEntries,
  type IgnitionConfig,
  type IgnitionProblem,
  ignitionVersions,
  mergeIgnition,
  offsetOfPath,
  parseIgnition,
  parseJson,
} from '@kiln/schemas'
import { headersOf } from '../fetch-resource.ts'
import { type CaseResult, resultOf } from './case-result.ts'
import { proxyWrapping, type UnitWrapping, wrappingOf } from './unit-wrapping.ts'

/** A row of `unit-tables*.json`: one row of a table of the reference's unit tests, its fields as JSON. */
export type UnitRow = {
  file: string
  test: string
  types: string
  versions: string[]
  case: Record<string, unknown>
}

/** What a row expects: a finding of a level at a path, or none. */
type Expected = { level: 'error' | 'warning' | 'any'; at?: string } | undefined

/** Runs a table's rows through our counterparts of the tested functions, for every spec version a row is for. */
export function runUnitTables(file: string, rows: UnitRow[]): CaseResult[] {
  return rows.map((row, index) => resultOf(`${file} ${index} ${row.test}`, runRow(row)))
}

function runRow(row: UnitRow): string[] {
  switch (row.test) {
    case 'TestMerge':
      return mergeRow(row.case)
    case 'TestParse':
      return row.versions.flatMap((version) => parseRow(row.case, version))
    case 'TestValidateWithContext':
      return contextRow(row.case)
    case 'TestValidateProxyURL':
      return proxyRow(row)
    case 'TestHeadersParse':
      return headersRow(row)
    default: {
      const wrapping = wrappingOf(row.test, row.types)
      if (!wrapping) return [`no function is known for rows of the shape ${row.types}`]
      return checkedRow(row, wrapping, expectedOf(row.case))
    }
  }
}

/** An error value, a report's text or a report entry, whichever form the table has. */
function expectedOf(row: Record<string, unknown>): Expected {
  const at = typeof row['at'] === 'string' ? row['at'] : undefined
  if (row['err']) return { level: 'error', ...(at ? { at } : {}) }
  if (row['warn']) return { level: 'warning', ...(at ? { at } : {}) }
  const out = row['out']
  if (typeof out === 'string') {
    const line = /^(error|warning) at (\$\S*?)(?:,.*)?: /.exec(out)
    return line ? { level: line[1] as 'error' | 'warning', at: line[2]! } : undefined
  }
  const failed =
    (out as { error?: string; err?: unknown } | undefined)?.error ?? (out as { err?: unknown })?.err
  return failed ? { level: 'any', ...(at ? { at } : {}) } : undefined
}

/** The row's value in a whole config must be reported at its path, or not at all. */
function checkedRow(row: UnitRow, wrapping: UnitWrapping, expected: Expected): string[] {
  const wrong: string[] = []
  for (const version of row.versions) {
    const text = JSON.stringify(wrapping.config(row.case['in'], version))
    const problems = parseIgnition(text).problems.filter(({ path }) => isWithin(path, wrapping.at))
    if (expected) {
      const path = expected.at?.replace('$', wrapping.at)
      if (problems.some((problem) => matches(problem, expected, path))) continue
      wrong.push(`${version}: nothing at ${path ?? wrapping.at}${found(problems)}`)
    } else {
      const errors = problems.filter(({ severity }) => severity === 'error')
      if (errors.length > 0) wrong.push(`${version}: should be valid${found(errors)}`)
    }
  }
  return wrong
}

const isWithin = (path: string, at: string): boolean => path === at || path.startsWith(`${at}.`)
const found = (problems: IgnitionProblem[]): string =>
  problems.length === 0
    ? ''
    : `, but ${problems.map(({ path, message }) => `${path}: ${message}`).join(', ')}`

function matches(
  problem: IgnitionProblem,
  expected: NonNullable<Expected>,
  path: string | undefined,
): boolean {
  if (expected.level !== 'any' && problem.severity !== expected.level) return false
  return path === undefined || problem.path === path
}

function mergeRow(row: Record<string, unknown>): string[] {
  const merged = mergeIgnition(row['in1'] as IgnitionConfig, row['in2'] as IgnitionConfig)
  return isDeepStrictEqual(merged, row['out']) ? [] : [`merged to ${JSON.stringify(merged)}`]
}

/**
 * The rows of one version's strict parser (that version only) and of its compatible one (it and those before) have
 * the same name; a row is met when one of the two does as it says.
 */
function parseRow(row: Record<string, unknown>, version: string): string[] {
  const text = (row['in'] as { config: string }).config
  const refused = (row['out'] as { err?: unknown }).err !== undefined
  const compatible = ignitionVersions.slice(0, ignitionVersions.indexOf(version as never) + 1)
  const outcomes = [[version], compatible].map((versions) => parseIgnition(text, { versions }))
  const right = outcomes.some(({ config }) => (config === undefined) === refused)
  return right ? [] : [`${version}: ${refused ? 'is accepted' : 'is refused'}`]
}

/** Findings are placed at their value in the text; entries of a keyed list that share a key are found. */
function contextRow(row: Record<string, unknown>): string[] {
  type Entry = { Context: string; Marker?: { StartP?: { Line: number; Column: number } } }
  const entries = ((row['out'] as { Entries?: Entry[] } | undefined)?.Entries ?? []) as Entry[]
  const lists = Object.entries((row['in'] ?? {}) as Record<string, unknown>)
  const duplicates = lists.flatMap(([name, list]) =>
    Array.isArray(list)
      ? duplicateEntries(list.map((entry) => JSON.stringify(entry))).map((at) => `$.${name}.${at}`)
      : [],
  )
  const wrong: string[] = []
  const json = parseJson((row['inRaw'] as string | undefined) || 'null')
  if (!json.ok) return [json.fault.message]
  for (const { Context, Marker } of entries) {
    if (lists.length > 0 && !duplicates.includes(Context)) wrong.push(`no duplicate found at ${Context}`)
    if (!Marker?.StartP) continue
    const { Line, Column } = Marker.StartP
    const parts = Context.split('.').slice(1)
    const path = parts.map((part) => (/^\d+$/.test(part) ? Number(part) : part))
    const { line, column } = json.positionOf(offsetOfPath(json.root, path))
    if (line !== Line || column !== Column) {
      wrong.push(`${Context} is placed at line ${line} col ${column}`)
    }
  }
  if (entries.length === 0 && duplicates.length > 0) wrong.push(`duplicates at ${duplicates.join(', ')}`)
  return wrong
}

function proxyRow(row: UnitRow): string[] {
  const entry = row.case['out'] as { Message?: string; Kind?: number } | undefined
  const level = entry?.Kind === 1 ? 'warning' : 'error'
  return checkedRow(
    row,
    proxyWrapping(row.case['httpOk'] === true),
    entry?.Message ? { level, at: '$' } : undefined,
  )
}

/** The headers as a request gets them: one without a value cannot be sent. */
function headersRow(row: UnitRow): string[] {
  const headers = row.case['in'] as { name: string; value?: string }[]
  let refused = false
  try {
    headersOf(headers)
  } catch {
    refused = true
  }
  const expected = (row.case['out'] as { error?: string } | undefined)?.error !== undefined
  return refused === expected ? [] : [expected ? 'the headers are accepted' : 'the headers are refused']
}

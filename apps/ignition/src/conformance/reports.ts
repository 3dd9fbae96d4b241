import { describeIgnitionProblem, parseIgnition } from '@kiln/schemas'
import { type CaseResult, resultOf } from './case-result.ts'

/** A row of `validate-reports*.json`: a config, and what the reference validator says of it. */
export type ReportCase = {
  fromTest: string
  version: string
  config: string
  exitCode: number
  report: string
}

/** Level, path and place of a report's line; the wording is each validator's own. */
const linePattern = /^(error|warning|info) at (?:(\$.*?)(?:, (?=line \d)|(?=:)))?(?:line (\d+) col (\d+))?:/
const unparsed = "couldn't parse config:"

/** Compares exit code and the level, path, line and column of every line, in any order. */
export function runReports(file: string, cases: ReportCase[]): CaseResult[] {
  return cases.map(({ fromTest, version, config, exitCode, report }, index) => {
    const wrong: string[] = []
    const { problems } = parseIgnition(config)
    const code = problems.some(({ severity }) => severity === 'error') ? 1 : 0
    if (code !== exitCode) wrong.push(`exit code ${code} instead of ${exitCode}`)
    const expected = report.split('\n').filter((line) => line !== '')
    const actual = problems.map(describeIgnitionProblem)
    wrong.push(...unmatched(actual, expected))
    return resultOf(`${file} ${index} ${fromTest} ${version}`, wrong)
  })
}

function unmatched(actual: string[], expected: string[]): string[] {
  const left = [...actual]
  const wrong: string[] = []
  for (const line of expected) {
    const at = left.findIndex((other) => sameFinding(line, other))
    if (at < 0) wrong.push(`missing: ${line}`)
    else left.splice(at, 1)
  }
  return [...wrong, ...left.map((line) => `not expected: ${line}`)]
}

/** Where the reference has no place (it prints line 0 for text that is not JSON), any place will do. */
function sameFinding(expected: string, actual: string): boolean {
  if (expected.startsWith(unparsed) || actual.startsWith(unparsed)) {
    return expected.startsWith(unparsed) && actual.startsWith(unparsed)
  }
  const [one, other] = [linePattern.exec(expected), linePattern.exec(actual)]
  if (!one || !other) return false
  const noPlace = one[3] === '0' || one[3] === undefined
  return (
    one[1] === other[1] && one[2] === other[2] && (noPlace || (one[3] === other[3] && one[4] === other[4]))
  )
}

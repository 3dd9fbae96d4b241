export type TestCount = {
  passed: number
  failed: number
  skipped: number
  /** Why what was skipped was. */
  reasons: string[]
  /** The lines that say what failed. */
  failures: string[]
  /** What passed only on a second try, with why the first one failed. */
  flaky: string[]
}

/**
 * What a part of the tests counted, from what it printed: the plain closing line of our own runners, or vitest's
 * `Tests` line; a part that counts nothing is one test by its exit code. Lines `skipped: ...`, `skipped NAME: ...` and
 * `SKIP ...` are reasons, `FAIL ...` and `FAILED ...` tell what failed, lines `flaky NAME: ...` tell what needed a second try.
 */
export function readCount(output: string, exitCode: number | null): TestCount {
  const lines = plain(output).split('\n')
  const found = (pattern: RegExp): string[] => [
    ...new Set(lines.flatMap((line) => pattern.exec(line)?.[1] ?? [])),
  ]
  const counted = closingLine(lines) ?? vitestLine(lines) ?? (exitCode === 0 ? one('passed') : one('failed'))
  // A runner that dies after counting has failed all the same.
  const failed = counted.failed === 0 && exitCode !== 0 ? 1 : counted.failed
  return {
    ...counted,
    failed,
    reasons: found(reasonPattern),
    failures: found(failurePattern),
    flaky: found(flakyPattern),
  }
}

type Numbers = Pick<TestCount, 'passed' | 'failed' | 'skipped'>

const reasonPattern = /^\s*(?:skipped: |skipped (?=\S+: )|SKIP )(.*)$/

/** Lines of vitest (`FAIL  |kv| file > test`), of the stories and of the conformance scripts. */
const failurePattern = /^\s*(?:FAIL|FAILED|not ok)\s+(.*)$/
const flakyPattern = /^flaky (?=\S+: )(.*)$/

const one = (what: keyof Numbers): Numbers => ({ passed: 0, failed: 0, skipped: 0, [what]: 1 })

/** `N passed, M failed, K skipped`; a runner that says only the first two may say `K skipped` on a line before. */
function closingLine(lines: string[]): Numbers | undefined {
  const found = lines.findLast((line) => /^\d+ passed, \d+ failed(, \d+ skipped)?$/.test(line))
  if (found === undefined) return undefined
  const [passed = 0, failed = 0, skipped] = [...found.matchAll(/\d+/g)].map(Number)
  const before = lines.findLast((line) => /^\d+ skipped$/.test(line))
  return { passed, failed, skipped: skipped ?? Number.parseInt(before ?? '0', 10) }
}

function vitestLine(lines: string[]): Numbers | undefined {
  const found = lines.findLast((line) => /^\s*Tests\s+\d+/.test(line))
  if (found === undefined) return undefined
  const number = (word: string): number => Number(new RegExp(`(\\d+) ${word}`).exec(found)?.[1] ?? 0)
  return { passed: number('passed'), failed: number('failed'), skipped: number('skipped') }
}

function plain(text: string): string {
  return text.replaceAll(/\u001b\[[0-9;]*m/g, '')
}

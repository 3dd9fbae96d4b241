export type TestCount = { passed: number; failed: number; skipped: number; reasons: string[] }

/**
 * What a part of the tests counted, from what it printed: the plain closing line of our own runners, or vitest's
 * `Tests` line; a part that counts nothing is one test by its exit code. Lines `skipped: ...`, `skipped NAME: ...` and
 * `SKIP ...` are reasons.
 */
export function readCount(output: string, exitCode: number | null): TestCount {
  const lines = plain(output).split('\n')
  const reasons = lines.flatMap((line) => reasonPattern.exec(line)?.[1] ?? [])
  const counted = closingLine(lines) ?? vitestLine(lines) ?? (exitCode === 0 ? one('passed') : one('failed'))
  // A runner that dies after counting has failed all the same.
  const failed = counted.failed === 0 && exitCode !== 0 ? 1 : counted.failed
  return { ...counted, failed, reasons: [...new Set(reasons)] }
}

type Numbers = Omit<TestCount, 'reasons'>

const reasonPattern = /^\s*(?:skipped: |skipped (?=\S+: )|SKIP )(.*)$/

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

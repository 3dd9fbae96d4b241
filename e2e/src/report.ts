/** How a story ended. */
export type Outcome =
  /** `flaky` says why the first try failed, when only the second passed. */
  | { kind: 'passed'; seconds: number; figures: readonly Figure[]; flaky?: string }
  | { kind: 'failed'; seconds: number; figures: readonly Figure[]; reason: string }
  | { kind: 'skipped'; reason: string }

export type Figure = { name: string; value: string }

export type StoryResult = { story: string; budgetSeconds: number; outcome: Outcome }

const nameWidth = 16

/** The line of one story. */
export function resultLine({ story, budgetSeconds, outcome }: StoryResult): string {
  const name = story.padEnd(nameWidth)
  if (outcome.kind === 'skipped') return `SKIPPED  ${name} ${outcome.reason}`
  const seconds = Math.round(outcome.seconds)
  const over = seconds > budgetSeconds ? ', over budget' : ''
  const time = `${seconds.toString().padStart(5)} s of ${budgetSeconds} s${over}`
  const figures = outcome.figures.map((figure) => `  ${figure.name} ${figure.value}`).join(';')
  const head = `${outcome.kind === 'passed' ? 'passed ' : 'FAILED '}  ${name} ${time}${figures}`
  if (outcome.kind === 'failed') return `${head}\n         ${outcome.reason}`
  return outcome.flaky ? `${head}\n         FLAKY, the first try failed: ${outcome.flaky}` : head
}

/** The counting line, what was flaky, and the reason of each skip. */
export function closingLines(results: readonly StoryResult[]): string[] {
  const count = (kind: Outcome['kind']): number =>
    results.filter(({ outcome }) => outcome.kind === kind).length
  const skips = results.flatMap(({ story, outcome }) =>
    outcome.kind === 'skipped' ? [`skipped ${story}: ${outcome.reason}`] : [],
  )
  const flaky = results.flatMap(({ story, outcome }) =>
    outcome.kind === 'passed' && outcome.flaky ? [`flaky ${story}: ${outcome.flaky}`] : [],
  )
  return [
    ...flaky,
    ...skips,
    `${count('passed')} passed, ${count('failed')} failed, ${count('skipped')} skipped`,
  ]
}

export const anyFailed = (results: readonly StoryResult[]): boolean =>
  results.some(({ outcome }) => outcome.kind === 'failed')

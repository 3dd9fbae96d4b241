import type { Reporter, TestCase } from 'vitest/node'

/** Names each test that passed only on a second try, with why the first one failed: `kiln test` repeats these lines. */
export default class FlakyReporter implements Reporter {
  readonly #lines: string[] = []

  onTestCaseResult(test: TestCase): void {
    const result = test.result()
    if (result.state !== 'passed' || !test.diagnostic()?.flaky) return
    const reason = result.errors?.[0]?.message.split('\n')[0] ?? 'no reason known'
    this.#lines.push(`flaky ${test.project.name}: ${test.fullName}: ${reason}`)
  }

  onTestRunEnd(): void {
    for (const line of this.#lines) process.stdout.write(`${line}\n`)
  }
}
